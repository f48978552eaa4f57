"""Batches whose targets a network wrote itself (on-policy distillation)."""

from __future__ import annotations

from dataclasses import replace

import torch

from kdbench.contract import Batch, Network
from kdbench.contract.sentences import EOS, PREFIX, prefixes


@torch.no_grad()
def self_written(net: Network, batch: Batch, longest: int, rng: torch.Generator) -> Batch:
    """The inputs of a batch with targets drawn from a network, without its dropout; ``index`` numbers nothing.

    Args:
        longest: symbols of a sentence at most, its end apart.
    """
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    found = net.generate(batch, longest, rng=rng)
    for module, mode in modes:
        module.training = mode
    device = batch.y.device
    flat = torch.tensor([symbol for row in found for symbol in (*row, EOS)], device=device)
    counts = torch.tensor([len(row) + 1 for row in found], device=device)
    x = {**batch.x, PREFIX: prefixes(flat, counts)}
    return replace(batch, x=x, y=flat, index=torch.arange(len(flat), device=device), counts=counts)


def drawn(rate: float, rng: torch.Generator) -> bool:
    """Whether this step is one of a share ``rate`` of all."""
    return bool(torch.rand((), generator=rng, device=rng.device) < rate)
