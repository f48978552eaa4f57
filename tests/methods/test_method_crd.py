"""crd: fragile spots."""

from __future__ import annotations

import pytest
import torch

from kdbench.methods.crd.adapter import Contrast, Embedding
from kdbench.methods.shared.banks import multiplicity


def contrast_by_rows(anchor, memory, drawn, z, temperature):
    """The loss over gathered rows, equation by equation; column 0 of ``drawn`` is the positive."""
    n, k = len(memory), drawn.shape[1] - 1
    p = (memory[drawn] @ anchor[:, :, None]).squeeze(2).div(temperature).exp() / z
    noise = k / n
    real = (p[:, 0] / (p[:, 0] + noise + 1e-7)).log().sum()
    fake = (noise / (p[:, 1:] + noise + 1e-7)).log().sum()
    return -(real + fake) / len(anchor)


@pytest.fixture
def drawn():
    """Anchors, a memory, and drawn rows with repeats, the positive first."""
    anchor = torch.nn.functional.normalize(torch.randn(4, 8).double(), dim=1)
    memory = torch.nn.functional.normalize(torch.randn(20, 8).double(), dim=1)
    return anchor, memory, torch.randint(20, (4, 31))


def test_the_product_with_the_whole_memory_equals_sums_over_gathered_rows(drawn):
    anchor, memory, rows = drawn
    contrast = Contrast().double()
    counts = multiplicity(rows[:, 1:], 20)
    value = contrast(anchor, memory, rows[:, 0], counts, 0.5)
    scores = (memory[rows] @ anchor[:, :, None]).div(0.5).exp()
    assert contrast.z.item() == pytest.approx(20 * scores.mean().item(), rel=1e-12)
    assert value.item() == pytest.approx(contrast_by_rows(anchor, memory, rows, contrast.z, 0.5).item(), rel=1e-12)


def test_the_normalisation_constant_is_the_first_batchs_and_has_no_gradient(drawn):
    anchor, memory, rows = drawn
    contrast = Contrast().double()
    counts = multiplicity(rows[:, 1:], 20)
    contrast(anchor.requires_grad_(), memory, rows[:, 0], counts, 0.5)
    first = contrast.z.clone()
    contrast(anchor * 0.5, memory, rows[:, 0], counts, 0.5)
    assert torch.equal(contrast.z, first)
    assert not contrast.z.requires_grad
    assert "z" in contrast.state_dict()


def test_the_memory_gets_no_gradient(drawn):
    anchor, memory, rows = drawn
    memory.requires_grad_()
    contrast = Contrast().double()
    contrast(anchor.requires_grad_(), memory, rows[:, 0], multiplicity(rows[:, 1:], 20), 0.5).backward()
    assert memory.grad is None
    assert anchor.grad.any()


def test_a_row_of_zeros_has_embedding_zero_and_finite_gradients():
    embed = Embedding(6, 8)
    torch.nn.init.zeros_(embed.linear.bias)
    x = torch.zeros(3, 6, requires_grad=True)
    out = embed(x)
    out.sum().backward()
    assert not out.any()
    assert torch.isfinite(x.grad).all()


def test_a_sharp_temperature_stays_finite_in_float32():
    anchor = torch.nn.functional.normalize(torch.randn(4, 8), dim=1).requires_grad_()
    memory = torch.cat([anchor.detach(), -anchor.detach()])
    value = Contrast()(anchor, memory, torch.arange(4), torch.ones(4, 8), 0.07)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(anchor.grad).all()


def test_an_index_outside_the_memory_is_refused():
    contrast, anchor = Contrast(), torch.ones(1, 8)
    with pytest.raises((IndexError, RuntimeError), match=r"out of bounds|index 20"):
        contrast(anchor, torch.ones(20, 8), torch.tensor([20]), torch.ones(1, 20), 0.5)
