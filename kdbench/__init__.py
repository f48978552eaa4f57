"""kdbench: a benchmark and leaderboard harness across knowledge-distillation methods."""

__version__ = "0.1.0"

ENGINE_VERSION = 1
"""Bumped whenever the same configuration would give other results; records of different values never meet."""
