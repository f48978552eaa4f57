"""Building: what is replaced and what never is, snapshots, downloads, the feed, numbers and drawings."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import subprocess
import sys
import threading
import urllib.request
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
import site_samples as samples

from kdbench.base.errors import UserError
from kdbench.leaderboard.draw import numbers
from kdbench.leaderboard.draw.charts import Difference, Point, forest, pareto, shown, strip
from kdbench.leaderboard.draw.svg import linear_ticks, log_ticks
from kdbench.leaderboard.model.catalogue import Catalogue
from kdbench.leaderboard.model.ratios import geometric
from kdbench.leaderboard.output.builder import MARKER, build
from kdbench.leaderboard.output.exports import tex
from kdbench.leaderboard.output.schema_docs import schema_rows
from kdbench.leaderboard.output.server import server_for
from kdbench.stats import STATISTICS_VERSION, PairedDelta, pooled_delta

EMPTY = Catalogue({}, {})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return samples.make_site(tmp_path_factory.mktemp("golden"), samples.golden(), snapshot="2026.11")


def test_no_records_gives_a_helpful_page(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "absent"):
        report = build(source, tmp_path / "site", catalogue=EMPTY)
        assert (report.records, report.skipped) == (0, ())
        page = samples.Page.read(tmp_path / "site" / "index.html")
        assert "No records yet" in page.text
        assert "kdbench evaluate --method kd" in page.text


def test_the_installed_catalogue_builds_and_tasks_that_wait_show_what_was_published(tmp_path: Path) -> None:
    report = build(tmp_path, tmp_path / "site")
    pages = tmp_path / "site"
    assert report.pages > 20
    assert "digits/few-shot" in samples.Page.read(pages / "tasks" / "digits__few-shot@v1.html").text
    listed = {a.attributes["href"] for a in samples.Page.read(pages / "index.html").all("a")}
    for slug, method in (("imagenet__resnet34-resnet18@v1", "reviewkd"), ("cifar100__resnet56-resnet20@v1", "dkd")):
        assert f"tasks/{slug}.html" in listed
        page = samples.Page.read(pages / "tasks" / f"{slug}.html")
        assert "As published, not measured here" in page.text
        rows = page.one("table", id="published").one("tbody").all("tr")
        own = [row for row in rows if row.one("th").text == method]
        assert own
        assert all(row.one("th").one("a").attributes["href"] == f"../methods/{method}.html" for row in own)
        values = [float(row.all("td")[0].text) for row in rows]
        assert values == sorted(values, reverse=True)
        assert all(60 < value < 80 for value in values)


def test_a_folder_of_somebody_else_is_never_touched(tmp_path: Path) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds files that kdbench did not make"):
        build(tmp_path / "records", out, catalogue=EMPTY)
    assert [path.name for path in out.iterdir()] == ["chapter.txt"]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is not a folder"):
        build(tmp_path / "records", tmp_path / "file", catalogue=EMPTY)
    link = tmp_path / "link"
    link.symlink_to(out)
    with pytest.raises(UserError, match="is not a folder"):
        build(tmp_path / "records", link, catalogue=EMPTY)


def test_a_site_is_replaced_whole(tmp_path: Path) -> None:
    out = tmp_path / "site"
    build(tmp_path, out, catalogue=EMPTY)
    (out / "left-over.html").write_text("old")
    build(tmp_path, out, catalogue=EMPTY)
    assert not (out / "left-over.html").exists()
    assert (out / MARKER).is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["site"]  # nothing left beside it


def test_a_failing_build_leaves_the_old_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "site"
    build(tmp_path, out, catalogue=EMPTY)
    before = (out / "index.html").read_bytes()

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kdbench.leaderboard.output.builder.write_checksums", full)
    with pytest.raises(UserError, match="No space left on device; free some space"):
        build(tmp_path, out, catalogue=EMPTY)
    assert (out / "index.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_bad_records_are_named_and_the_rest_built(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / ("f" * 32 + ".json")).write_text('{"schema_version": 1,')
    built = samples.make_site(tmp_path, [samples.record("kd", "a", 0, 80.0)])
    assert built.report.records == 1
    assert [problem.message[:17] for problem in built.report.skipped] == ["is not whole JSON"]


def test_source_date_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    build(tmp_path, tmp_path / "site", catalogue=EMPTY)
    assert "built 2023-11-14 22:13 UTC" in samples.Page.read(tmp_path / "site" / "index.html").one("footer").text
    build(tmp_path, tmp_path / "site", catalogue=EMPTY, built_at=datetime(2020, 1, 1, tzinfo=UTC))
    assert "built 2020-01-01 00:00 UTC" in samples.Page.read(tmp_path / "site" / "index.html").one("footer").text
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    with pytest.raises(UserError, match="SOURCE_DATE_EPOCH='soon'"):
        build(tmp_path, tmp_path / "site", catalogue=EMPTY)


def test_snapshots_are_carried_over_and_never_change(tmp_path: Path) -> None:
    first = samples.make_site(tmp_path, [samples.record("kd", "a", 0, 80.0)], snapshot="2026.10")
    frozen = first.out / "v" / "2026.10"
    kept = {path.relative_to(frozen): path.read_bytes() for path in frozen.rglob("*") if path.is_file()}
    second = samples.make_site(tmp_path, [samples.record("kd", "a", 1, 82.0)], snapshot="2026.11")
    assert {path.relative_to(frozen): path.read_bytes() for path in frozen.rglob("*") if path.is_file()} == kept
    assert "Frozen snapshot 2026.10, statistics version" in second.page("v/2026.10/index.html").text
    assert "80.00 1 seed" in second.page("v/2026.10/tasks/golden__a@v1.html").text
    assert second.page("v/latest/index.html").one("a").attributes["href"] == "../2026.11/index.html"
    listed = second.page("data.html").text
    assert "2026.11" in listed
    assert "2026.10" in listed
    with pytest.raises(UserError, match=r"2026\.10 is there already"):
        samples.make_site(tmp_path, [], snapshot="2026.10")
    with pytest.raises(UserError, match="name it by year and month"):
        samples.make_site(tmp_path, [], snapshot="../../etc")


def test_leaderboard_files(site: Any) -> None:
    rows = list(csv.DictReader((site.out / "data" / "leaderboard.csv").open(encoding="utf-8")))
    alpha = next(row for row in rows if row["method"] == "alpha" and row["task"] == "golden/angle")
    assert (alpha["rank_first"], alpha["rank_last"], alpha["n"], alpha["scores"]) == (
        "1",
        "1",
        "3",
        "0:5.0 1:6.5 2:7.0",
    )
    assert float(alpha["delta_baseline_mean"]) == pytest.approx(5 / 6)
    assert float(alpha["delta_baseline_lo"]) == pytest.approx(0.1161, abs=1e-3)
    data = json.loads((site.out / "data" / "leaderboard.json").read_text())
    assert (data["statistics_version"], len(data["rows"])) == (STATISTICS_VERSION, len(rows))
    assert {row["apart"] for row in data["rows"]} == {"", "incomplete: seed 2 failed"}


def test_api_is_complete(site: Any) -> None:
    api = site.out / "data" / "api" / "v1"
    files = json.loads((api / "index.json").read_text())["files"]
    assert {"tasks.json", "methods.json", "runs.json", "leaderboard.json", "coverage.json", "methods/kd.json"} <= set(
        files
    )
    assert all(json.loads((api / name).read_text())["statistics_version"] == STATISTICS_VERSION for name in files)
    runs = json.loads((api / "runs.json").read_text())["runs"]
    assert len(runs) == site.report.records
    for run in runs:  # the published record is the submitted one, byte for byte
        content = (site.out / "data" / "runs" / f"{run['run_id']}.json").read_bytes()
        assert hashlib.sha256(content).hexdigest() == run["sha256"]
    states = {(c["method"], c["task"]): c["state"] for c in json.loads((api / "coverage.json").read_text())["cells"]}
    assert states["kd", "golden/angle@v1"] == "not_applicable"
    assert states["plain", "golden/b@v1"] == "not_run"


def test_checksums_hold(site: Any) -> None:
    done = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=site.out / "data", capture_output=True)
    assert done.returncode == 0, done.stderr
    named = {line.split("  ")[1] for line in (site.out / "data" / "SHA256SUMS").read_text().splitlines()}
    there = {str(path.relative_to(site.out / "data")) for path in (site.out / "data").rglob("*") if path.is_file()}
    assert there - named == {"SHA256SUMS"}


def test_the_queries_on_the_data_page_run(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site.out / "data")
    queries = [node.text for node in site.page("data.html").all("code") if node.text.startswith("SELECT")]
    assert len(queries) == 4
    found = [duckdb.sql(query).fetchall() for query in queries]
    assert ("golden/a", "kd", "published", "cpu/fp32/x1", 3, 81.0, 1.0) in found[0]


def test_latex_tables(site: Any) -> None:
    text = (site.out / "data" / "tables" / "golden__angle@v1.tex").read_text()
    assert r"1 & alpha & \textbf{6.17 $\pm$ 2.59} & $+0.83$ [$+0.12$, $+1.55$] &" in text
    assert r"golden/angle@v1 on cpu/fp32/x1" in text
    assert r"MAE $\downarrow$, $^\circ$" in text
    assert tex("a_b & 50% {x} \\") == r"a\_b \& 50\% \{x\} \textbackslash{}"


def test_pages_link_to_the_repository_where_its_address_is_given(tmp_path: Path, site: Any) -> None:
    made = samples.make_site(tmp_path, samples.golden(), repository="https://example.org/you/kdbench/")
    commit = samples.golden()[0]["provenance"]["git_commit"]
    page = made.page(f"runs/{samples.golden()[0]['run_id']}.html")
    links = {link.text: link.attributes["href"] for link in page.all("a")}
    assert links["The commit"] == f"https://example.org/you/kdbench/commit/{commit}"
    assert links["Repository"] == "https://example.org/you/kdbench/"
    assert "Repository" not in {link.text for link in site.page("index.html").all("a")}
    with pytest.raises(UserError, match="--repository"):
        samples.make_site(tmp_path, samples.golden(), repository='javascript:alert("x")')


def test_a_snapshot_carries_what_a_doi_asks_for(tmp_path: Path) -> None:
    """Whoever signed a standing record is an author; DataCite requires these fields beside the DOI itself."""
    made = samples.golden()
    made[0]["provenance"]["submitter"] = "B. Stranger"
    site = samples.make_site(tmp_path, made, snapshot="2026.11")
    for folder, version in (("data", None), ("v/2026.11/data", "2026.11")):
        found = json.loads((site.out / folder / "datacite.json").read_text())
        assert [one["name"] for one in found["creators"]] == ["The kdbench contributors", "B. Stranger"]
        assert {"titles", "publisher", "publicationYear", "types", "rightsList"} <= found.keys()
        assert version in (None, found["version"])
        assert {"https://example.org/paper"} == {one["relatedIdentifier"] for one in found["relatedIdentifiers"]}
        assert "datacite.json" in (site.out / folder / "SHA256SUMS").read_text()
    assert "author = {{The kdbench contributors} and {B. Stranger}}," in site.page("data.html").text


def test_bibtex_and_feed(site: Any) -> None:
    bib = (site.out / "data" / "citations.bib").read_text()
    assert bib.count("@article{") == 3
    feed = ET.parse(site.out / "feed.xml").getroot()
    atom = "{http://www.w3.org/2005/Atom}"
    titles = [entry.findtext(f"{atom}title") for entry in feed.findall(f"{atom}entry")]
    assert "added: kd on golden/a@v1, cpu/fp32/x1: 3 runs" in titles
    assert "added: alpha on golden/b@v1, cpu/fp32/x1: 2 runs, 1 oom" in titles
    ids = [entry.findtext(f"{atom}id") for entry in feed.iter(f"{atom}entry")]
    assert len(ids) == len(set(ids))
    for entry in feed.iter(f"{atom}entry"):
        assert (site.out / entry.find(f"{atom}link").attrib["href"]).is_file()  # type: ignore[union-attr]


def test_schema_docs_name_every_field(site: Any) -> None:
    documented = {re.sub(r"\[\]", "", path) for path, *_ in schema_rows()}

    def walk(value: Any, path: str) -> None:
        for key, inner in value.items() if isinstance(value, dict) else []:
            where = f"{path}.{key}" if path else key
            if not documented & {where}:
                assert any(where.startswith(f"{known}.") for known in documented), where  # inside a free mapping
                continue
            walk(inner[0] if isinstance(inner, list) and inner else inner, where)

    walk(samples.record("kd", "a", 0, 80.0), "")


def test_serve_shows_the_folder_to_this_machine(site: Any) -> None:
    with server_for(site.out, 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/index.html") as answer:
            assert b"kdbench" in answer.read()
        assert server.server_address[0] == "127.0.0.1"
        server.shutdown()


def test_the_command_line_starts_without_the_builder() -> None:
    code = "import sys, kdbench.leaderboard; print([m for m in ('jinja2', 'duckdb', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    code = "import sys, kdbench.leaderboard.output.builder; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.00123456, "0.00123"),
        (9.999, "10.0"),
        (99.95, "100"),
        (123.4, "123"),
        (1234567, "1 234 567"),
        (-0.5, "−0.500"),
        (1.0, "1.00"),
    ],
)
def test_significant(value: float, text: str) -> None:
    assert numbers.significant(value) == text.replace(" ", numbers.THIN)


def test_numbers() -> None:
    assert numbers.fixed(-0.001, 2) == "0.00"
    assert numbers.signed(0.001, 2) == "0.00"
    assert numbers.signed(1.005, 1) == "+1.0"
    assert numbers.between(-1.0, 2.0, 1, sign=True) == "[−1.0, +2.0]"
    assert numbers.si(9000) == f"9.00{numbers.THIN}k"
    assert numbers.si(264) == "264"
    assert (numbers.digits_for("%", [0.1]), numbers.digits_for("°", [5.2]), numbers.digits_for("", [0.013, 2])) == (
        2,
        2,
        4,
    )


def test_ticks() -> None:
    assert linear_ticks(-1.2, 3.1) == [-1.0, 0.0, 1.0, 2.0, 3.0]
    assert log_ticks(0.95, 5.5) == [1.0, 1.5, 2.0, 3.0, 5.0] or 1.0 in log_ticks(0.95, 5.5)
    for lo, hi in ((1.0, 1.02), (0.9, 40.0), (1.0, 1000.0)):
        ticks = log_ticks(lo, hi)
        assert 2 <= len(ticks) <= 12
        assert all(lo * 0.99 <= tick <= hi * 1.01 for tick in ticks)


def test_geometric_mean_of_ratios() -> None:
    value, lo, hi = geometric([(2.0, 1.0, 4.0), (8.0, 4.0, 16.0)]) or (0, 0, 0)
    assert value == pytest.approx(4.0)
    assert hi / value == pytest.approx(value / lo) == pytest.approx(2 ** (2**0.5 / 2))
    assert geometric([(2.0, 1.0, 4.0), None]) is None
    assert geometric([]) is None


def test_pooled_difference() -> None:
    def delta(mean: float, sd: float | None, n: int) -> PairedDelta:
        ends = (None, None) if sd is None else (mean - 1, mean + 1)
        return PairedDelta(n, mean, sd, *ends, None, (), (), "")

    one = pooled_delta([delta(1.0, 1.0, 3)])
    assert (one.mean, one.lo, one.hi) == (1.0, pytest.approx(1 - 2.4841, abs=1e-4), pytest.approx(1 + 2.4841, abs=1e-4))
    two = pooled_delta([delta(1.0, 1.0, 3), delta(3.0, 1.0, 3)])  # variance (1/3 + 1/3) / 4, 4 degrees of freedom
    assert two.mean == 2.0
    assert two.hi == pytest.approx(2 + 2.7764 * (1 / 6) ** 0.5, abs=1e-3)
    assert two.separated
    assert pooled_delta([delta(1.0, 1.0, 3), delta(3.0, None, 1)]).lo is None
    with pytest.raises(UserError):
        pooled_delta([])


def test_pareto_front_and_marks() -> None:
    points = [
        Point("cheap", (1, 1, 1), (0, 0, 0), 0, "baseline"),
        Point("dear", (4, 3.9, 4.1), (2, 1, 3), 1),
        Point("bad", (3, 3, 3), (-1, -2, 0), 2),
        Point("<b>", (2, 2, 2), (1, 1, 1), 1),
    ]
    drawing = pareto("k", points, title="t", x_label="x", y_label="y", unit="pt")
    assert drawing.count('class="point"') == 4
    assert drawing.count("H") - drawing.count("HTML") >= 2  # the front has three members
    assert "<b>" not in drawing
    assert 'role="img"' in drawing
    ET.fromstring(str(drawing))


def test_a_method_far_off_stands_on_the_edge_with_its_value_and_does_not_flatten_the_rest() -> None:
    near = [Point(f"m{i}", (1.0 + i, 1.0 + i, 1.0 + i), (float(i), i - 100.0, i + 100.0), 0) for i in range(9)]
    far = Point("far", (3.0, 3.0, 3.0), (-400.0, -401.0, -399.0), 0)
    drawn = str(pareto("k", [*near, far], title="t", x_label="cost", y_label="gain", unit="pt"))
    assert ">far −400.0<" in drawn
    heights = [float(y) for y in re.findall(r'<circle cx="[^"]*" cy="([^"]*)"', drawn)]
    assert heights[0] - heights[8] > 100, "nine methods within 8 points share a third of the chart at the least"
    assert max(heights) == heights[-1]
    few = str(pareto("k", [*near[:3], far], title="t", x_label="cost", y_label="gain", unit="pt"))
    assert ">far<" in few, "among four methods none is called far off"


def test_a_method_far_off_leaves_the_others_room_in_every_chart() -> None:
    near = [(gain, gain - 1, gain + 1) for gain in (-4.0, -3.0, -2.0, -1.0, 0.5, 1.0, 2.0, 3.0)]
    assert shown(near, 0.0) == (-5.0, 4.0)
    assert shown([*near, (-60.0, -80.0, -40.0)], 0.0) == (-5.0, 4.0)
    assert shown([*near[:3], (-60.0, -80.0, -40.0)], 0.0)[0] == -80.0  # few rows: none is called far off
    assert shown([]) == (0.0, 1.0)

    rows = [Difference(f"m{i}", one) for i, one in enumerate([*near, (-60.0, -80.0, -40.0)])]
    drawn = str(forest("k", rows, title="t", label="gain", unit="pt", digits=1))
    assert "\N{MINUS SIGN}60.0 pt" in drawn  # its number is not cut
    assert all(float(x) >= 0 for x in re.findall(r'cx="([-0-9.]+)"', drawn))
    assert str(strip([-61.0, -59.0], -5.0, 4.0, -60.0)).count("<circle") == 0  # an arrow in the place of dots
    assert str(strip([-6.0, -1.0], -5.0, 4.0, -3.5)).count("<circle") == 2


def test_a_name_without_room_is_left_out_unless_it_is_on_the_front() -> None:
    crowd = [Point(f"method-{i}", (2.0, 2.0, 2.0), (1.0, 1.0, 1.0), 0) for i in range(40)]
    best = Point("best", (1.0, 1.0, 1.0), (2.0, 2.0, 2.0), 0)
    drawn = str(pareto("k", [*crowd, best], title="t", x_label="cost", y_label="gain", unit="pt"))
    assert ">best</text>" in drawn
    assert 1 <= drawn.count('class="lbl" data-method="method-') < 15
    assert drawn.count("<title>method-") == 40
