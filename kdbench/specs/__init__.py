"""What a run is asked to be: cards, tasks, options, and the configuration they make. Needs no torch."""
