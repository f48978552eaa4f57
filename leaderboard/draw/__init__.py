"""Numbers and drawings."""
