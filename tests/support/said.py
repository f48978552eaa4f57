"""A progress that keeps what is said instead of printing it."""

from __future__ import annotations

from kdbench.base.progress import Progress, View


class Said(Progress):
    """Keeps what is said, in ``lines``."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def labelled(self, label: str) -> Progress:
        return self

    def with_view(self, view: View) -> Progress:
        return self

    def say(self, line: str) -> None:
        self.lines.append(line)
