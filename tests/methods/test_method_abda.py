"""abda: which pixels are pasted where, what the inner method sees of it, and inner methods that it refuses."""

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
from tinies import tiny_of

from kdbench.base.errors import UserError
from kdbench.contract import At, NotApplicable, Out
from kdbench.methods.abda.adapter import first_rows, response, salient
from kdbench.specs import registry
from kdbench.specs.config import method_config

pytestmark = pytest.mark.seam
tiny = functools.cache(tiny_of)


def made(**given: Any) -> Any:
    """The method on a tiny pair."""
    found = tiny("abda")
    chosen = method_config(registry.method("abda"), {"least_share": 0.25, "greatest_share": 0.6, **given})
    found = replace(found, config=replace(found.config, method=chosen))
    with tempfile.TemporaryDirectory() as folder:
        return found.prepare(Path(folder))


def at(seed: int = 3) -> At:
    return At(0, 0, 8, 0.0, torch.Generator().manual_seed(seed))


def check_mixed() -> None:
    """Of each picture the pixels of highest attention on another one, by draws of the step's generator."""
    prepared = made()
    method = prepared.method
    batch = prepared.task.wrap(prepared.task.rows(torch.arange(10)), torch.arange(10) + 7)
    batch = replace(batch, x={**batch.x, "other": torch.arange(10.0)[:, None]}, present={"other": torch.arange(10) > 3})
    found = method.with_mixed(batch, at().rng)
    rng = torch.Generator().manual_seed(3)
    order, drawn = torch.randperm(10, generator=rng), torch.rand(10, generator=rng)
    x = batch.x["image"]
    with torch.no_grad():
        attention = (method.teacher.eval()(batch).maps[-1] ** 2).sum(1)
    enlarged = F.interpolate(attention[:, None], (8, 8), mode="bilinear", align_corners=False)[:, 0]
    assert (found.views, len(found)) == (1, 20)
    assert torch.equal(found.x["image"][:10], x)
    assert found.y.tolist() == 2 * batch.y.tolist()
    assert found.index.tolist() == 2 * list(range(7, 17))
    assert found.x["other"].flatten().tolist() == 2 * list(range(10))
    assert found.present["other"].tolist() == 2 * ([False] * 4 + [True] * 6)
    for row in range(10):
        kept = -(-int(64 * (0.25 + 0.35 * drawn[row]) * 1e6) // 10**6)
        bound = enlarged[row].flatten().sort(descending=True).values[kept - 1]
        mask = enlarged[row] >= bound
        assert kept <= int(mask.sum()) < 64
        wanted = torch.where(mask, x[row], x[order[row]])
        assert torch.equal(found.x["image"][10 + row], wanted), row


def check_terms() -> None:
    """kd on twice the rows, its cross-entropy on the pictures as they are alone."""
    prepared = made()
    method = prepared.method.eval()
    batch = prepared.task.wrap(prepared.task.rows(torch.arange(10)))
    (stage,) = method.stages()
    card = registry.card("kd")
    plain = card.typed(card.defaults())
    terms = stage.losses(batch, at())
    both = method.with_mixed(batch, at().rng)
    own, target = method.student(both).logits, method.teacher(both).logits
    p, q = (own / plain.temperature).softmax(1), (target / plain.temperature).softmax(1)
    wanted = plain.kd_weight * plain.temperature**2 * (q * (q / p).log()).sum(1).mean()
    assert terms.keys() == {"ce", "kd"}
    assert terms["ce"].item() == pytest.approx(plain.ce_weight * F.cross_entropy(own[:10], batch.y).item(), rel=1e-5)
    assert terms["kd"].item() == pytest.approx(wanted.item(), rel=1e-4)
    assert (stage.name, stage.epochs, stage.ledger) == ("distill", prepared.task.epochs, "distill")


CHECKS: list[Callable[[], None]] = [check_mixed, check_terms]


@pytest.mark.parametrize("check", CHECKS)
def test_abda(check):
    check()


def test_salient_pixels() -> None:
    attention = torch.tensor([[[4.0, 3.0], [2.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]])
    assert salient(attention, torch.tensor([0.5, 0.25]), (2, 2)).tolist() == [
        [[[True, True], [False, False]]],
        [[[True, True], [True, True]]],  # equal ones are all in
    ]
    assert salient(attention, torch.tensor([0.3, 1.0]), (2, 2))[0].sum() == 2  # rounded up
    assert response(torch.tensor([[[[1.0]], [[-2.0]]]])).item() == 5


def test_first_rows_of_an_output() -> None:
    out = Out(torch.arange(6.0), (torch.arange(6.0),), (), None, torch.arange(6.0))
    found = first_rows(out, 2)
    assert found.logits.tolist() == found.maps[0].tolist() == found.emb.tolist() == [0, 1]
    assert not found.has("stem")


@pytest.mark.parametrize(
    ("inner", "reason"),
    [
        ("crd", "crd reads row numbers, and a mixed picture is of two rows"),
        ("tf_kd-reg", "tf_kd-reg reads no teacher"),
        ("mlkd", "mlkd has views of its own"),
    ],
)
def test_inner_methods_that_it_cannot_serve(inner: str, reason: str) -> None:
    with pytest.raises(NotApplicable, match=reason):
        made(inner=inner)


def test_bounds_of_the_share() -> None:
    with pytest.raises(NotApplicable, match="least_share is above greatest_share"):
        made(least_share=0.7)
    with pytest.raises(UserError, match="greatest_share"):
        made(greatest_share=1.5)
