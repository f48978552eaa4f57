"""What changed on the board and when, as a page and as an Atom feed, all from the records and their side files."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from kdbench.base.files import sha256
from kdbench.leaderboard.model.entries import place_of
from kdbench.leaderboard.model.source import IndexRow, Source
from kdbench.leaderboard.tables.cells import LEVELS

FEED_ENTRIES = 50
NAMED = 6
"""Methods that a line names; further ones are counted."""
ATOM = "http://www.w3.org/2005/Atom"


@dataclass(frozen=True)
class Change:
    """One line of the changelog; ``link`` is relative to the site's root, ``key`` never changes."""

    at: datetime
    kind: str
    text: str
    link: str
    key: str

    @property
    def day(self) -> str:
        """ISO date."""
        return f"{self.at:%Y-%m-%d}"


def changes(source: Source) -> list[Change]:
    """Newest first: cells added (runs of a day together), records withdrawn, and checks; of a kind a line a batch."""
    found: list[Change] = []
    added: dict[tuple[str, str, int, str, str], list[IndexRow]] = defaultdict(list)
    for run in source.runs.values():
        if not run["custom"] and not run["smoke"]:
            day = f"{run['finished_at']:%Y-%m-%d}"
            place = place_of(run["device_class"], run["ruleset"])
            added[day, run["task"], run["task_version"], run["method"], place].append(run)
    for (day, task, version, method, place), runs in added.items():
        runs.sort(key=lambda run: (run["finished_at"], run["run_id"]))
        ok = sum(run["status"] == "ok" for run in runs)
        words = [f"{ok} run{'s' if ok != 1 else ''}"] if ok else []
        for status in sorted({run["status"] for run in runs} - {"ok"}):
            words.append(f"{sum(run['status'] == status for run in runs)} {status.replace('_', ' ')}")
        link = f"tasks/{task.replace('/', '__')}@v{version}.html"
        key = f"added/{day}/{task}@v{version}/{method}/{place}"
        found.append(
            Change(
                runs[-1]["finished_at"],
                "added",
                f"{method} on {task}@v{version}, {place}: {', '.join(words)}",
                link,
                key,
            )
        )
    events = [_Event(run_id, row["date"], "withdrawn", row["reason"], 0) for run_id, row in source.withdrawn.items()]
    for run_id, rows in source.verifications.items():
        for i, row in enumerate(rows):
            kind = "failed check" if row["verdict"] != "passed" else "verified" if row["level"] > 1 else "checked"
            events.append(_Event(run_id, row["date"], kind, f"{LEVELS[row['level']]} by {row['by']}", i))
    alike: dict[tuple[str, ...], list[_Event]] = defaultdict(list)
    for event in events:
        of = source.runs.get(event.run_id)
        label = f"{of['task']}@v{of['task_version']}" if of else event.run_id
        alike[f"{event.at:%Y-%m-%d}", label, event.kind, event.why].append(event)
    found += [
        _about(source, batch[0]) if len(batch) == 1 else _batch(source, batch, *key) for key, batch in alike.items()
    ]
    return sorted(found, key=lambda change: (change.at, change.key), reverse=True)


class _Event(NamedTuple):
    """What happened to one record; ``number`` tells its events of a kind apart."""

    run_id: str
    at: datetime
    kind: str
    why: str
    number: int


def _batch(source: Source, events: Sequence[_Event], day: str, label: str, kind: str, why: str) -> Change:
    """What happened on a day to several records of a task for one reason, a line."""
    methods = sorted({source.runs[event.run_id]["method"] for event in events})
    named = ", ".join(methods[:NAMED]) + (f" and {len(methods) - NAMED} more" if len(methods) > NAMED else "")
    text = f"{len(events)} records of {named} on {label}: {why}"
    key = f"{kind.replace(' ', '-')}/{day}/{label}/{sha256(why.encode())[:12]}"
    return Change(max(event.at for event in events), kind, text, f"tasks/{label.replace('/', '__')}.html", key)


def _about(source: Source, event: _Event) -> Change:
    run = source.runs.get(event.run_id)
    what = (
        f"{run['method']} on {run['task']}@v{run['task_version']}, seed {run['seed']}" if run else f"run {event.run_id}"
    )
    link = f"runs/{event.run_id}.html" if run else "changelog.html"
    key = f"{event.kind.replace(' ', '-')}/{event.run_id}/{event.number}"
    return Change(event.at, event.kind, f"{what}: {event.why}", link, key)


def feed(found: Sequence[Change], built_at: datetime) -> str:
    """The newest changes as Atom (RFC 4287); links are relative, so that the feed works wherever the site lies."""
    ET.register_namespace("", ATOM)
    root = ET.Element(f"{{{ATOM}}}feed")

    def add(parent: ET.Element, name: str, content: str | None = None, **attributes: str) -> ET.Element:
        child = ET.SubElement(parent, f"{{{ATOM}}}{name}", attributes)
        child.text = content
        return child

    add(root, "id", "tag:kdbench,2026:board")
    add(root, "title", "kdbench: changes of the board")
    add(root, "updated", _instant(found[0].at if found else built_at))
    add(root, "link", rel="self", href="feed.xml")
    add(root, "link", rel="alternate", href="changelog.html")
    add(add(root, "author"), "name", "kdbench")
    for change in found[:FEED_ENTRIES]:
        entry = add(root, "entry")
        add(entry, "id", f"tag:kdbench,2026:{change.key}")
        add(entry, "title", f"{change.kind}: {_clean(change.text)}")
        add(entry, "updated", _instant(change.at))
        add(entry, "link", href=change.link)
        add(entry, "summary", _clean(change.text))
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _instant(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def _clean(text: str) -> str:
    """Without the control characters that XML 1.0 cannot hold."""
    return "".join(c if c >= " " or c in "\t\n" else "\ufffd" for c in text)
