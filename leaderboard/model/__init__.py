"""What the board shows, before it is drawn: rows of the index, entries, ranks."""
