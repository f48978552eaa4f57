"""The documents of the tree: their fenced blocks, and what the comment above a block says of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kdbench.records.provenance import ROOT

REASONS = {
    "needs Slurm", "needs a GPU", "needs the network", "needs your own data", "sets up this checkout", "takes hours",
    "runs until it is stopped",
}  # fmt: skip
"""Why a block may stay unrun."""
BLOCK = re.compile(r"(?:^<!-- (?P<note>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        note: of the comment line above it: ``slow``, ``file: PATH``, ``not run: REASON``, or empty.
        line: where it starts.
    """

    language: str
    text: str
    note: str
    line: int

    @property
    def slow(self) -> bool:
        """Left to the slow run of its document."""
        return self.note == "slow"

    @property
    def file(self) -> str | None:
        """The file whose content it is."""
        return self.note.removeprefix("file: ") if self.note.startswith("file: ") else None

    @property
    def unrun(self) -> str | None:
        """Why it is not run."""
        return self.note.removeprefix("not run: ") if self.note.startswith("not run: ") else None


def documents() -> list[Path]:
    """Everything people read."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a document, in order."""
    text = path.read_text()
    found = []
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("language")) + 1
        found.append(Block(match["language"], match["text"], match["note"] or "", line))
    return found


def commands(block: Block) -> Iterator[list[str]]:
    """Shell commands of a block as words, comments left out."""
    for line in block.text.replace("\\\n", " ").splitlines():
        for part in re.split(r"; (?:do )?", line):
            words = shlex.split(part, comments=True)
            if words:
                yield words
