"""hash_kd: what its readings of a relation are, and turned copies as a method's own views."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hashed import net, two_views

from kdbench.checks.stubs import assembled, batch_of
from kdbench.contract import At, Batch, Out, bits
from kdbench.methods.hash_kd.adapter import gram_by_row, relation, some_views, turned_similarity, with_turns


def test_sp_as_published_looks_at_each_row_alone() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 6).sign(), torch.randn(5, 6).sign()
    alone = sum(gram_by_row(s[None], t[None]) for s, t in zip(student, teacher, strict=True))
    assert gram_by_row(student, teacher).item() == pytest.approx(float(alone), rel=1e-6)
    assert gram_by_row(-student, student).item() == 0  # a code and its opposite have one Gram matrix
    assert relation("sp_batch", student, teacher).item() != pytest.approx(gram_by_row(student, teacher).item())


def test_turned_copies_are_compared_with_all_pictures() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(8, 6).sign(), torch.randn(8, 6).sign()
    own, theirs = (
        torch.stack([torch.stack([code[r] @ code[c] / 6 for c in range(2)]) for r in range(2, 8)]) / 0.5
        for code in (student, teacher)
    )
    p = theirs.softmax(1)
    wanted = (p * (p.log() - own.log_softmax(1))).sum() / 6 * 0.25
    assert turned_similarity(student, teacher, 4).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_views_of_the_turned_copies() -> None:
    pixels = torch.arange(9.0).view(1, 1, 3, 3)
    made = with_turns(pixels, torch.Generator())
    assert made.shape == (5, 1, 1, 3, 3)
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[3], pixels.flip(-1, -2))
    batch = Batch({"image": made.flatten(0, 1)}, torch.zeros(5), torch.zeros(5, dtype=torch.long), 5)
    assert torch.equal(some_views(batch, [0, 2, 3, 4]).view(2).x["image"], made[3])


@pytest.mark.parametrize("form", ["rkd", "pkt", "sp", "sp_batch", "kl"])
def test_a_relation_has_its_weight_and_reaches_view_0_alone(form: str) -> None:
    torch.manual_seed(0)
    views = [torch.randn(5, 8, requires_grad=True) for _ in range(2)]
    teacher = torch.randn(5, 8), torch.randn(5, 8)
    one, twice = (
        two_views("hash_kd", {"relation": form, "weight": w}, tuple(views), teacher).terms()[form] for w in (1, 2)
    )
    assert twice.item() == pytest.approx(2 * one.item(), rel=1e-6)
    first, other = torch.autograd.grad(one, views, allow_unused=True, materialize_grads=True)
    assert first.abs().sum() > 0
    assert other.abs().sum() == 0


def check_relations() -> None:
    """Each relation of view 0 with its weight; the task's loss is of both views."""
    for form in ("rkd", "pkt", "sp", "sp_batch", "kl"):
        torch.manual_seed(0)
        views = [torch.randn(5, 8, requires_grad=True) for _ in range(2)]
        teacher = [torch.randn(5, 8, requires_grad=True) for _ in range(2)]
        found = two_views("hash_kd", {"relation": form, "weight": 0.3}, tuple(views), tuple(teacher))
        terms = found.terms()
        assert terms.keys() == {"task", form}
        wanted = 0.3 * relation(form, bits(views[0]), bits(teacher[0]).detach())
        assert terms[form].item() == pytest.approx(wanted.item(), rel=1e-6), form
        own = found.method.task.loss(found.method.student(found.batch), found.batch)
        assert terms["task"].item() == pytest.approx(own.item(), rel=1e-6)
        first, other = torch.autograd.grad(
            terms[form], views, allow_unused=True, materialize_grads=True, retain_graph=True
        )
        assert first.abs().sum() > 0
        assert other.abs().sum() == 0
        assert all(grad is None for grad in torch.autograd.grad(terms[form], teacher, allow_unused=True))


def check_turned() -> None:
    """sskd: the task's loss of the first two views; the relation of the first and the three turned ones."""
    torch.manual_seed(0)
    n, views = 4, 5
    student, teacher = (torch.randn(n * views, 8, requires_grad=True) for _ in range(2))
    batch = batch_of(torch.arange(n).repeat(views), views=views, index=torch.arange(n).repeat(views))
    method = assembled(
        "hash_kd", {"relation": "sskd", "weight": 0.3}, batch, [net(student)], net(teacher), kind="hashing", n_train=n
    ).method
    terms = method.losses(batch, At(0, 0, 1, 0.0, torch.Generator()))
    assert terms.keys() == {"task", "sskd"}
    rows = torch.cat([torch.arange(n), torch.arange(2 * n, 5 * n)])
    wanted = 0.3 * turned_similarity(bits(student)[rows], bits(teacher).detach()[rows], 4)
    assert terms["sskd"].item() == pytest.approx(wanted.item(), rel=1e-5)
    two = replace(batch_of(torch.arange(2 * n)), views=2)
    own = method.task.loss(Out(student[: 2 * n], code=student[: 2 * n]), two)
    assert terms["task"].item() == pytest.approx(own.item(), rel=1e-5)
    assert torch.autograd.grad(terms["sskd"], teacher, allow_unused=True)[0] is None
    (stage,) = method.stages()
    seen = stage.views
    assert (seen.n, seen.fn, seen.where, seen.input) == (5, with_turns, "raw", "image")
    method.student.input = "other"
    assert next(method.stages()).views.input == "other"
    assert (stage.name, stage.losses, stage.epochs) == ("distill", method.losses, 40)


def check_stage() -> None:
    """Other relations have the task's own views."""
    views, teacher = ((torch.randn(3, 4), torch.randn(3, 4)) for _ in range(2))
    method = two_views("hash_kd", {"relation": "kl"}, views, teacher).method
    (stage,) = method.stages()
    assert (stage.name, stage.losses, stage.epochs, stage.views) == ("distill", method.losses, 40, None)


CHECKS = [check_stage, check_relations, check_turned]


@pytest.mark.parametrize("check", CHECKS)
def test_hash_kd(check) -> None:
    check()
