"""The board's pages: exact cells of the golden set, and which rows stand apart and why."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import site_samples as samples
import typeset

from kdbench.leaderboard.model.catalogue import Catalogue
from kdbench.leaderboard.model.entries import lost_words
from kdbench.leaderboard.views.suite import separation_word
from kdbench.specs import registry
from kdbench.stats import Missing

make_site, golden, record, cells, card, catalogue = (
    samples.make_site,
    samples.golden,
    samples.record,
    samples.cells,
    samples.card,
    samples.catalogue,
)
DEVICE = "cpu-fp32-x1"


def test_golden_task(site: Any) -> None:
    """Means, t-intervals (t(2) = 4.303), paired differences and ranks, worked by hand."""
    page = site.page("tasks/golden__a@v1.html")
    found = cells(page, f"golden-a-v1-{DEVICE}-table", "rank", "score", "vs_baseline", "vs_plain")
    assert found == {
        "alpha": [
            "1–2",
            "82.00 ± 2.48 ≈ best n = 3",
            "not separated +1.00 [−1.48, +3.48]",
            "+11.00 no spread over seeds",
        ],
        "kd": ["1–2", "81.00 ± 2.48 undecided n = 3", "0 reference", "▲ better +10.00 [+7.52, +12.48]"],
        "plain": ["3", "71.00 ± 2.48 n = 3", "▼ worse −10.00 [−12.48, −7.52]", "0 reference"],
    }
    assert list(found) == ["alpha", "kd", "plain"]
    assert "alpha, kd could each be the best; alpha surely within 1.0 pt of the best" in page.text
    assert "the half-width of each, is 1.4 to 1.9 points (moderated variances, 1 task, n = 3)" in page.text


def test_a_seed_that_did_not_learn_is_counted_and_left_out_of_the_mean(tmp_path: Path) -> None:
    made = golden()
    made += [record("alpha2", "a", seed, score, task__chance=10.0) for seed, score in enumerate((10.0, 80.0, 82.0))]
    site = make_site(tmp_path, made, catalogue("plain", "kd", "alpha", "alpha2"))
    apart = cells(site.page("tasks/golden__a@v1.html"), f"golden-a-v1-{DEVICE}-apart", "rank", "score")
    assert apart == {"alpha2": ["– a seed did not learn", "81.00 ± 12.71 n = 2 2 of 3 learned"]}


def test_seeds_without_a_score_are_told_by_why() -> None:
    lost = {4: Missing.FAILED, 0: Missing.NOT_RUN, 3: Missing.FAILED, 2: Missing.WITHDRAWN}
    assert lost_words(lost) == "seeds 3, 4 failed, seed 2 withdrawn, seed 0 not run"


def test_golden_costs(site: Any) -> None:
    page, table = site.page("tasks/golden__a@v1.html"), f"golden-a-v1-{DEVICE}-table"
    found = cells(page, table, "memory", "flops", "recipe", "full", "train_only")
    # 4 steps of about 4 ms, whatever the clock on the wall said; and 0.01 h of the teacher
    recipe = "0.00000450 2.00 × plain projected"
    assert found["kd"] == [
        "54.2 3.01 × plain",
        "3.00 M 2.50 × plain",
        recipe,
        "0.0100 projected teacher wall clock",
        "0",
    ]
    assert found["plain"][2:4] == ["0.00000225 projected", "0.00000225 projected"]  # no teacher: nothing to add
    ratio = cells(page, table, "step_ratio")
    assert ratio["plain"] == ["1 × reference"]
    assert re.fullmatch(r"2\.0\d × best \[(1\.9|2\.0)\d, 2\.0\d\]", ratio["kd"][0])  # its interval lies below alpha's
    assert "best" not in ratio["alpha"][0]


def test_a_difference_leads_to_both_runs_of_every_seed(site: Any) -> None:
    page = site.page("tasks/golden__a@v1.html")
    (row,) = page.one("table", id=f"golden-a-v1-{DEVICE}-table").one("tbody").all("tr", data_method="alpha")
    links = {key: row.one("td", cls=f"c-{key}").one("a").attributes["href"] for key in ("score", "vs_baseline", "full")}
    assert links["score"] == links["vs_baseline"]
    assert links["full"].startswith("../runs/")
    file, _, anchor = links["vs_baseline"].removeprefix("../").partition("#")
    lines = site.page(file).one("table", id="seeds").one("tbody").all("tr")
    start = next(i for i, line in enumerate(lines) if line.attributes.get("id") == anchor)
    assert [[cell.text for cell in line.all("td")][1:] for line in lines[start : start + 3]] == [
        ["0", "81.00", "80.00", "+1.00", "70.00", "+11.00", "–", "–"],
        ["1", "82.00", "82.00", "0.00", "71.00", "+11.00", "–", "–"],
        ["2", "83.00", "81.00", "+2.00", "72.00", "+11.00", "–", "–"],
    ]
    theirs = [
        next(raw["run_id"] for raw in golden() if (raw["method"]["name"], raw["task"]["name"]) == (name, "golden/a"))
        for name in ("alpha", "kd", "plain")
    ]
    own = [link.attributes["href"] for link in lines[start].all("a", cls="to")]
    assert own == [f"../runs/{run}.html" for run in theirs]


def test_golden_lower_is_better(site: Any) -> None:
    """Degrees of error: the smaller mean wins, differences are turned, the worse teacher leaves no gap to recover."""
    page = site.page("tasks/golden__angle@v1.html")
    found = cells(page, f"golden-angle-v1-{DEVICE}-table", "rank", "score", "vs_baseline", "gap")
    assert found == {
        "alpha": ["1", "6.17 ± 2.59 best n = 3", "▲ better +0.83 [+0.12, +1.55]", "– gap too small"],
        "plain": ["2", "7.00 ± 2.48 n = 3", "0 reference", "–"],
    }
    assert [node.text for node in page.all("strong")] == ["6.17 ± 2.59"]  # bold: separated; nothing else on the page
    assert "MAE ↓" in page.one("table", id=f"golden-angle-v1-{DEVICE}-table").one("thead").text
    assert "kd matches class scores" in page.one("ul", cls="holes").text
    foot = page.one("table", id=f"golden-angle-v1-{DEVICE}-table").one("tfoot").text
    assert "9.00 one teacher for all seeds; worse than 1 of 1 students" in foot


def test_golden_incomplete_cell_is_apart(site: Any) -> None:
    page = site.page("tasks/golden__b@v1.html")
    assert list(cells(page, f"golden-b-v1-{DEVICE}-table", "rank")) == ["kd"]
    apart = cells(page, f"golden-b-v1-{DEVICE}-apart", "rank", "score")
    assert apart == {"alpha": ["– incomplete: seed 2 failed", "68.25 ± 3.18 n = 2"]}
    assert "Not run here: plain." in page.text


def test_what_could_not_run_on_a_kind_of_task_is_not_missed_there(tmp_path: Path) -> None:
    made = [*golden(), record("ages", "angle", 0, 5.0), record("scores", "a", 0, 70.0)]
    known = catalogue("plain", "kd", "alpha", "scores", ages=card("ages", kinds=["regression"]))
    page = make_site(tmp_path, made, known).page("tasks/golden__b@v1.html")
    assert "Not run here: plain, scores." in page.text


@pytest.mark.parametrize(
    ("rank", "said"),
    [
        ("1", "a is better than every other method."),
        (
            "1–3",
            "a is better than every other method by the comparison with the best; ranks hold for all pairs at once and "
            "separate fewer.",
        ),
    ],
)
def test_a_lone_best_among_shared_ranks_says_which_rule_tells_it(rank: str, said: str) -> None:
    board: Any = SimpleNamespace(
        ties=SimpleNamespace(split=True, methods=("a", "b", "c")),
        ranked=(None, None, None),
        ranks={"a": rank, "b": "1–3", "c": "3"},
        best=SimpleNamespace(candidates=frozenset({"a"})),
    )
    assert separation_word(board) == said


def test_golden_coverage_has_four_kinds(tmp_path: Path) -> None:
    made = golden()
    taken = next(raw for raw in made if raw["method"]["name"] == "kd" and raw["task"]["name"] == "golden/b")
    for raw in made:
        if raw["method"]["name"] == "kd" and raw["task"]["name"] == "golden/b":
            _side(tmp_path, raw["run_id"], withdrawn={"date": "2026-02-01T00:00:00Z", "reason": "wrong split"})
    made += [record("beta", "a", seed) for seed in range(3)]
    site = make_site(tmp_path, made, catalogue("plain", "kd", "alpha", "beta"))
    rows = site.page("coverage.html").one("table", id=f"coverage-{DEVICE}").one("tbody").all("tr")
    found = {row.attributes["data-method"]: [cell.text for cell in row.all("td")] for row in rows}
    assert found == {
        "alpha": ["3 seeds", "3 seeds", "2 of 3"],
        "beta": ["failed", "n/a", "–"],
        "kd": ["3 seeds", "n/a", "withdrawn"],
        "plain": ["3 seeds", "3 seeds", "–"],
    }
    assert "Withdrawn on 2026-02-01: wrong split" in site.page(f"runs/{taken['run_id']}.html").text
    assert "wrong split" in site.page("changelog.html").text


def test_coverage_tells_what_a_card_rules_out_from_what_nobody_ran(tmp_path: Path) -> None:
    known = Catalogue({name: registry.method(name) for name in ("kd", "dkd", "word_kd")}, {})
    site = make_site(tmp_path, [record("kd", "a", 0, 80.0)], known)
    rows = site.page("coverage.html").one("table", id=f"coverage-{DEVICE}").one("tbody").all("tr")
    (dkd,), (word_kd,) = (row.all("span") for row in rows if row.attributes["data-method"] in ("dkd", "word_kd"))
    assert (dkd.text, dkd.attributes["title"]) == ("–", "not run")
    assert word_kd.text == "n/a"
    assert word_kd.attributes["title"].endswith("this one is a classification task")


def test_coverage_names_the_tasks_without_a_run_beneath_the_table(tmp_path: Path) -> None:
    known = Catalogue(catalogue("kd").methods, {"digits/few-shot": registry.task("digits/few-shot")})
    page = make_site(tmp_path, [record("kd", "a", 0, 80.0)], known).page("coverage.html")
    heads = [cell.text for cell in page.one("table", id=f"coverage-{DEVICE}").one("thead").all("th")]
    assert heads == ["Method", "golden/a@v1"]
    beneath = next(line.text for line in page.all("p") if line.text.startswith("No run on this device class yet"))
    assert "digits/few-shot@v1" in beneath


def test_compare_all_pairs(site: Any) -> None:
    table = site.page("compare.html").one("table", id=f"pairs-golden-{DEVICE}-d")
    rows = {
        row.attributes["data-method"]: [cell.text for cell in row.all("td")] for row in table.one("tbody").all("tr")
    }
    assert rows == {
        "alpha": ["–", "+1.00", "▲ +11.00"],
        "kd": ["−1.00", "–", "▲ +10.00"],
        "plain": ["▼ −11.00", "▼ −10.00", "–"],
    }


def _side(folder: Path, run_id: str, **facts: Any) -> None:
    target = folder / "records" / "verifications"
    target.mkdir(parents=True, exist_ok=True)
    (target / f"{run_id}.json").write_text(json.dumps({"schema_version": 1, "run_id": run_id, **facts}))


def _three(
    method: str, task: str = "a", scores: tuple[float, ...] = (80, 82, 81), **changes: Any
) -> list[dict[str, Any]]:
    return [record(method, task, seed, score, **changes) for seed, score in enumerate(scores)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"custom": True}, "custom settings"),
        ({"smoke": True}, "smoke run"),
        ({"own_protocol": True}, "own protocol"),
        ({"engine_version": 2, "method__name": "alpha"}, ""),
        ({"models__teachers__0__weights_sha256": "9" * 64}, "other teacher"),
    ],
)
def test_rows_that_stand_apart(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    made = [
        *_three("plain", scores=(70, 71, 72)),
        *_three("kd"),
        *_three("beta"),
        *_three("alpha", scores=(90, 91, 93), **changes),
    ]
    page = make_site(tmp_path, made, catalogue("plain", "kd", "alpha", "beta")).page("tasks/golden__a@v1.html")
    if not reason:  # a newer engine is what counts: the older rows stand apart instead
        assert list(cells(page, f"golden-a-v1-{DEVICE}-table", "rank")) == ["alpha"]
        assert {row[0] for row in cells(page, f"golden-a-v1-{DEVICE}-apart", "rank").values()} == {"– older engine"}
        return
    assert "alpha" not in cells(page, f"golden-a-v1-{DEVICE}-table", "rank")
    assert cells(page, f"golden-a-v1-{DEVICE}-apart", "rank") == {"alpha": [f"– {reason}"]}
    assert 'data-method="alpha"' not in (tmp_path / "site" / "index.html").read_text()


RECONSTRUCTED = {
    "known": "the abstract",
    "points": [{"says": "no teacher is needed", "done": "none is read"}],
    "choices": ["weight 1"],
}


@pytest.mark.parametrize(
    ("cards", "reason"),
    [
        ({"alpha": card("alpha", parity="unverified")}, "parity unverified"),
        ({"alpha": card("alpha", parity="reconstruction", reconstruction=RECONSTRUCTED)}, "reconstruction"),
        ({}, "no card"),
    ],
)
def test_unverified_adapters_stand_apart(tmp_path: Path, cards: dict[str, Any], reason: str) -> None:
    site = make_site(
        tmp_path, [*_three("kd"), *_three("alpha", scores=(90, 91, 93))], catalogue("plain", "kd", **cards)
    )
    page = site.page("tasks/golden__a@v1.html")
    assert cells(page, f"golden-a-v1-{DEVICE}-apart", "rank") == {"alpha": [f"– {reason}"]}
    assert "alpha" not in cells(page, f"golden-a-v1-{DEVICE}-table", "rank")


def test_the_page_of_a_reconstruction_says_what_it_follows(tmp_path: Path) -> None:
    """Its statements, what was chosen, and that it is not the authors' method."""
    alpha = card("alpha", parity="reconstruction", reconstruction=RECONSTRUCTED)
    site = make_site(tmp_path, [*_three("kd"), *_three("alpha")], catalogue("plain", "kd", alpha=alpha))
    text = (tmp_path / "site" / "methods" / "alpha.html").read_text()
    assert site.page("methods/alpha.html").all("p", cls="banner")
    for said in ("are not the authors’ method and are not ranked", "no teacher is needed", "none is read", "weight 1"):
        assert said in text
    assert "What it was reconstructed from" not in (tmp_path / "site" / "methods" / "kd.html").read_text()


def test_levels_gate_a_verified_board(tmp_path: Path) -> None:
    """Once anything is verified, self-reported rows stand apart, and a failed check is shown."""
    made = [*_three("kd"), *_three("alpha", scores=(90, 91, 93)), *_three("beta", scores=(70, 71, 73))]
    for raw in made:
        if raw["method"]["name"] != "alpha":
            verdict = "failed" if raw["method"]["name"] == "beta" and raw["seed"] == 0 else "passed"
            check = {"level": 1, "by": "ci", "date": "2026-02-01T00:00:00Z", "verdict": verdict}
            _side(tmp_path, raw["run_id"], verifications=[check])
    site = make_site(tmp_path, made, catalogue("kd", "alpha", "beta"))
    page = site.page("tasks/golden__a@v1.html")
    assert cells(page, f"golden-a-v1-{DEVICE}-table", "verified") == {"kd": ["◔ validated"]}
    assert cells(page, f"golden-a-v1-{DEVICE}-apart", "rank", "verified") == {
        "alpha": ["– not validated", "○ self-reported"],
        "beta": ["– failed verification", "✕ failed check failed"],
    }
    assert not site.page("index.html").all("p", cls="banner")


def test_devices_and_versions_never_meet(tmp_path: Path) -> None:
    gpu = {"device_class": "cuda:X/bf16/x1", "protocol__amp": "bf16", "overhead": {"mode": "off"}}
    made = [*_three("kd"), *_three("alpha", scores=(90, 91, 93), task__version=2, **gpu)]
    made += _three("kd", scores=(50, 51, 52), task__version=2)
    site = make_site(tmp_path, made)
    index = site.page("index.html")
    assert {s.attributes["id"] for s in index.all("section", cls="suite")} == {
        "suite-golden-cpu-fp32-x1",
        "suite-golden-cuda-X-bf16-x1",
    }
    assert "golden/a@v2" in index.text
    assert cells(index, f"suite-golden-{DEVICE}-table", "rank") == {"kd": ["1"]}
    old = site.page("tasks/golden__a@v1.html")
    assert "Archived" in old.text
    assert cells(old, f"golden-a-v1-{DEVICE}-table", "rank") == {"kd": ["–"]}


def test_not_tuned_here(tmp_path: Path) -> None:
    page = make_site(tmp_path, [*_three("kd"), *_three("alpha", method__params_source="default")]).page(
        "tasks/golden__a@v1.html"
    )
    found = cells(page, f"golden-a-v1-{DEVICE}-table", "method")
    assert found == {"alpha": ["alpha not tuned here"], "kd": ["kd baseline"]}


def test_one_seed_has_no_interval_and_no_best(tmp_path: Path) -> None:
    page = make_site(tmp_path, [record("kd", "a", 0, 80.0), record("alpha", "a", 0, 90.0)]).page(
        "tasks/golden__a@v1.html"
    )
    found = cells(page, f"golden-a-v1-{DEVICE}-table", "rank", "score", "vs_baseline")
    assert found["alpha"] == ["1–2", "90.00 1 seed", "+10.00 1 seed"]
    assert not page.all("strong")


def test_compute_matched_plain_is_a_reference_row(tmp_path: Path) -> None:
    kd = _three("kd")
    match = {"method": "kd", "ratio": 2.5, "spec_hash": kd[0]["spec_hash"]}
    made = [
        *kd,
        *_three("plain", scores=(70, 71, 72)),
        *_three("plain", scores=(75, 76, 77), method__variant="plain@kd", compute_match=match),
    ]
    site = make_site(tmp_path, made)
    own = site.page("methods/plain@kd.html")
    assert "Plain training for as long as the whole recipe of kd takes." in own.text
    assert "No result yet" not in own.text
    assert "No card" not in own.text
    assert "76.00 ± 2.48 %, n = 3" in own.one("table", id="results").one("tbody").text
    page = site.page("tasks/golden__a@v1.html")
    table = page.one("table", id=f"golden-a-v1-{DEVICE}-table")
    assert [row.one("th").text for row in table.one("tfoot").all("tr")] == ["teacher w8", "plain@kd"]
    assert cells(page, f"golden-a-v1-{DEVICE}-table", "vs_matched")["kd"] == [
        "▲ better +5.00 [+2.52, +7.48] seed 0 seed 1 seed 2"
    ]
    assert "plain@kd" not in cells(page, f"golden-a-v1-{DEVICE}-table", "rank")


def test_published_tables_have_signs_of_mathematics(site: Any) -> None:
    text = (site.out / "data" / "tables" / "golden__a@v1.tex").read_text()
    assert r"alpha & 82.00 $\pm$ 2.48 & $+1.00$ [$-1.48$, $+3.48$] & " in text
    assert r"$\Delta$ to kd, pt" in text


@pytest.mark.parametrize("task", ["a", "angle"])
def test_published_tables_compile_and_fit_their_page(site: Any, task: str, tmp_path: Path) -> None:
    typeset.assert_fits(site.out / "data" / "tables" / f"golden__{task}@v1.tex", tmp_path)


def test_claims_stand_beside_what_was_reproduced(site: Any) -> None:
    table = site.page("methods/alpha.html").one("table", id="claims")
    assert [cell.text for cell in table.one("tbody").all("td")] == ["77.5 %", "not run here", "–", "table 1"]


def test_run_page_gives_the_range_of_the_boards_clock_and_temperature() -> None:
    from kdbench.leaderboard.views.run_overhead import _board

    states = [{"sm_clock_mhz": 1980, "temperature_c": None}, {"sm_clock_mhz": 1410, "temperature_c": None}]
    assert _board(states) == "1410 to 1980 MHz, –"
