"""One question of one person: which method is worth its cost for my pair on my data."""
