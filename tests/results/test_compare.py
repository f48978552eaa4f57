"""Totals, compute-matched plain, comparisons in words, claims beside ours, sorted results."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from kdbench import cli
from kdbench.base.errors import UserError
from kdbench.identity import sourcecode
from kdbench.index.store import Store
from kdbench.records import files as records
from kdbench.results import cells, claims
from kdbench.results.compare import pairings
from kdbench.results.costs import totals
from kdbench.results.matched import match_of
from kdbench.specs import registry
from kdbench.specs.config import run_config
from kdbench.stats.mcnemar import mcnemar
from kdbench.terminal import tables

HOUR_MS = 3_600_000


@pytest.fixture
def folder(tmp_path, make_record):
    """Records of kd, plain and reviewkd on digits/few-shot, five seeds each, reviewkd a little better and dearer."""
    scores = {"plain": (78, 80.2, 77, 79, 80.8), "kd": (85, 87, 84, 86, 88), "reviewkd": (85.5, 86.8, 84.9, 86.2, 88.4)}
    for method, values in scores.items():
        for seed, score in enumerate(values):
            ratio = {"plain": 1.0, "kd": 2.0, "reviewkd": 3.2}[method]
            raw = make_record(
                method__name=method,
                seed=seed,
                score=float(score),
                ratio=ratio,
                created_at=f"2026-01-02T03:04:0{seed}.000Z",
            )
            records.dump(records.parse(raw), tmp_path / "records")
    return tmp_path


@pytest.fixture
def rows(folder):
    with Store.memory(folder / "records") as store:
        return cells.rows(store)


@pytest.fixture
def run(monkeypatch, capsys, folder):
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["kdbench", *words, "--out", str(folder)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, capsys.readouterr().out

    return call


def test_what_was_kept_of_teachers_is_counted_once(make_record):
    raw = make_record(device_class="cpu/fp32/x1/teacher-store", protocol__teacher_store=True)
    kept = {"name": "teacher-store", "ledger": "teacher_cache", "device_h": 5.0, "steps": 0, "basis": "measured",
            "reusable": True}  # fmt: skip
    without, timed = totals(records.parse(raw)), totals(records.parse({**raw, "stages": [*raw["stages"], kept]}))
    assert (timed.recipe_h, timed.student_h) == (without.recipe_h, without.student_h)
    raw |= {"stages": [*raw["stages"], kept], "overhead": {"mode": "off"}}
    by_clock = totals(records.parse(raw))
    assert by_clock.recipe_h == pytest.approx(by_clock.student_h + 5.0)


def test_pairs_of_runs_are_compared_row_by_row_where_both_kept_their_bits(rows):
    right = {"kd": np.arange(100) < 85, "plain": np.arange(100) % 75 > 1}
    right["plain"][75:] = False
    runs = {row.method: dict(zip(row.cell["seeds"], row.cell["run_ids"], strict=True)) for row in rows}
    bits = {runs[name][seed]: right[name] for seed, name in ((0, "kd"), (0, "plain"), (1, "kd"))}
    (found,) = pairings(rows, "plain", "kd", bits.get)
    (seed,) = found.row_by_row  # seed 1 has those of kd alone
    assert (seed.seed, seed.rows, seed.first_alone, seed.second_alone) == (0, 100, 0, 12)
    assert seed.p == pytest.approx(2 / 2**12)
    assert mcnemar(10, 2) == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert mcnemar(0, 0) == mcnemar(7, 7) == 1
    (table,) = tables.row_by_row([found])
    assert table.row_count == 1
    assert found.row_means == ()
    assert tables.pairing_json(found)["row_by_row"][0]["second_alone"] == 12


def test_numbers_of_test_rows_have_no_mcnemar_and_a_mean_difference_with_its_interval(rows):
    runs = {row.method: dict(zip(row.cell["seeds"], row.cell["run_ids"], strict=True)) for row in rows}
    noise = np.random.default_rng(1).normal(0, 1, 400)
    kept = {runs["plain"][0]: np.full(400, 50.0), runs["kd"][0]: 51 + noise, runs["kd"][1]: noise}
    kept[runs["plain"][1]] = noise > 0  # of another sort: nothing is said of them
    (found,) = pairings(rows, "plain", "kd", kept.get)
    (seed,) = found.row_means
    half = 1.966 * noise.std(ddof=1) / 20  # t of 399 degrees of freedom
    assert found.row_by_row == ()
    assert (seed.seed, seed.delta.n) == (0, 400)
    assert (seed.delta.mean, seed.delta.lo) == pytest.approx((1 + noise.mean(), 1 + noise.mean() - half), abs=1e-4)
    (table,) = tables.row_by_row([found])
    assert table.row_count == 1
    assert tables.pairing_json(found)["row_means"][0]["rows"] == 400
    less = [replace(row, cell={**row.cell, "higher_is_better": False}) for row in rows]
    (found,) = pairings(less, "plain", "kd", kept.get)
    assert found.row_means[0].delta.mean == pytest.approx(-1 - noise.mean())


def test_totals_follow_from_steps_and_step_times(make_record):
    raw = make_record(ratio=2.0)
    record = records.parse(raw)
    found = totals(record)
    step = record.measured.step_ms
    assert found.basis == "projected"
    assert found.student_h == pytest.approx(4 * step / HOUR_MS)
    assert found.recipe_h == found.student_h
    assert found.full_h == pytest.approx(found.recipe_h + 0.01)
    # 2 epochs of ceil(100 / 64) steps of plain
    assert found.plain_h == pytest.approx(2 * 2 * record.measured.plain_step_ms / HOUR_MS)
    assert found.ratio("recipe") == pytest.approx(step / record.measured.plain_step_ms)


def test_a_reusable_artefact_is_in_the_recipe_and_not_in_the_student(make_record):
    raw = make_record()
    gan = copy.deepcopy(raw["stages"][0]) | {
        "name": "gan", "ledger": "generate", "reusable": True, "steps": 0, "device_h": 1.0, "basis": "cited",
    }  # fmt: skip
    found = totals(records.parse({**raw, "stages": [gan, *raw["stages"]]}))
    assert found.recipe_h == pytest.approx(found.student_h + 1.0)
    assert found.basis == "cited"


def test_a_teacher_of_unknown_cost_leaves_the_full_cost_unknown(make_record):
    raw = make_record()
    raw["models"]["teachers"][0]["training"] = None
    found = totals(records.parse(raw))
    assert found.full_h is None
    assert found.ratio("full") is None


def test_plain_at_m_takes_the_recipe_ratio_of_m(folder):
    ref = registry.method("plain@reviewkd")
    match = match_of(ref, "digits/few-shot", 1, "cpu/fp32/x1", [folder / "records"])
    assert match.method == "reviewkd"
    assert match.ratio == pytest.approx(3.2, rel=0.02)
    config = run_config("plain@reviewkd", "digits/few-shot", match=match)
    assert config.method.params["length"] == match.ratio
    plain = run_config("plain", "digits/few-shot")
    assert config.spec_hash != plain.spec_hash
    assert config.step_hash == plain.step_hash == plain.spec_hash


def test_plain_at_m_waits_for_m(folder):
    with pytest.raises(UserError, match="evaluate --method reviewkd"):
        match_of(registry.method("plain@reviewkd"), "digits/few-shot", 1, "cpu/fp32/x1", [folder / "nothing"])
    with pytest.raises(UserError, match="unknown method"):
        registry.method("plain@nonsense")


def test_plain_at_m_waits_for_m_as_its_code_is_now(folder, monkeypatch):
    ref = registry.method("plain@reviewkd")
    monkeypatch.setattr(sourcecode, "of_card", lambda card: {card.name: f"{card.version}+0123456789abcdef"})
    with pytest.raises(UserError, match="its code has changed since it was measured; run `kdbench evaluate"):
        match_of(ref, "digits/few-shot", 1, "cpu/fp32/x1", [folder / "records"])


def test_the_verdict_is_in_words(rows):
    (found,) = pairings(rows, "kd", "reviewkd")
    assert found.words.startswith("kd and reviewkd are not separated on digits/few-shot, cpu/fp32/x1, n = 5")
    assert found.words.endswith("the recipe of reviewkd costs 1.6 times that of kd")
    (found,) = pairings(rows, "plain", "kd")
    assert found.words.startswith("kd is better than plain")
    assert "7.00 points" in found.words
    (found,) = pairings(rows, "kd", "plain")
    assert found.words.startswith("plain is worse than kd")
    assert found.words.endswith("the recipe of kd costs 2 times that of plain")


def test_compare_at_the_terminal(run):
    code, out = run("compare", "kd", "reviewkd")
    assert code == 0
    assert "not separated" in out
    code, out = run("compare", "kd", "reviewkd", "--json")
    assert json.loads(out)[0]["delta"]["n"] == 5


@pytest.mark.parametrize(
    ("key", "order"),
    [
        ("score", ["reviewkd", "kd", "plain"]),
        ("step_ratio", ["plain", "kd", "reviewkd"]),
        ("delta", ["reviewkd", "plain", "kd"]),
    ],
)
def test_results_are_sorted(run, key, order):
    code, out = run("results", "--sort", key, "--json")
    assert code == 0
    found = [row["method"] for row in json.loads(out)]
    assert found == order


def test_results_have_a_table_for_each_task_and_device(rows):
    other = [replace(row, device_class="cuda-h100/fp32/x1") for row in rows[:1]]
    here, there = tables.results([*rows, *other])
    assert (here.row_count, there.row_count) == (len(rows), 1)
    assert "digits/few-shot@v1 on cpu/fp32/x1: top1, %, baseline kd" in str(here.title)
    assert "cuda-h100" in str(there.title)


def test_rows_carry_both_differences(rows):
    kd = next(row for row in rows if row.method == "kd")
    assert kd.to_baseline is None  # it is the baseline
    assert kd.to_plain.mean == pytest.approx(7.0)
    plain = next(row for row in rows if row.method == "plain")
    assert plain.to_baseline.mean == pytest.approx(-7.0)
    assert plain.to_plain is None


def test_every_published_figure_is_read_and_has_a_source():
    found = claims._collected()
    assert len(found) > 700
    assert all(claim.source and 0 < claim.value <= 100 for claim in found)
    assert {"kd", "reviewkd", "plain"} <= {claim.method for claim in found}


def test_a_claim_meets_the_task_of_its_data_and_pair(make_record):
    spec = registry.task("digits").model_copy(deep=True)
    data = spec.data.model_copy(update={"source": "cifar100-resplit"})
    pair = spec.pair.model_copy(deep=True)
    claim = next(c for c in claims.claims("kd") if (c.teacher, c.student) == ("resnet32x4", "resnet8x4"))
    nets = {
        "student": pair.student.model_copy(update={"net": "resnet8x4"}),
        "teachers": {"image": pair.teachers["image"].model_copy(update={"net": "resnet32x4"})},
    }
    twin = spec.model_copy(update={"data": data, "pair": pair.model_copy(update=nets)})
    assert claims.matches(claim, twin)
    assert "other data: cifar100-resplit" in claims._reasons(claim, twin)
    assert not claims.matches(claim, spec)


def test_show_method_prints_claims(run, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["kdbench", "show", "method", "reviewkd"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "claimed and reproduced" in capsys.readouterr().out
