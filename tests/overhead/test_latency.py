"""Inference latency by batch size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kdbench.devices.clock import HostClock
from kdbench.overhead.latency import FEWEST_CALLS, MOST_CALLS, WARMUP_CALLS, latency

CPU = torch.device("cpu")


def test_quartiles_of_calls_after_a_warm_up():
    t, calls = 0.0, 0

    def forward(rows: int) -> None:
        nonlocal t, calls
        warming = calls < WARMUP_CALLS
        t += 9.0 if warming else 0.001 * rows * (1 + calls % 4)  # 1, 2, 3 and 4 ms a row, equally often
        calls += 1

    found = latency(forward, {1: 1}, CPU, seconds=1e6, clock=HostClock(lambda: t))
    assert found[1].calls == MOST_CALLS
    assert (found[1].q1_ms, found[1].median_ms, found[1].q3_ms) == pytest.approx((1.75, 2.5, 3.25))


def test_slow_networks_end_at_the_limit_after_a_few_calls():
    t = 0.0

    def forward(_: int) -> None:
        nonlocal t
        t += 10.0

    found = latency(forward, {1: 1, 128: 128}, CPU, seconds=3.0, clock=HostClock(lambda: t))
    assert list(found) == [1, 128]
    assert all(f.calls == FEWEST_CALLS and f.median_ms == pytest.approx(10_000) for f in found.values())
    assert t == 2 * (1 + FEWEST_CALLS) * 10.0, "one warm-up call each, then the fewest"


def test_a_real_network_takes_longer_on_a_larger_batch():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 256), nn.ReLU(), nn.Linear(256, 10)).eval()
    inputs = {n: torch.randn(n, 3, 32, 32) for n in (1, 128)}
    with torch.no_grad():
        found = latency(net, inputs, CPU, seconds=0.3)
    assert 0 < found[1].q1_ms <= found[1].median_ms <= found[1].q3_ms
    assert found[1].median_ms < found[128].median_ms < 1000
