"""Trained networks, taken away: as modules, as files, asked for answers. What training left, nothing that trains."""
