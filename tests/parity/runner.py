"""The runner of golden vectors. It ships with the package, because plug-ins have vectors too."""

from kdbench.checks.golden import BadCase, Case, Run, difference, format_of, read, run, source_of

__all__ = ["BadCase", "Case", "Run", "difference", "format_of", "read", "run", "source_of"]
