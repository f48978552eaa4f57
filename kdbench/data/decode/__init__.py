"""From files to arrays: which files, which rows, decoded once, identified."""
