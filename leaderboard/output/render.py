"""Pages from views: the template environment, and where each page lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any

from jinja2 import BytecodeCache, Environment, FileSystemLoader, StrictUndefined
from jinja2.bccache import Bucket

from kdbench.leaderboard.views.facts import Facts

FOLDER = Path(__file__).parents[1]
NAV = (
    ("index.html", "Board"),
    ("overhead.html", "Overhead"),
    ("coverage.html", "Coverage"),
    ("compare.html", "Compare"),
    ("methodology.html", "Methodology"),
    ("data.html", "Data"),
    ("submit.html", "Submit"),
    ("changelog.html", "Changes"),
)


@dataclass(frozen=True)
class Site:
    """What every page states.

    Attributes:
        runs: where the pages of runs lie, from a page's root: snapshots share those of the board.
        local: no record has been verified.
        frozen: label of a snapshot, "" on the board itself.
        repository: address of the repository that the records lie in, "" where none is known.
        facts: what tables can be filtered by, of each method with a card.
    """

    kdbench: str
    statistics: int
    built: str
    records: int
    snapshot_id: str
    local: bool
    frozen: str = ""
    runs: str = "runs/"
    repository: str = ""
    facts: Mapping[str, Facts] = field(default_factory=dict, compare=False)
    nav: tuple[tuple[str, str], ...] = NAV


class _Compiled(BytecodeCache):
    """Templates are compiled once in a process, however many boards, snapshots among them, it renders."""

    def __init__(self) -> None:
        self._code: dict[tuple[str, str], CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._code.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        assert bucket.code is not None
        self._code[bucket.key, bucket.checksum] = bucket.code


_COMPILED = _Compiled()


class Pages:
    """Renders templates into a folder and counts the pages."""

    def __init__(self, out: Path, site: Site) -> None:
        self.out = out
        self.site = site
        self.count = 0
        # Everything is escaped, whatever a template is called; Markup comes only from our own drawings.
        self._env = Environment(
            loader=FileSystemLoader(FOLDER / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            bytecode_cache=_COMPILED,
        )
        self._env.globals["site"] = site

    def write(self, path: str, template: str, **view: Any) -> None:
        """Render one page; ``path`` is relative to the folder."""
        root = "../" * path.count("/")
        text = self._env.get_template(template).render(path=path, root=root, **view)
        target = self.out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text.lstrip(), encoding="utf-8")
        self.count += 1
