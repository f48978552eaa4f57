"""``kdbench distill``: the short list, the budget, the words of the answer, and one whole study."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest

import kdbench
from kdbench import kinds
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.distill import shortlist, study
from kdbench.distill.answer import _words, conclusion, seeds_needed
from kdbench.distill.evidence import computed, evidence
from kdbench.distill.shortlist import Candidate
from kdbench.distill.study import Study, in_words, parse_budget
from kdbench.specs import registry
from kdbench.stats import paired_delta
from kdbench.sweep.devices import Where
from kdbench.sweep.plan import Asked, PlannedCell, inapplicable

TASK = "digits/few-shot"


@pytest.mark.parametrize(("text", "hours"), [("30m", 0.5), ("2h", 2.0), ("90s", 0.025), ("1.5d", 36.0)])
def test_a_budget_is_a_number_and_a_unit(text, hours):
    assert parse_budget(text) == pytest.approx(hours)


@pytest.mark.parametrize("text", ["30", "m", "0m", "-1h", "30 minutes", "1e3m"])
def test_another_budget_is_refused(text):
    with pytest.raises(UserError, match="write a number and a unit"):
        parse_budget(text)


def test_hours_are_said_as_people_say_them():
    assert [in_words(hours) for hours in (0.005, 0.4, 3.26)] == ["18 s", "24 min", "3.3 h"]


def test_seeds_needed_are_those_of_a_paired_t_test():
    assert seeds_needed(1.0, 1.0) == 10  # effect size 1, power 0.8, two-sided 5 %: 10 pairs in every table
    assert seeds_needed(0.5, 1.0) == 34
    assert seeds_needed(0.01, 1.0) is None
    assert seeds_needed(1.0, 0.0) == 2


def test_plain_and_kd_come_first_and_each_method_once():
    found = shortlist.recommended(registry.task(TASK))
    assert [one.method for one in found[:2]] == ["plain", "kd"]
    cards = [registry.method(one.method).card.name for one in found]
    assert len(cards) == len(set(cards)) > 5
    shares = [one.evidence.worth for one in found[2:]]
    assert shares == sorted(shares, reverse=True)
    assert all((one.evidence.recipe or 0) <= shortlist.DEAREST for one in found[2:])


def test_what_a_card_refuses_is_not_recommended():
    found = {one.method for one in shortlist.recommended(registry.task("digits/angle"))}
    assert found
    assert "kd" not in found
    assert all(registry.method(name).kinds is None or "regression" in registry.method(name).kinds for name in found)


@pytest.mark.parametrize("task", ["digits/hash", "shapes", "shapes/semantic", "phrases", "digits/masked"])
def test_every_kind_is_recommended_what_runs_on_it(task):
    """A variant's own kinds count: fitnet runs on hashing, fitnet with kd's term does not."""
    spec = registry.task(task)
    found = shortlist.recommended(spec)
    assert len(found) > 2
    for one in found:
        assert kinds.refusal(registry.method(one.method).kinds, spec.kind) is None, one.method
        assert one.evidence is None or one.evidence.kind in one.why


def test_costs_that_are_not_published_are_said_to_be_none():
    known = replace(
        evidence()["classification", "kd"], tasks=3, runs=30, gain=0.4, costed=1, over_matched=0.25, recipe=2.0
    )
    assert known.words == (
        "+40% of the gap to the teacher on 3 classification tasks (30 runs), +25% over plain as long on 1, "
        "2.0 times plain's cost"
    )
    bare = replace(known, tasks=1, costed=0, over_matched=None, recipe=None)
    assert bare.words == "+40% of the gap to the teacher on 1 classification task (30 runs), cost not published"


@pytest.mark.parametrize(("method", "applies"), [("fitnet", True), ("fitnet+kd", False), ("kd", False)])
def test_a_variants_own_kinds_decide_whether_it_applies(method, applies):
    assert (inapplicable(registry.method(method), registry.task("digits/hash")) is None) is applies


def test_inputs_that_differ_have_evidence_of_their_own():
    assert shortlist.situation(registry.task("digits/profiles")) == "crossmodal"
    assert shortlist.situation(registry.task(TASK)) == "classification"


@pytest.mark.slow
def test_the_table_is_what_the_published_records_say():
    assert {(one.kind, one.method): one for one in computed()} == evidence()


class FakeSweep:
    """A sweep that takes what it foresees, by a clock of its own."""

    def __init__(self, of: Fakes, method: str) -> None:
        self.of, self.method = of, method

    def first(self):
        return [PlannedCell(self.method, TASK, seeds=(0, 1), hours=self.of.hours.get(self.method))]

    matched = first

    def known(self):
        return SimpleNamespace(hours_of=lambda method, task: self.of.hours.get(method))

    def run(self):
        self.of.ran.append(self.method)
        self.of.clock += 3600 * 2 * (self.of.hours.get(self.method) or 0.0)
        status = "not_applicable" if self.method in self.of.refuses else "ok"
        return SimpleNamespace(statuses=Counter({status: 2}), failed=False)


class Fakes:
    def __init__(self, hours, refuses=()):
        self.hours, self.refuses, self.ran, self.clock = hours, refuses, [], 0.0


@pytest.fixture
def a_study(tmp_path, monkeypatch):
    def made(fakes, methods, budget, most=None):
        monkeypatch.setattr(Study, "_sweep", lambda self, method: FakeSweep(fakes, method))
        monkeypatch.setattr(study.time, "monotonic", lambda: fakes.clock)
        asked = Asked((), (TASK,), Home(tmp_path), overhead="off")
        place = Where(("cpu",), lambda found: True, 1)
        said = []
        return Study(asked, [Candidate(m, "") for m in methods], place, budget, most, said.append), said

    return made


def test_a_study_stops_where_its_budget_ends(a_study):
    fakes = Fakes({"plain": 0.1, "kd": 0.2, "dkd": 0.3, "crd": 2.0, "at": 0.2, "plain@kd": 0.2, "plain@dkd": 0.3})
    made, said = a_study(fakes, ["plain", "kd", "dkd", "crd", "at"], budget=2.1)
    assert [one.candidate.method for one in made.fits(made.plan())] == ["plain", "kd", "dkd", "at"]
    made.run()
    assert fakes.ran == ["plain", "kd", "dkd", "at", "plain@kd"]  # 0.2 + 0.4 + 0.6 + 0.4 of 2.1 h, then 0.4
    assert made.left["crd"] == "about 4.0 h, 54 min of the budget left"
    assert set(made.left) == {"crd", "plain@dkd", "plain@at"}
    assert said[0].startswith("crd is left out: ")


def test_plain_and_kd_run_whatever_the_budget(a_study):
    fakes = Fakes({"plain": 5.0, "kd": 9.0, "dkd": 9.0})
    made, _ = a_study(fakes, ["plain", "kd", "dkd"], budget=1.0)
    made.run()
    assert fakes.ran == ["plain", "kd"]


def test_longer_plain_may_be_named_and_is_matched_with_nothing_more(a_study):
    fakes = Fakes({"plain": 0.1, "kd": 0.1, "plain@kd": 0.1})
    made, _ = a_study(fakes, ["plain", "kd", "plain@kd"], budget=None)
    made.run()
    assert fakes.ran == ["plain", "kd", "plain@kd", "plain@kd"]  # the second finds its records and runs nothing


def test_a_study_in_words_is_a_short_list_or_what_is_named(tmp_path):
    asked = Asked((), (TASK,), Home(tmp_path), track=("tensorboard",))
    place = Where(("cpu",), lambda found: True, 1)
    assert Study.of(asked, None, place, None).most == study.SHORT
    assert Study.of(asked, None, place, "2h").most is None
    named = Study.of(asked, ["dkd"], place, None)
    assert (named.most, [one.method for one in named.candidates]) == (None, ["plain", "dkd"])
    assert named._sweep("dkd").asked.track == ("tensorboard",)
    with pytest.raises(UserError, match="--budget 'soon'"):
        Study.of(asked, None, place, "soon")


def test_a_tracker_that_is_not_known_ends_a_study_before_it_begins(tmp_path):
    with pytest.raises(UserError, match=r"--track 'tensorbord' is not known .did you mean 'tensorboard'"):
        kdbench.distill(TASK, track=["tensorbord"], out=tmp_path, say=lambda words: None)


def test_what_does_not_apply_makes_room_for_the_next(a_study):
    names = ["plain", "kd", "dkd", "crd", "at", "sp", "nkd"]
    fakes = Fakes(dict.fromkeys(names, 0.1), refuses=("crd",))
    made, _ = a_study(fakes, names, budget=None, most=3)
    made.run()
    tried = ["plain", "kd", "dkd", "crd", "at", "sp"]
    assert fakes.ran == [*tried, *(f"plain@{name}" for name in tried if name not in ("plain", "crd"))]
    assert made.left == {"crd": "does not apply"}


def of(method, scores, plain, *, at_chance=(), longer=None, teacher=95.0):
    """A result as the answer reads it."""
    pair = None if method == "plain" else paired_delta(scores, plain, "max")
    stat = SimpleNamespace(mean=sum(scores.values()) / len(scores))
    return SimpleNamespace(
        cell={"method": method, "higher_is_better": True}, scores=scores, stat=stat, teacher=teacher, unpaired={},
        at_chance=at_chance, deltas={"plain": pair}, to_matched=longer and paired_delta(scores, longer, "max"),
    )  # fmt: skip


PLAIN_SCORES = {0: 80.0, 1: 82.0, 2: 81.0}


@pytest.mark.parametrize(
    ("scores", "more", "words"),
    [
        ({0: 90.0, 1: 92.1, 2: 91.2}, {}, "better than plain"),
        ({0: 70.0, 1: 72.1, 2: 71.2}, {}, "worse than plain"),
        ({0: 82.0, 1: 81.0, 2: 83.5}, {}, "not separated from plain: about 23 seeds would show a gain of this size"),
        ({0: 80.001, 1: 83.0, 2: 80.0}, {}, "not separated from plain"),
        (
            {0: 10.0, 1: 10.0, 2: 10.0},
            {"at_chance": (0, 1, 2)},
            "at chance on 3 of 3 seeds: its attention_weight of 1000 drowns the task's loss; try "
            "method.attention_weight=100, or kdbench tune",
        ),
        (
            {0: 90.0, 1: 92.1, 2: 91.2},
            {"longer": {0: 85.0, 1: 87.0, 2: 86.0}},
            "better than plain, also trained as long",
        ),
        (
            {0: 90.0, 1: 92.1, 2: 91.2},
            {"longer": {0: 95.0, 1: 97.0, 2: 96.0}},
            "better than plain, but plain trained as long is better still",
        ),
    ],
)
def test_a_verdict_in_words(scores, more, words):
    result = of("at", scores, PLAIN_SCORES, **more)
    assert _words("at", result, result.deltas["plain"]) == words


def answer_of(method, scores, **more):
    result = of(method, scores, PLAIN_SCORES, **more)
    return SimpleNamespace(
        method=method, result=result, over_plain=result.deltas["plain"], over_matched=result.to_matched
    )


def test_the_conclusion_names_what_is_worth_its_cost():
    plain = answer_of("plain", PLAIN_SCORES)
    good = answer_of("kd", {0: 90.0, 1: 92.1, 2: 91.2}, longer={0: 85.0, 1: 87.0, 2: 86.0})
    gained = answer_of("dkd", {0: 90.0, 1: 92.1, 2: 91.2})
    noise = answer_of("at", {0: 82.0, 1: 81.0, 2: 83.5})
    assert conclusion([good, noise, plain], "%")[0] == "the teacher scores 95.00, plain 81.00: 14.00 points to gain"
    assert conclusion([good, noise, plain], "%")[1].startswith("worth its cost here: kd, +5.10 (+4.85 to +5.35) points")
    assert conclusion([gained, plain], "%")[1].endswith("over plain; not compared with plain trained as long")
    assert conclusion([noise, plain], "%")[1] == "no method tried is told from plain here"
    assert conclusion([noise], "%") == ["plain has no result: nothing can be said"]
    weak = answer_of("plain", PLAIN_SCORES, teacher=80.0)
    assert conclusion([weak], "%")[0].endswith("no better than plain, so there is little to learn from it")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_from_the_plan_to_the_page(tmp_path):
    command = [
        sys.executable, "-m", "kdbench", "distill", "-t", TASK, "-m", "kd", "--seeds", "0-1", "--device", "cpu",
        "--out", str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"plan for {TASK}" in done.stdout
    assert "the teacher scores" in done.stdout
    page = done.stdout.rsplit("every run: ", 1)[1].strip().replace("\n", "")
    assert (tmp_path / "site" / "tasks").as_posix() in page
    again = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    found = json.loads(again.stdout)
    assert {one["method"] for one in found["methods"]} == {"plain", "kd"}
    assert found["methods"][0]["over_plain_as_long"] is not None
