"""What methods of sentences minimise, make before training and keep, worked out from their equations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sentenced import INDEX, SETTING, VOCABULARY, Y, made, scores, tiny
from torch import Tensor

from kdbench.checks.stubs import Assembled, hyper_parameters
from kdbench.checks.tiny import rows
from kdbench.contract import At
from kdbench.engine.task import build_network
from kdbench.methods.distillm import adapter as distillm
from kdbench.methods.gkd import adapter as gkd
from kdbench.methods.knn_kd import adapter as knn_kd
from kdbench.methods.seq_kd import adapter as seq_kd
from kdbench.methods.shared.onpolicy import self_written
from kdbench.methods.shared.sentences import nearest_reference, retold
from kdbench.specs import registry

pytestmark = pytest.mark.seam


def smoothed(logits: Tensor) -> float:
    """The task's own loss."""
    return float(F.cross_entropy(logits, Y, label_smoothing=0.1))


def kl(one: Tensor, other: Tensor) -> Tensor:
    """(M,) of chances."""
    return (one * (one / other).log()).sum(1)


def same(terms: dict[str, Tensor], wanted: dict[str, Any]) -> None:
    assert terms.keys() == wanted.keys()
    for term, value in wanted.items():
        assert terms[term].item() == pytest.approx(float(value), rel=1e-6), term


def at(t: float = 0.0, seed: int = 0) -> At:
    return At(3, 0, 4, t, torch.Generator().manual_seed(seed))


# word_kd


def words(hp: Any, student: Tensor, known: Tensor | None) -> dict[str, float]:
    """The terms of a step; of ``known`` losses the largest gate, of all symbols where there are none."""
    t = hp.temperature
    rows = t**2 * kl((scores(2) / t).softmax(1), (student / t).softmax(1))
    if known is not None:
        least = known.sort(descending=True).values[math.ceil(hp.rate * len(known)) - 1]
        rows = rows * (hard(student) >= least)
    return {"ce": hp.ce_weight * smoothed(student), "kd": hp.kd_weight * float(rows.mean())}


def hard(logits: Tensor) -> Tensor:
    """(M,) -log p(y)."""
    return -logits.log_softmax(1)[torch.arange(len(Y)), Y]


def check_words() -> None:
    """All symbols count, or those that the batch has most trouble with; nothing is kept of it."""
    for name, known in (("word_kd", None), ("word_kd+batch", hard(scores(0)))):
        found = made(name, rate=0.4)
        same(found.terms(), words(found.method.hp, scores(0), known))
        assert found.handed is None
        found.step()


def check_words_alone() -> None:
    found = made("word_kd", ce_weight=0.0)
    wanted = words(found.method.hp, scores(0), None)
    same(found.terms(), {"kd": wanted["kd"]})


def check_queue_of_words() -> None:
    """The gate is that of earlier symbols too; what is handed over is a constant and the queue holds it."""
    found = made("word_kd+global", rate=0.4, queue=200)
    student: Any = found.method.student
    student.outs = tuple(one.clone().requires_grad_() for one in student.outs)
    same(found.terms(), words(found.method.hp, scores(0), hard(scores(0))))
    assert not found.handed.requires_grad
    found.step()
    both = torch.cat([hard(scores(0)), hard(scores(1))])
    same(found.terms(), words(found.method.hp, scores(1), both))
    assert torch.allclose(found.handed, both)
    apart = words(found.method.hp, scores(1), hard(scores(1)))
    assert words(found.method.hp, scores(1), both) != pytest.approx(apart)  # the two gates differ here


# knn_kd, dkd_nmt


def chances(found: Assembled) -> Tensor:
    """(M, V) of what followed the neighbours of the batch's symbols."""
    method: Any = found.method
    wanted = torch.zeros(len(Y), VOCABULARY, dtype=torch.float64)
    for row, number in enumerate(INDEX.tolist()):
        weights = (-method.distances[number] / method.hp.temperature).exp()
        for symbol, weight in zip(method.symbols[number].tolist(), weights / weights.sum(), strict=True):
            wanted[row, symbol] += weight
    return wanted


def check_neighbours() -> None:
    found = made("knn_kd")
    p, log_q = chances(found), scores(0).log_softmax(1)
    apart = (torch.where(p > 0, p * (p.clamp_min(1e-300).log() - log_q), 0.0)).sum(1).mean()
    same(found.method.losses(found.batch, at()), {
        "ce": smoothed(scores(0)), "knn": found.method.hp.kd_weight * apart,
    })  # fmt: skip
    alone = made("knn_kd+only")
    same(alone.method.losses(alone.batch, at()), {"knn": -(chances(alone) * log_q).sum(1).mean()})


def check_two_passes_and_neighbours() -> None:
    found = made("dkd_nmt")
    hp, p, one, other = found.method.hp, chances(found), scores(0), scores(1)
    apart = (torch.where(p > 0, p * (p.clamp_min(1e-300).log() - one.log_softmax(1)), 0.0)).sum(1).mean()
    first, second = one.softmax(1), other.softmax(1)
    same(found.method.losses(found.batch, at()), {
        "task": (smoothed(one) + smoothed(other)) / 2,
        "knn": hp.kd_weight * apart,
        "agree": hp.weight * ((kl(first, second) + kl(second, first)) / 2).mean(),
    })  # fmt: skip


@contextmanager
def noted(module: ModuleType, name: str, answer: Any) -> Iterator[list[Any]]:
    """Within the block a function of a module answers with ``answer``; what it was called with is noted."""
    own, calls = getattr(module, name), []

    def call(*args: Any, **words: Any) -> Any:
        calls.append((args, words))
        return answer

    setattr(module, name, call)
    try:
        yield calls
    finally:
        setattr(module, name, own)


def untaught() -> Any:
    """A teacher that knows nothing, which does as well here."""
    return build_network(SETTING.teacher, SETTING.input, rows(SETTING)).eval().requires_grad_(False)


def keeping(task: Any) -> list[Any]:
    """What is kept of a task from now on, and how: name, scope, ledger line, hyper-parameters that decide it."""
    asked: list[Any] = []

    def keep(name: str, make: Callable[[], Any], scope: str = "run", ledger: str = "generate", uses: Any = None) -> Any:
        asked.append((name, scope, ledger, set(uses)))
        return make()

    task.keep = keep
    return asked


def check_search() -> None:
    """Neighbours are searched for once, among the teacher's states, and then there is the one stage of all."""
    for name in ("knn_kd", "dkd_nmt"):
        found = made(name)
        method: Any = found.method
        asked, k = keeping(method.task), method.hp.neighbours
        answer = {"symbols": torch.ones(12, k), "distances": torch.zeros(12, k)}
        with noted(knn_kd, "nearest", answer) as calls:
            (stage,) = method.stages()
        assert calls == [((method.task, method.teacher, k), {})]
        assert asked == [("neighbours", "task", "bank_init", {"neighbours"})]
        assert method.symbols is answer["symbols"]
        assert method.distances is answer["distances"]
        assert (stage.name, stage.losses, stage.epochs) == ("distill", method.losses, method.task.epochs)


# rdrop


def check_two_passes() -> None:
    found = made("rdrop")
    one, other = scores(0).softmax(1), scores(1).softmax(1)
    same(found.terms(), {
        "task": smoothed(scores(0)) + smoothed(scores(1)),
        "agree": found.method.hp.weight * ((kl(one, other) + kl(other, one)) / 2).mean(),
    })  # fmt: skip


# gkd, distillm


def check_generalised() -> None:
    for kind in ("forward", "reverse", "js"):
        found = made("gkd", rate=0.0, divergence=kind, beta=0.3, temperature=1.7, kd_weight=0.8)
        p, q = ((scores(which) / 1.7).softmax(1) for which in (2, 1))  # the second pass of the student
        m = 0.3 * p + 0.7 * q
        apart = {"forward": kl(p, q), "reverse": kl(q, p), "js": 0.3 * kl(p, m) + 0.7 * kl(q, m)}[kind]
        same(found.terms(), {"ce": 0.2 * smoothed(scores(0)), "kd": 0.8 * apart.mean()})
    found = made("gkd", rate=0.0, kd_weight=1.0)
    assert found.terms().keys() == {"kd"}


def check_skewed() -> None:
    for reverse in (False, True):
        found = made("distillm", rate=0.0, alpha=0.15, reverse=reverse, kd_weight=0.8)
        p, q = (scores(which).softmax(1) for which in (2, 1))
        apart = kl(q, 0.15 * q + 0.85 * p) if reverse else kl(p, 0.15 * p + 0.85 * q)
        same(found.terms(), {"ce": 0.2 * smoothed(scores(0)), "kd": 0.8 * apart.mean()})


def check_share() -> None:
    """The share of on-policy steps is the rate, or grows to it."""
    for name, growing, wanted in (("distillm", False, 0.6), ("distillm", True, 0.15), ("gkd", None, 0.6)):
        given = {} if growing is None else {"growing": growing}
        assert made(name, rate=0.6, **given).method.share(at(0.25)) == pytest.approx(wanted)


def check_own_texts() -> None:
    """In a share of the steps the divergence is on texts that the student drew; the cross-entropy stays the data's."""
    task, teacher = tiny(), untaught()
    batch = task.wrap(task.rows(torch.arange(9)))
    for name, module in (("gkd", gkd), ("distillm", distillm)):
        hp = hyper_parameters(name, {"rate": 0.5, "kd_weight": 0.75, "longest": 5})
        method: Any = registry.method(name).adapter()(task, [task.build_student()], {"image": teacher}, hp).eval()
        steps = set()
        for seed in range(6):
            rng = torch.Generator().manual_seed(seed)
            on_policy = bool(torch.rand((), generator=rng) < 0.5)
            seen = self_written(method.student, batch, 5, rng) if on_policy else batch
            steps.add(on_policy)
            logits = method.student(seen).logits, teacher(seen).logits
            apart = (
                module.divergence(*logits, hp.divergence, hp.beta, hp.temperature)
                if name == "gkd"
                else module.skewed(*logits, hp.alpha, hp.reverse)
            )
            ce = F.cross_entropy(method.student(batch).logits, batch.y).detach()
            same(method.losses(batch, at(seed=seed)), {"ce": 0.25 * ce, "kd": 0.75 * apart.detach().mean()})
        assert steps == {True, False}


# seq_kd


def writer(**given: Any) -> Any:
    task, hp = tiny(), hyper_parameters("seq_kd", given)
    return registry.method("seq_kd").adapter()(task, [task.build_student()], {"image": untaught()}, hp)


def check_writing() -> None:
    """What is written, by search, by nearness to the reference or by draws, becomes the targets of the one stage."""
    task = tiny()
    y = task.rows(torch.arange(task.n_rows)).y
    answer = {"symbols": torch.arange(2 * task.n_rows).int() % 9, "counts": torch.full((task.n_rows,), 2)}
    for given, args in (
        ({"beam": 4, "longest": 9}, (9, 4, None)),
        ({"beam": 4, "longest": 9, "nearest": True}, (9, 4, nearest_reference)),
        ({"beam": 4, "longest": 9, "draw": True}, (9, 1)),
    ):
        method = writer(**given)
        asked = keeping(method.task)
        with noted(seq_kd, "written", answer) as calls:
            (stage,) = method.stages()
        ((own, more),) = calls
        assert own == (method.task, method.teacher, *args)
        if "draw" in given:
            assert more.keys() == {"rng"}
            assert more["rng"].initial_seed() == method.task.rng("written").initial_seed()
        else:
            assert more == {}
        assert asked == [("written", "task", "teacher_cache", {"beam", "longest", "nearest", "draw"})]
        assert stage.targets.tolist() == retold(y, answer).tolist() != y.tolist()
        assert (stage.name, stage.losses, stage.epochs) == ("distill", method.losses, method.task.epochs)
        assert [group.params for group in stage.groups] == [group.params for group in method.groups()]


def check_written_loss() -> None:
    method = writer()
    batch = method.task.wrap(method.task.rows(torch.arange(5)))
    other = replace(batch, y=batch.y.flip(0))
    method.eval()
    same(method.losses(other, at()), {"task": F.cross_entropy(method.student(batch).logits.detach(), other.y)})


CHECKS: dict[str, list[Callable[[], None]]] = {
    "word_kd": [check_words, check_words_alone, check_queue_of_words],
    "knn_kd": [check_neighbours, check_search],
    "dkd_nmt": [check_two_passes_and_neighbours, check_search],
    "rdrop": [check_two_passes],
    "gkd": [check_generalised, check_share, check_own_texts],
    "distillm": [check_skewed, check_share, check_own_texts],
    "seq_kd": [check_writing, check_written_loss],
}
"""Of each method."""


@pytest.mark.parametrize("check", {check: None for checks in CHECKS.values() for check in checks})
def test_sentences(check: Callable[[], None]) -> None:
    check()
