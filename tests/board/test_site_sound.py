"""The board's pages as pages: safe text, equal bytes, small files, whole links, valid HTML, readable colours."""

from __future__ import annotations

import csv
import gzip
import io
import re
from pathlib import Path
from typing import Any

import site_samples as samples
from site_samples import golden, make_site, record

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>x",
    '"><img src=x onerror=alert(1)>',
    "=cmd|' /C calc'!A0",
    "{{ 7*7 }}",
    "\u202egnirts\u202c",
    "' onmouseover='x",
    "x" * 190,
    "&lt;b&gt;",
    "-->",
    "]]>",
]


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    """In every text field of a record: no element, attribute or formula comes of it, and it can still be read."""
    made, failed = [], []
    for seed, text in enumerate(HOSTILE):
        raw = record("kd", "a", seed, 80.0 + seed)
        raw["method"]["paper"]["title"] = raw["models"]["student"]["arch"] = raw["environment"]["cpu"] = text
        raw["environment"]["packages"] = {text: text}
        raw["provenance"] |= {"command": (text * 60)[:2000], "submitter": text, "config_resolved": {text: [text]}}
        raw["task"]["data"][0]["source"] = text
        made.append(raw)
        failed.append(record("alpha", "a", seed, error={"type": text, "message": (text * 60)[:2000]}))
    site = make_site(tmp_path, [*made, *failed])
    assert (site.report.records, site.report.skipped) == (2 * len(HOSTILE), ())
    for path in site.pages:
        page = samples.Page.read(path)
        assert {script.attributes["src"].removeprefix("../") for script in page.all("script")} == {"static/board.js"}
        assert not page.all("img")
        assert not [key for node in page.all() for key in node.attributes if key.startswith("on") or key == "style"]
    for raw, text in zip(made, HOSTILE, strict=True):
        assert " ".join(text.split()) in site.page(f"runs/{raw['run_id']}.html").text
    for path in (site.out / "data").rglob("*.csv"):
        rows = list(csv.reader(io.StringIO(path.read_text())))
        assert not [cell for row in rows for cell in row if cell[:1] in {"=", "@", "+"}], path.name


def test_two_builds_give_equal_bytes(tmp_path: Path, site: Any) -> None:
    again = make_site(tmp_path, golden(), snapshot="2026.11")

    def content(out: Path) -> dict[str, bytes]:
        return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}

    first, second = content(site.out), content(again.out)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_pages_are_small(site: Any) -> None:
    assets = sum(len(gzip.compress(path.read_bytes())) for path in (site.out / "static").iterdir())
    assert assets + len(gzip.compress((site.out / "index.html").read_bytes())) <= 150_000
    assert all(assets + len(gzip.compress(path.read_bytes())) <= 300_000 for path in site.pages)
    assert len(gzip.compress((site.out / "static" / "board.js").read_bytes())) <= 15_000


def test_nothing_is_fetched_from_elsewhere(site: Any) -> None:
    policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:"
    for path in site.pages:
        page = samples.Page.read(path)
        if path.parent.name != "latest":
            assert policy in [node.attributes.get("content") for node in page.all("meta")]
        loaded = [node.attributes["src"] for node in page.all() if "src" in node.attributes]
        loaded += [node.attributes["href"] for node in page.all("link")]
        assert not [address for address in loaded if ":" in address and address != "data:,"]
        targets = [node.attributes["href"] for node in page.all("a") if ":" in node.attributes.get("href", "")]
        assert all(address.startswith("https://") for address in targets)
    style = (site.out / "static" / "board.css").read_text()
    assert "url(" not in style
    assert "@import" not in style


def test_every_link_leads_somewhere(site: Any) -> None:
    trees = {path: samples.Page.read(path) for path in site.pages}
    for path, page in trees.items():
        for node in [*page.all("a"), *page.all("link"), *page.all("script")]:
            address = node.attributes.get("href") or node.attributes.get("src", "")
            if ":" in address or not address:
                continue
            file, _, anchor = address.partition("#")
            target = (path.parent / file).resolve() if file else path
            assert target.is_file(), f"{path.name}: {address}"
            if anchor and target.suffix == ".html":
                assert anchor in {n.attributes.get("id") for n in trees[target].all()}, f"{path.name}: {address}"


def test_pages_are_sound_html(site: Any) -> None:
    for path in site.pages:
        page = samples.Page.read(path)
        ids = [node.attributes["id"] for node in page.all() if "id" in node.attributes]
        assert len(ids) == len(set(ids)), path.name
        assert len(page.all("h1")) == 1
        assert page.one("html").attributes["lang"] == "en"
        assert page.one("head").one("title").text
        for head in page.all("th"):
            assert head.attributes.get("scope") in {"col", "row"}, path.name
        for table in page.all("table"):
            assert table.one("caption").text
            width = len(table.one("thead").all("th"))
            assert all(len(row.all("td")) + len(row.all("th")) == width for row in table.all("tr"))
        for node in page.all():
            for key in ("aria-labelledby", "for"):
                assert all(word in ids for word in node.attributes.get(key, "").split()), (path.name, node.attributes)
        for drawing in page.all("svg"):
            assert drawing.attributes.get("aria-hidden") == "true" or (drawing.all("title") and drawing.all("desc"))


def test_palette_is_readable_in_both_themes(site: Any) -> None:
    style = (site.out / "static" / "board.css").read_text()
    blocks = re.findall(r"--paper: (.*?)\}", style, re.S)
    assert len(blocks) == 3
    for block in blocks:
        colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", "--paper: " + block))
        for ground in ("paper", "raised"):
            for ink in ("ink", "soft", "accent", "good", "bad"):
                assert _contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
        assert _contrast(colours["warn-ink"], colours["warn-bg"]) >= 4.5
        assert _contrast(colours["mark"], colours["paper"]) >= 3
        assert _contrast(colours["strong"], colours["paper"]) >= 3


def _contrast(a: str, b: str) -> float:
    """WCAG 2.2 contrast ratio."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
