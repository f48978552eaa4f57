"""What methods of hidden patches minimise and train, worked out from their equations."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.checks.stubs import INPUT, Assembled, Stub, assembled, batch_of
from kdbench.checks.tiny import declared, tiny
from kdbench.contract import Batch, Network, Out
from kdbench.engine.assemble import needs_of
from kdbench.specs import registry

pytestmark = pytest.mark.seam
N, TOKENS = 4, 6
"""Rows of a batch, and tokens of each."""


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(N, *shape, generator=torch.Generator().manual_seed(seed))


# dmae


def tokens(name: str = "dmae", **given: Any) -> Assembled:
    """A method on a student of 4 blocks of 5 numbers a token, and a teacher of 8 of 7."""
    student, teacher = (
        Stub(Out(None, tokens=tuple(drawn(seed + block, TOKENS, width) for block in range(blocks))))
        for seed, blocks, width in ((0, 4, 5), (100, 8, 7))
    )
    torch.manual_seed(0)
    return assembled(name, given, batch_of(torch.arange(N)), [student], teacher, kind="representation")


def check_tokens() -> None:
    """The task's own loss, and the tokens of the blocks at one depth, unit vectors behind the projection."""
    for distance, error in (("l1", torch.Tensor.abs), ("l2", torch.Tensor.square)):
        made = tokens(weight=0.7, depth=0.5, distance=distance)
        method: Any = made.method
        method.task.loss = lambda out, batch: out.tokens[0].sum() * (1 + batch.y.sum())
        own = F.normalize(method.projection(drawn(1, TOKENS, 5)), dim=2)  # the second of 4
        taught = F.normalize(drawn(103, TOKENS, 7), dim=2)  # the fourth of 8
        terms = made.terms()
        assert terms.keys() == {"task", "align"}
        assert terms["task"].item() == pytest.approx(7 * drawn(0, TOKENS, 5).sum().item(), rel=1e-5)
        assert terms["align"].item() == pytest.approx(0.7 * error(own - taught).mean().item(), rel=1e-5)


# tinymim


class Blocks(Network):
    """Three blocks of one weight each, of which the next reads what the last gave, and a weight behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third, self.behind = (nn.Parameter(torch.ones(())) for _ in range(4))
        self.heads = 1

    def forward(self, batch: Batch) -> Out:
        rows, found = drawn(50, 3, self.heads, TOKENS, 8)[batch.x[INPUT]], []
        for place, weight in enumerate((self.first, self.second, self.third)):
            rows = (weight * rows + place).sin()
            found.append(rows)
        return Out(None, emb=self.behind * rows.flatten(1), qkv=tuple(found))


def related() -> Assembled:
    """The student of three blocks beside a teacher of four, of two heads; the third teaches."""
    teacher = Stub(Out(None, qkv=tuple(drawn(60 + block, 3, 2, TOKENS, 5) for block in range(4))))
    batch = batch_of(torch.arange(N))
    return assembled("tinymim", {"depth": 0.75}, batch, [Blocks()], teacher, kind="representation")


def check_relations() -> None:
    """KL of the rows of two relations: queries with keys, values with values, in the teacher's heads."""
    made = related()
    own = made.method.student(made.batch).qkv[-1][:, :, 0]  # (N, 3, T, 8)
    taught = drawn(62, 3, 2, TOKENS, 5)
    wanted = {"qk": 0.0, "vv": 0.0}
    for name, (a, b) in {"qk": (0, 1), "vv": (2, 2)}.items():
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)
            student = (own[:, a, :, part] @ own[:, b, :, part].mT / 2).softmax(2)
            teacher = (taught[:, a, head] @ taught[:, b, head].mT / 5**0.5).softmax(2)
            wanted[name] += (teacher * (teacher / student).log()).sum(2).mean().item() / 2
    terms = made.terms()
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(wanted, rel=1e-4)


def check_related_stage() -> None:
    """One stage that shows each picture once and trains what the last block's queries, keys and values read."""
    made = related()
    ((name, stage),) = made.stages().items()
    student: Any = made.method.student
    (group,) = stage.groups
    assert (name, stage.epochs, stage.losses) == ("distill", made.method.task.epochs, made.method.losses)
    assert group.name == "student"
    assert [id(one) for one in group.params] == [id(one) for one in (student.first, student.second, student.third)]
    assert stage.views is not None
    assert (stage.views.n, stage.views.where, stage.views.input, stage.views.hide) == (1, "raw", "image", None)


# spark, h_gkd


@functools.cache
def prepared(name: str) -> tuple[Any, Batch]:
    """A method on its tiny task, and a batch of which patches are hidden."""
    ref = registry.method(name)
    scene, chosen = next(one for one in declared(ref) if one[0] == "representation")
    with tempfile.TemporaryDirectory() as folder:
        found = tiny(ref, chosen, needs_of(chosen), scene).prepare(Path(folder))
        stage = next(found.method.stages())
        batch = found.task.loader(stage, 1).draw(0)
    found.method.train()
    return found.method, batch


def cut(pictures: Tensor, patch: int) -> Tensor:
    """(N, h, w, P) patches of pictures."""
    rows = pictures.unfold(2, patch, patch).unfold(3, patch, patch)
    return rows.permute(0, 2, 3, 1, 4, 5).flatten(3)


def check_hidden_pixels() -> None:
    """What the decoder says of hidden patches, beside the pixels of each, less their mean and by their deviation."""
    method, batch = prepared("spark")
    pictures = batch.x[method.student.input]
    told, said = cut(pictures, method.patch), cut(method.decoded(batch), method.patch)
    told = (told - told.mean(3, keepdim=True)) / (told.var(3, keepdim=True) + 1e-6).sqrt()
    assert batch.visible is not None
    hidden = ~batch.visible[:, 0]
    assert 0 < int(hidden.sum()) < hidden.numel()
    wanted = (said - told).square().mean(3)[hidden].mean().item()
    terms = method.losses(batch, None)
    assert terms.keys() == {"spark"}
    assert terms["spark"].item() == pytest.approx(wanted, rel=1e-4)


def check_hidden_tokens() -> None:
    """What the decoder says where the picture is hidden, beside what the teacher says of all of it."""
    method, batch = prepared("h_gkd")
    said = method.decoded(batch)
    tokens = method.teacher(replace(batch, visible=None, seen=None)).maps[-1]
    told = (tokens - tokens.mean(1, keepdim=True)) / (tokens.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    assert batch.visible is not None
    times = said.shape[2] // batch.visible.shape[2]
    hidden = ~batch.visible[:, 0].repeat_interleave(times, 1).repeat_interleave(times, 2)
    apart = (said - told).abs()
    own = method.hp
    for error, each in (
        ("mse", apart.square()),
        ("smooth_l1", torch.where(apart < 2, apart.square() / 4, apart - 1)),
    ):
        method.hp = replace(own, error=error)
        try:
            terms = method.losses(batch, None)
        finally:
            method.hp = own
        assert terms.keys() == {"mimic"}
        assert terms["mimic"].item() == pytest.approx(each.mean(1)[hidden].mean().item(), rel=1e-4), error


CHECKS: dict[str, list[Callable[[], None]]] = {
    "dmae": [check_tokens],
    "tinymim": [check_relations, check_related_stage],
    "spark": [check_hidden_pixels],
    "h_gkd": [check_hidden_tokens],
}
"""Of each method."""
TRAINED = (check_hidden_pixels, check_hidden_tokens)
"""Those that make a tiny task ready."""


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, marks=[pytest.mark.slow] if check in TRAINED else [])
        for checks in CHECKS.values()
        for check in checks
    ],
)
def test_hidden_patches(check: Callable[[], None]) -> None:
    check()
