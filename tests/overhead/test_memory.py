"""Peak memory: repeatable, and right where it can be worked out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kdbench.overhead.memory import MIB, cpu_peak_bytes, peak_memory, rss_mib, tensor_mib

CPU = torch.device("cpu")


def test_peak_is_the_largest_sum_alive_at_once():
    def step() -> None:
        a = torch.empty(MIB, dtype=torch.uint8)
        b = torch.empty(2 * MIB, dtype=torch.uint8)
        del a
        c = torch.empty(MIB // 2, dtype=torch.uint8)
        del b, c

    assert cpu_peak_bytes(step) == 3 * MIB


def test_what_was_there_before_the_step_does_not_count():
    kept = torch.zeros(4 * MIB, dtype=torch.uint8)
    assert cpu_peak_bytes(lambda: kept.add_(1)) < 1024
    assert cpu_peak_bytes(lambda: None) == 0


def test_the_same_step_gives_the_same_bytes_from_its_first_measurement_on():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(2048, 10))
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(768, 2048), nn.ReLU(), nn.Linear(2048, 10))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    x, y = torch.randn(8, 3, 16, 16), torch.randint(0, 10, (8,))

    def plain() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()

    def distilled() -> None:
        with torch.no_grad():
            target = teacher(x)
        optimizer.zero_grad()
        (nn.functional.cross_entropy(net(x), y) + (net(x) - target).square().mean()).backward()
        optimizer.step()

    plain()
    few = {cpu_peak_bytes(plain) for _ in range(4)}
    many = {cpu_peak_bytes(distilled) for _ in range(4)}
    assert len(few) == len(many) == 1
    assert many.pop() > few.pop() > 2 * 8 * 8 * 16 * 16 * 4  # two maps of the convolution at the least


def test_peak_memory_on_a_cpu_has_no_reserve():
    found = peak_memory(lambda: torch.empty(3 * MIB, dtype=torch.uint8).zero_(), CPU)
    assert found.alloc_mib == 3
    assert found.reserved_mib is None


def test_peak_memory_on_a_gpu_resets_runs_and_waits_in_this_order(monkeypatch):
    log: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append("wait"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: log.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5 * MIB)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 8 * MIB)
    found = peak_memory(lambda: log.append("step"), torch.device("cuda", 0))
    assert log == ["wait", "reset", "step", "wait"]
    assert (found.alloc_mib, found.reserved_mib) == (5, 8)


def test_tensors_behind_one_storage_count_once_and_whole():
    bank = torch.zeros(MIB, dtype=torch.float32)
    assert tensor_mib([bank, bank[:10], bank.view(2, -1)]) == 4
    assert tensor_mib([bank[:10], torch.zeros(MIB, dtype=torch.uint8)]) == 5
    assert tensor_mib([]) == 0


def test_resident_size_is_that_of_a_process_with_torch():
    assert 100 < rss_mib() < 100_000


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_peak_memory_of_a_real_gpu():
    device = torch.device("cuda", 0)
    found = peak_memory(lambda: torch.empty(64 * MIB, dtype=torch.uint8, device=device), device)
    assert found.alloc_mib >= 64
    assert found.reserved_mib is not None
    assert found.reserved_mib >= found.alloc_mib
