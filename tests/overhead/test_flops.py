"""FLOPs against counts done by hand; what has no formula is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.overhead.flops import count_flops

N, C_IN, C_OUT, SIDE, CLASSES = 4, 3, 8, 16, 10
CONV = 2 * N * C_OUT * SIDE * SIDE * C_IN * 3 * 3
LINEAR = 2 * N * C_OUT * CLASSES


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(C_IN, C_OUT, 3, padding=1)
        self.norm = nn.BatchNorm2d(C_OUT)
        self.fc = nn.Linear(C_OUT, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.norm(self.conv(x))).mean((2, 3)))


X, Y = torch.randn(N, C_IN, SIDE, SIDE), torch.randint(0, CLASSES, (N,))


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_forward_by_hand_with_and_without_gradients(context):
    net = Tiny()
    with context():
        found = count_flops(lambda: net(X))
    assert found.flops == CONV + LINEAR
    assert found.by_op == {"addmm": LINEAR, "convolution": CONV}
    assert set(found.uncounted_ops) >= {"relu", "mean"}
    assert any("batch_norm" in op for op in found.uncounted_ops)
    assert found.counter.startswith("torch.utils.flop_counter 2.")


def test_forward_and_backward_by_hand():
    net = Tiny()
    found = count_flops(lambda: F.cross_entropy(net(X), Y).backward())
    # the convolution's input is data: only its weight has a gradient; the linear layer's input and weight both do
    assert found.flops == 2 * CONV + 3 * LINEAR


def test_a_whole_step_with_a_frozen_teacher_counts_the_teacher_and_names_the_losses():
    net, teacher = Tiny(), Tiny().eval()
    optimizer = torch.optim.AdamW(net.parameters())

    def step() -> None:
        with torch.no_grad():
            target = F.softmax(teacher(X) / 4, 1)
        optimizer.zero_grad()
        F.kl_div(F.log_softmax(net(X) / 4, 1), target, reduction="batchmean").backward()
        optimizer.step()

    found = count_flops(step)
    assert found.flops == 3 * CONV + 4 * LINEAR
    assert {"_log_softmax", "_softmax", "sqrt", "addcdiv"} <= {
        op.removeprefix("_foreach_") for op in found.uncounted_ops
    }
    assert list(found.uncounted_ops) == sorted(set(found.uncounted_ops))


def test_attention_is_counted():
    q = torch.randn(2, 3, 8, 4)
    assert count_flops(lambda: F.scaled_dot_product_attention(q, q, q)).flops == 2 * (2 * 2 * 3 * 8 * 8 * 4)


def test_views_metadata_placement_and_copies_are_not_computation():
    x = torch.randn(4, 6)

    def call() -> None:
        y = torch.cat([x.view(6, 4), x[:2].reshape(2, 6)[:, :4].t().contiguous().t()])
        y = y.clone().to(torch.float64).detach().unsqueeze(0).expand(2, -1, -1)
        torch.zeros(3).copy_(torch.ones(3)).squeeze_()
        torch.empty_like(y).fill_(1.0)
        torch.stack([x, torch.zeros_like(x)]).flip(0).numel()
        torch.arange(3)
        x.sum  # noqa: B018
        x[0, 0].item()

    found = count_flops(call)
    assert found.flops == 0
    assert found.uncounted_ops == ()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda x: torch.linalg.svd(x), "_linalg_svd"),
        (lambda x: torch.fft.rfft(x), "_fft_r2c"),
        (lambda x: x.add_(1), "add"),
        (lambda x: F.interpolate(x[None, None], scale_factor=2, mode="bilinear"), "upsample_bilinear2d"),
        (lambda x: torch.mv(x, x[0]), "mv"),
        (lambda x: F.embedding(torch.tensor([1]), x), "embedding"),
        (lambda x: torch.rand(3), "rand"),
    ],
)
def test_computation_without_a_formula_is_named(call, name):
    x = torch.randn(8, 8)
    found = count_flops(lambda: call(x))
    assert found.flops == 0
    assert name in found.uncounted_ops


def test_known_traps():
    x = torch.randn(64, 32)
    distances = count_flops(lambda: torch.cdist(x, x))
    assert distances.flops == 0
    assert distances.uncounted_ops == ("_euclidean_dist",)

    class Outside(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return torch.from_numpy(np.matmul(x.numpy(), x.numpy().T))

    unseen = count_flops(lambda: Outside.apply(x))
    assert (unseen.flops, unseen.uncounted_ops) == (0, ()), "what runs outside torch can neither be counted nor named"


def test_counting_leaves_results_as_they_are():
    net = Tiny().eval()
    seen: list[Tensor] = []
    count_flops(lambda: seen.append(net(X)))
    assert torch.equal(seen[0], net(X))
