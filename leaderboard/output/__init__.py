"""Pages and downloads, written and served."""
