"""few_sample: layers against a solver of least squares, one after the other, and pairs that it refuses."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tinies import tiny_of
from torch import Tensor

from kdbench.contract import At, NotApplicable
from kdbench.engine.stage import StageRun
from kdbench.methods.few_sample import adapter
from kdbench.methods.few_sample.adapter import absorbed, fitted, moments, norm_scale, residual
from kdbench.models.base import ConvNorm

pytestmark = pytest.mark.seam
tiny = functools.cache(tiny_of)


def made(seed: int = 0, **given: Any) -> Any:
    """The method on a tiny pair, ready to fit its layers."""
    found = tiny("few_sample")
    found.config.method.params.update({"pictures": 500, **given})
    with tempfile.TemporaryDirectory() as folder:
        return found.prepare(Path(folder), seed)


def at(step: int) -> At:
    return At(step, 0, 0, 0.0, torch.Generator())


def maps(net: Any, batch: Any) -> list[Tensor]:
    """Before each ReLU, in eval mode."""
    net.eval()
    with torch.no_grad():
        return list(net(batch).preact)


def by_hand(prepared: Any) -> dict[str, Tensor]:
    """The student's state after all layers, by a solver of least squares on maps with the batch norms folded in."""
    method = prepared.method
    batch = prepared.task.wrap(prepared.task.rows(method.pictures))
    for number, pair in enumerate(method.layers):
        x = maps(method.student, batch)[number].double().movedim(1, -1).flatten(0, -2)
        y = maps(method.teacher, batch)[number][:, pair.kept].double().movedim(1, -1).flatten(0, -2)
        layer = torch.linalg.lstsq(x, y).solution.T
        scale = pair.own.norm.weight / (pair.own.norm.running_var + pair.own.norm.eps).sqrt()
        folded = pair.own.conv.weight.detach().double() * scale.detach().double().view(-1, 1, 1, 1)
        new = torch.einsum("ok,kiyx->oiyx", layer, folded) / scale.detach().double().view(-1, 1, 1, 1)
        pair.own.conv.weight.data.copy_(new)
    return dict(method.student.state_dict())


def check_layers() -> None:
    """Layer by layer it is what a solver gives; biases, norms and the classifier stay as they were."""
    mine, other = made(), made()
    before = {key: value.clone() for key, value in mine.method.student.state_dict().items()}
    (stage,) = mine.method.stages()
    list(other.method.stages())
    for step in range(len(mine.method.layers)):
        terms = stage.step(None, at(step), None)
        assert terms.keys() == {"residual"}
        assert terms["residual"].dtype == torch.float32
    wanted = by_hand(other)
    for key, value in mine.method.student.state_dict().items():
        assert torch.allclose(value, wanted[key], rtol=1e-3, atol=1e-4), key
        fitted_anew = (
            key.endswith("conv.weight") and ".0." not in key
        )  # the first layer's channels are the teacher's own
        assert torch.equal(value, before[key]) is not fitted_anew, key


def check_stage() -> None:
    """One stage without optimisers, as many steps as layers, on pictures drawn by the seed."""
    prepared = made(pictures=7)
    (stage,) = prepared.method.stages()
    found = (stage.name, list(stage.groups), stage.steps, stage.batch, stage.ledger, stage.losses)
    assert found == ("recover", [], 3, 7, "distill", None)
    assert [pair.own for pair in prepared.method.layers] == [
        module for module in prepared.method.student.modules() if isinstance(module, ConvNorm)
    ]
    run = StageRun(prepared.method, stage, prepared.task)
    assert run.learning_rate() == 0
    prepared.method.train()
    assert not any(module.training for module in prepared.method.student.modules())
    drawn = prepared.method.pictures.tolist()
    assert len(set(drawn)) == 7
    assert drawn != sorted(drawn)[:7] or max(drawn) > 6
    assert max(drawn) > 6
    again, other = made(pictures=7), made(1, pictures=7)
    for one in (again, other):
        list(one.method.stages())
    assert again.method.pictures.tolist() == drawn != other.method.pictures.tolist()


def check_parts() -> None:
    """Pictures in several parts give what they give at once, and each is read as it is."""
    whole, parts = made(), made()
    for one in (whole, parts):
        (stage,) = one.method.stages()
        chunk, adapter.CHUNK = adapter.CHUNK, 13 if one is parts else 256
        try:
            value = stage.step(None, at(0), None)["residual"]
        finally:
            adapter.CHUNK = chunk
        layer = one.method.layers[0]
        batch = one.task.wrap(one.task.rows(torch.arange(one.task.n_train)))
        own, wanted = (maps(net, batch)[0] for net in (one.method.student, one.method.teacher))
        assert value.item() == pytest.approx((own - wanted[:, layer.kept]).square().mean().item(), rel=1e-3)
    assert torch.allclose(whole.method.layers[0].own.conv.weight, parts.method.layers[0].own.conv.weight, rtol=1e-4)


CHECKS: list[Callable[[], None]] = [check_stage, check_layers, check_parts]


@pytest.mark.parametrize("check", CHECKS)
def test_few_sample(check):
    check()


def test_of_several_solutions_it_is_the_smallest() -> None:
    """A channel that is 0 everywhere and one that is another's double."""
    torch.manual_seed(0)
    x = torch.randn(5, 4, 3, 3, dtype=torch.float64)
    x[:, 1], x[:, 2] = 0, 2 * x[:, 0]
    y = torch.randn(5, 4, 3, 3, dtype=torch.float64)
    found = moments(x, y)
    layer = fitted(found)
    rows = [z.movedim(1, -1).flatten(0, -2) for z in (x, y)]
    wanted = (torch.linalg.pinv(rows[0], rtol=1e-10) @ rows[1]).T
    assert torch.allclose(layer, wanted, rtol=1e-6, atol=1e-9)
    assert residual(found, layer).item() == pytest.approx((rows[0] @ layer.T - rows[1]).square().mean().item())


def test_a_layer_is_taken_in_across_a_norm() -> None:
    torch.manual_seed(0)
    conv, norm = torch.nn.Conv2d(2, 3, 3, bias=False).double(), torch.nn.BatchNorm2d(3).double().eval()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 0.0, -2.0]))
        norm.running_var.copy_(torch.tensor([2.0, 1.0, 0.3]))
        x, layer = torch.randn(2, 2, 5, 5, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
        wanted = torch.einsum("ok,nkyx->noyx", layer, norm(conv(x)))
        conv.weight.copy_(absorbed(conv.weight, layer, norm_scale(norm)))
        found = norm(conv(x))
    assert torch.allclose(found[:, [0, 2]], wanted[:, [0, 2]])  # its bias is 0, so nothing was left behind
    assert bool(found[:, 1].eq(0).all())  # what a norm makes nothing of stays


def test_other_pairs_are_refused(tmp_path: Path) -> None:
    found = tiny_of("kd")
    config = tiny("few_sample").config.method
    other = type(found)(type(found.config)(config, found.config.task), found.data, found.teachers)
    with pytest.raises(
        NotApplicable, match=r"starts from other weights; a task says so by pair.student.weights=pruned"
    ):
        other.prepare(tmp_path)
