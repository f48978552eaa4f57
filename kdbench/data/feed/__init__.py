"""From arrays to batches: rows drawn, augmented and normalised."""
