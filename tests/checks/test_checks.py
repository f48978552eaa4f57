"""The contract checks: methods that keep the contract pass, and each rule can fail."""

from __future__ import annotations

import pytest

from kdbench import checks, kinds
from kdbench.base.errors import UserError
from kdbench.checks import check_method
from kdbench.checks.rules import ON_TASK
from kdbench.checks.tiny import declared
from kdbench.specs import registry


@pytest.fixture
def toys(load):
    return load("support/toy_methods.py")


@pytest.fixture
def broken(toys, load):
    return load("support/broken_methods.py")


@pytest.fixture
def checked(toys, monkeypatch):
    """Registers a toy and runs the checks on it, on the first tiny tasks that it can run on."""

    def check(cls, tasks=1, **card):
        ref = toys.toy_ref(cls, **card)
        known = dict(registry.methods())
        monkeypatch.setattr(registry, "methods", lambda: {**known, ref.name: ref})
        monkeypatch.setattr(checks, "declared", lambda ref: declared(ref)[:tasks])
        return check_method(ref.name)

    return check


NAMES = [
    "Bank", "Adversary", "RawViews", "FinalViews", "Mutual", "Generated", "Outer", "Headed", "TrainedTeacher",
    "TwoRoles", "Gaps", "BatchStatistics",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_toys_that_use_every_part_of_the_contract_pass(toys, checked, name):
    results = checked(getattr(toys, name))
    assert not [r for r in results if r.outcome != "ok"]
    assert len([r for r in results if r.task]) == len(ON_TASK)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_toys_pass_on_every_task(toys, checked, name):
    """But for graphs on kinds whose steps cannot be captured."""
    found = [r for r in checked(getattr(toys, name), tasks=None) if r.outcome != "ok"]
    assert not [r for r in found if not (r.rule == "replay" and kinds.kind(r.task).eager)]


def test_every_toy_is_tested(toys):
    assert [toy.__name__ for toy in toys.TOYS] == NAMES


BROKEN = [
    ("losses", "NoTerms", "at least one named term"),
    ("losses", "NotFinite", "term 'near' is -inf"),
    ("losses", "NotReduced", "shape (16, 10)"),
    ("losses", "Detached", "no term depends on a parameter"),
    ("losses", "Reserved", "'total' is the engine's own"),
    ("losses", "DetachedUpdate", "update() was given a loss that depends on no parameter"),
    ("runs", "Raises", "training raised IndexError: row 7 of nothing"),
    ("runs", "Refuses", "it wants a transformer"),
    ("runs", "NoStage", "yields no stage"),
    ("loss names", "NewNames", "logs task at first and task, late at step 3"),
    ("gradients", "Unused", "no gradient ever reaches embed.weight (group 'student' of stage 'distill'), embed.bias"),
    ("gradients", "WeightOfZero", "embed.bias (group 'student' of stage 'distill') is exactly 0 at every step"),
    ("gradients", "Rounded", "a function without slope"),
    ("gradients", "NeverRamped", "shorten its ramp in the card's smoke values"),
    ("gradients", "Ungrouped", "embed.weight, embed.bias is in no group"),
    ("teachers", "MovesTeacher", "image teacher changed: fc.bias"),
    ("teachers", "WakesTeacher", "was not in eval mode"),
    ("teacher groups", "TakesTeacher", "image.trunk"),
    ("task loss", "Climbs", "check signs"),
    ("deployment", "Keeps", "does not load into a fresh plain student"),
    ("deployment", "Hooked", "it gives other outputs: logits"),
    ("same seed", "Unseeded", "two runs of one seed differ: term task"),
    ("resume", "Forgets", "a run that was stopped and went on differs from one that was not: term task"),
    ("resume", "ForgetsStage", "at step 0 of stage 'distill'"),
    ("replay", "Rebinds", "change buffers in place (copy_, index_copy_) instead of binding new tensors"),
    ("replay", "RebindsTheSame", "would read freed memory: its gt.Scalar reads a tensor of shape ()"),
    ("smallest batch", "NeedsMore", "three rows at least"),
]
ALSO = {
    "MovesTeacher": {"resume"}, "WakesTeacher": {"teachers", "resume"}, "TakesTeacher": {"gradients"},
    "Forgets": {"replay"},
}  # fmt: skip
"""What else a break brings with it."""


FIRST = {rule: name for rule, name, _ in reversed(BROKEN)}
"""A break of each rule, for the fast set; the others are left to the slow one."""


@pytest.mark.parametrize(
    ("rule", "name", "words"),
    [pytest.param(*of, id=of[1], marks=[] if FIRST[of[0]] == of[1] else pytest.mark.slow) for of in BROKEN],
)
def test_each_rule_can_fail_and_alone(broken, checked, rule, name, words):
    failed = {r.rule: r.message for r in checked(getattr(broken, name)) if r.outcome == "failed"}
    assert words in failed.get(rule, ""), failed
    assert set(failed) <= {rule} | ALSO.get(name, set()), failed


def test_a_card_of_other_kinds_than_needs_fails(toys, checked):
    results = checked(toys.Toy, tasks=0, kinds=["classification", "regression"])
    assert [(r.rule, r.outcome) for r in results[:2]] == [("unknown hyper-parameter", "ok"), ("kinds", "failed")]
    assert "needs() gives classification" in results[1].message


def test_a_card_of_other_needs_than_the_adapter_fails(toys, checked):
    failed = {
        r.rule: r.message for r in checked(toys.Toy, tasks=0, needs=["teacher", "row index"]) if r.outcome == "failed"
    }
    assert failed.keys() == {"needs"}
    assert "the card says needs: [teacher, row index]; needs() gives [teacher]; write those there" in failed["needs"]


def test_an_accepted_unknown_hyper_parameter_fails(toys, checked, monkeypatch):
    monkeypatch.setattr("kdbench.checks.rules.run_config", lambda *args: None)
    assert "method.temperaturex=1 is accepted" in checked(toys.Toy, tasks=0)[0].message


def test_a_method_whose_module_cannot_be_loaded_fails(toys, checked, monkeypatch):
    monkeypatch.setattr(toys.ToyRef, "adapter", lambda self: 1 / 0)
    (_, result) = checked(toys.Toy)
    assert (result.rule, result.outcome) == ("kinds", "failed")
    assert "loading it raised ZeroDivisionError" in result.message


def test_more_rows_than_the_declared_minimum_are_no_reason_to_fail(toys, checked):
    class Careful(toys.Toy):
        NEEDS = {"min_batch": 4}  # noqa: RUF012

    assert not [r for r in checked(Careful) if r.outcome != "ok"]


def test_a_step_that_looks_at_a_result_is_not_replayed(toys, checked):
    class Looks(toys.Toy):
        def losses(self, batch, at):
            terms = super().losses(batch, at)
            return {"task": terms["task"] * (1.0 if terms["task"].item() > 1 else 0.5)}

    not_ok = [r for r in checked(Looks) if r.outcome != "ok"]
    assert {(r.rule, r.outcome) for r in not_ok} == {("replay", "skipped")}
    assert "engine.cuda_graphs refuses the method" in not_ok[0].message
    assert "_local_scalar_dense" in not_ok[0].message


def test_a_term_that_starts_at_zero_and_rises_passes(toys, broken, checked):
    class Ramped(broken.Unused):
        def losses(self, batch, at):
            near = self.embed(self.student(batch).logits[:, :2]).square().mean()
            return {"task": super().losses(batch, at)["task"], "near": min(1, at.epoch / 4) * near}

    assert not [r for r in checked(Ramped) if r.outcome != "ok"]


def test_all_rules_are_reported_for_every_kind(toys, checked):
    results = checked(toys.Adversary, tasks=2)
    own = dict.fromkeys(r.task for r in results if r.task)
    assert len(own) == 2
    for task in own:
        assert [r.rule for r in results if r.task == task] == list(ON_TASK)


def test_rules_after_a_broken_run_are_skipped_with_the_reason(broken, checked):
    skipped = [r for r in checked(broken.Raises) if r.outcome == "skipped"]
    assert {r.message for r in skipped} == {"runs failed"}
    assert "gradients" in {r.rule for r in skipped}


def test_only_the_kinds_asked_for_are_run_and_unknown_ones_refused():
    results = check_method("plain", tasks=["regression"])
    assert {r.task for r in results} == {"", "regression"}
    with pytest.raises(UserError, match="did you mean 'regression'"):
        check_method("plain", tasks=["regresion"])
