"""Boards for the tests of the site: the golden tiny set, a larger one, and a reader of the pages they become."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import records

from kdbench.leaderboard.model.catalogue import Catalogue
from kdbench.leaderboard.output.builder import BuildReport, build
from kdbench.specs.card import Card
from kdbench.specs.registry import MethodRef

BUILT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
TASK = "tasks/golden__a@v1.html"
TABLE = "golden-a-v1-cpu-fp32-x1-table"
TWO = {
    ("kd", "c"): (80.0, 82.0, 81.5), ("alpha", "c"): (81.0, 82.5, 83.5), ("plain", "c"): (70.0, 73.0, 71.0),
    ("kd", "d"): (60.0, 61.0, 63.0), ("alpha", "d"): (66.0, 65.0, 67.5), ("plain", "d"): (50.0, 52.0, 55.0),
}  # fmt: skip
"""A suite of two tasks, whose pairs have unequal spreads."""
VOID = {"meta", "link", "input", "br", "hr", "img", "line", "rect", "circle", "polygon", "path"}


def card(name: str, **changes: Any) -> Card:
    """A card with nothing special."""
    facts: dict[str, Any] = {
        "name": name,
        "adapter": "A",
        "title": f"The paper of {name}",
        "authors": ["A. Author", "B. Author"],
        "year": 2020,
        "venue": "A Journal",
        "bibkey": f"{name}2020",
        "family": "logit",
        "summary": f"What {name} does.",
        "version": "1.0.0",
        "parity": "verified",
        "kinds": ["classification"],
        "links": {"paper": "https://example.org/paper"},
        "hyper_parameters": {"weight": {"default": 0.9, "doc": "weight of the loss", "source": "table 2"}},
        "claims": [{"source": "cifar100", "student": "w2", "teacher": "w8", "value": 77.5, "reference": "table 1"}],
        "quirks": ["The weight is not squared."],
    }
    return Card.model_validate({**facts, **changes})


def catalogue(*names: str, **cards: Card) -> Catalogue:
    """Methods with default cards, and others with their own; no registered tasks."""
    return Catalogue({name: MethodRef(name, cards.get(name) or card(name), "none") for name in (*names, *cards)}, {})


def run_id(*parts: object) -> str:
    """The same id for the same words."""
    return hashlib.md5("/".join(map(str, parts)).encode(), usedforsecurity=False).hexdigest()


def record(method: str, task: str, seed: int, score: float | None = None, **changes: Any) -> dict[str, Any]:
    """A record of the golden set; no score makes it a failed one unless ``status`` says more."""
    angle = task.startswith("angle")
    facts: dict[str, Any] = {
        "run_id": run_id(method, task, seed, sorted(changes.items())),
        "method__name": method,
        "task__name": f"golden/{task}",
        "task__suite": "golden-angle" if angle else "golden",
        "seed": seed,
    }
    if angle:
        facts |= {
            "task__kind": "regression",
            "task__metric_primary": "mae",
            "task__higher_is_better": False,
            "task__unit": "°",
            "task__metric_max": None,
            "task__baseline": "plain",
        }
    if method == "plain":
        facts["models__teachers"] = []
    if score is None:
        facts["status"] = "oom"
    else:
        facts["score"] = score
    raw = records.make_record(**{**facts, **changes})
    if angle and raw["metrics"] is not None:
        raw["metrics"]["last"] = {"mae": score}
        for teacher in raw["models"]["teachers"]:
            teacher["val_metric"] = 9.0  # worse than every student
    return raw


def golden() -> list[dict[str, Any]]:
    """Three methods, three tasks, three seeds: a tie, a failed seed, an n/a cell, a cell not run, less is better."""
    scores = {
        ("plain", "a"): (70, 71, 72),
        ("kd", "a"): (80, 82, 81),
        ("alpha", "a"): (81, 82, 83),
        ("kd", "b"): (65, 66, 67),
        ("alpha", "b"): (68, 68.5, None),
        ("plain", "angle"): (6, 7, 8),
        ("alpha", "angle"): (5, 6.5, 7),
    }
    made = []
    for (method, task), values in scores.items():
        ratio = {"plain": 1.0, "kd": 2.0, "alpha": 3.0}[method]
        hours = {"plain": 0.02, "kd": 0.05, "alpha": 0.1}[method]
        for seed, value in enumerate(values):
            raw = record(method, task, seed, value, ratio=ratio)
            if raw["stages"]:
                raw["stages"][0]["device_h"] = hours
            made.append(raw)
    reason = {"type": "NotApplicable", "message": "kd matches class scores; golden/angle has none"}
    made += [record("kd", "angle", seed, status="not_applicable", error=reason) for seed in range(3)]
    return made


def with_longer(**scores: tuple[float, ...]) -> list[dict[str, Any]]:
    """The golden set with plain trained as long as methods, whose scores are given."""
    made = golden()
    first = {raw["method"]["name"]: raw for raw in made if raw["task"]["name"] == "golden/a" and raw["seed"] == 0}
    for method, values in scores.items():
        match = {"method": method, "ratio": 2.0, "spec_hash": first[method]["spec_hash"]}
        for seed, score in enumerate(values):
            one = record("plain", "a", seed, score, method__variant=f"plain@{method}", compute_match=match)
            made.append(one | {"spec_hash": run_id(method) * 2})
    return made


def to_read() -> tuple[list[dict[str, Any]], Catalogue]:
    """The golden set with plain trained as long as kd, and with the suite of :data:`TWO`; and its methods."""
    made = golden()
    match = {"method": "kd", "ratio": 2.5, "spec_hash": made[3]["spec_hash"]}
    made += [record("plain", "a", s, 75.0 + s, method__variant="plain@kd", compute_match=match) for s in range(3)]
    made += [
        record(method, task, seed, score, task__suite="golden-two")
        for (method, task), scores in TWO.items()
        for seed, score in enumerate(scores)
    ]
    for raw in made:
        if raw["method"]["name"] == "plain":
            raw["method"]["needs"]["teachers"] = []
    cards = {"plain": card("plain", family="reference", year=2014), "alpha": card("alpha", family="feature")}
    return made, catalogue("kd", **cards)


@dataclass
class Built:
    """A built site."""

    out: Path
    report: BuildReport

    def page(self, path: str) -> Page:
        """A page, read."""
        return Page.read(self.out / path)

    @property
    def pages(self) -> list[Path]:
        """All HTML files."""
        return sorted(self.out.rglob("*.html"))


def make_site(folder: Path, made: list[dict[str, Any]], methods: Catalogue | None = None, **options: Any) -> Built:
    """Records written by the real writer, then built."""
    source, out = folder / "records", folder / "site"
    source.mkdir(parents=True, exist_ok=True)
    records.write_records(source, *made)
    known = methods if methods is not None else catalogue("plain", "kd", "alpha")
    return Built(out, build(source, out, built_at=BUILT, catalogue=known, **options))


@dataclass
class Node:
    """An element."""

    name: str
    attributes: dict[str, str]
    parent: Node | None = None
    inside: list[Node | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Its text, spaces run together."""
        return " ".join("".join(self._texts()).split())

    def _texts(self) -> Iterator[str]:
        for one in self.inside:
            if isinstance(one, str):
                yield one
            else:
                yield from one._texts()
                yield " "

    def all(self, name: str = "", **attributes: str) -> list[Node]:
        """Elements below, by name, ``id`` or a word of ``cls``."""
        found = []
        for one in self.inside:
            if isinstance(one, Node):
                wanted = not name or one.name == name
                for key, value in attributes.items():
                    held = one.attributes.get({"cls": "class"}.get(key, key.replace("_", "-")), "")
                    wanted = wanted and (value in held.split() if key == "cls" else held == value)
                if wanted:
                    found.append(one)
                found += one.all(name, **attributes)
        return found

    def one(self, name: str = "", **attributes: str) -> Node:
        """The only such element."""
        found = self.all(name, **attributes)
        assert len(found) == 1, (name, attributes, len(found))
        return found[0]


class Page(HTMLParser):
    """A page as a tree; an end tag that does not fit is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.top = Node("", {})
        self._at = self.top
        self.errors: list[str] = []

    @classmethod
    def read(cls, path: Path) -> Node:
        """The tree of a file."""
        page = cls()
        page.feed(path.read_text(encoding="utf-8"))
        page.close()
        assert page._at is page.top, f"{path.name}: <{page._at.name}> is not closed"
        assert not page.errors, f"{path.name}: {page.errors}"
        return page.top

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {key: value or "" for key, value in attrs}, self._at)
        if len(attrs) != len(node.attributes):
            self.errors.append(f"<{tag}> repeats an attribute")
        self._at.inside.append(node)
        if tag not in VOID:
            self._at = node

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._at.inside.append(Node(tag, {key: value or "" for key, value in attrs}, self._at))

    def handle_endtag(self, tag: str) -> None:
        if self._at.name != tag:
            self.errors.append(f"</{tag}> closes <{self._at.name}>")
        elif self._at.parent is not None:
            self._at = self._at.parent

    def handle_data(self, data: str) -> None:
        self._at.inside.append(data)


def cells(page: Node, table: str, *keys: str) -> dict[str, list[str]]:
    """Method to the texts of the named columns of a table."""
    node = page.one("table", id=table)
    return {
        row.attributes["data-method"]: [row.one(cls=f"c-{key}").text for key in keys]
        for row in node.one("tbody").all("tr")
    }
