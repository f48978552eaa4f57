"""What methods of sentences share: what a network writes for the training rows, and its states there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from kdbench.base.subwords import sacrebleu
from kdbench.contract import Network, Sentences, TaskInfo
from kdbench.contract.sentences import EOS, PAD, first

TEXTS = frozenset({"translation", "language"})
"""Kinds whose targets are sentences."""
CHUNK = 256
"""Rows that a network sees at a time."""
BLOCK, TILE = 512, 1 << 16
"""States compared at a time, and with how many others, so that a search of any length holds this many distances."""
Choose = Callable[[Sequence[Sequence[int]], Sequence[int]], Sequence[int]]
"""Of what a beam found, the best first, and the reference: the one that is kept."""


class Nearest(NamedTuple):
    """Squared distances (b, k), the smallest first, and to which states."""

    values: Tensor
    indices: Tensor


def nearest_reference(found: Sequence[Sequence[int]], reference: Sequence[int]) -> Sequence[int]:
    """Of what a beam found the one of highest sentence BLEU with the reference, over symbols; the first of equals."""
    bleu = sacrebleu().BLEU(tokenize="none", effective_order=True, force=True)
    right = [" ".join(map(str, reference))]
    return max(found, key=lambda symbols: bleu.sentence_score(" ".join(map(str, symbols)), right).score)


@torch.no_grad()
def written(
    task: TaskInfo,
    net: Network,
    longest: int,
    beam: int,
    choose: Choose | None = None,
    rng: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """What a network writes for all training rows: ``symbols`` (M,) of one row after the other, ``counts`` (N,).

    A row for which it writes nothing keeps its reference.

    Args:
        longest: symbols of a sentence at most.
        beam: as of ``Network.generate``.
        choose: None takes what the network says is likeliest.
        rng: texts are drawn instead.
    """
    every = task.rows(torch.arange(task.n_rows, device=task.device))
    references = [row[:-1] for row in every.y.tolist()]
    order = (every.x[net.input] != PAD).sum(1).argsort(stable=True)  # rows of like length are written together
    found: list[Sequence[int]] = [()] * task.n_rows
    for part in order.split(CHUNK):
        batch = task.wrap(task.rows(part))
        rows = part.tolist()
        if choose is None:
            said: Sequence[Sequence[int]] = net.generate(batch, longest, beam, rng)
        else:
            each = net.n_best(batch, longest, beam)
            said = [choose(some, references[row]) for some, row in zip(each, rows, strict=True)]
        for row, symbols in zip(rows, said, strict=True):
            found[row] = symbols or references[row]
    flat = [symbol for symbols in found for symbol in (*symbols, EOS)]
    return {"symbols": torch.tensor(flat, dtype=torch.int32), "counts": torch.tensor([len(one) + 1 for one in found])}


def retold(y: Sentences, made: dict[str, Tensor]) -> Sentences:
    """The same sentences with the symbols of :func:`written`."""
    counts = made["counts"]
    return replace(y, symbols=made["symbols"], counts=counts, begins=first(counts))


@torch.no_grad()
def nearest(task: TaskInfo, net: Network, k: int) -> dict[str, Tensor]:
    """Of every target symbol of the training set the k whose states lie nearest, its own among them.

    Beside what it returns, 8 k bytes a symbol, it holds the states, 4 d bytes a symbol of states d wide, and two
    blocks of distances (270 MB).

    Returns:
        ``symbols`` (n_train, k) int32 and ``distances`` (n_train, k), squared, the smallest first.
    """
    states = torch.empty(0)
    for rows in torch.arange(task.n_rows, device=task.device).split(CHUNK):
        batch = task.wrap(task.rows(rows))
        emb = net(batch).emb
        states = states if len(states) else emb.new_empty(task.n_train, emb.shape[1])
        states[batch.index] = emb
    norms = states.square().sum(1)
    symbols = torch.empty(task.n_train, k, dtype=torch.int32, device=states.device)
    distances = states.new_empty(task.n_train, k)
    for begin in range(0, task.n_train, BLOCK):
        part = slice(begin, begin + BLOCK)
        near = _least(states[part], norms[part], states, norms, k)
        symbols[part] = task.train_labels[near.indices].int()
        distances[part] = near.values.clamp_min_(0.0)
    return {"symbols": symbols, "distances": distances}


def _least(part: Tensor, own: Tensor, states: Tensor, norms: Tensor, k: int) -> Nearest:
    """Of each of some states the k least squared distances to all, by tiles.

    Args:
        part, own: (b, d) and their squared norms (b,).
        states, norms: (n, d) and (n,).
    """
    found = Nearest(own.new_empty(len(part), 0), torch.empty(len(part), 0, dtype=torch.long, device=own.device))
    for begin in range(0, len(states), TILE):
        tile = slice(begin, begin + TILE)
        far = (part @ states[tile].T).mul_(-2).add_(own[:, None] + norms[tile])
        values, indices = far.topk(min(k, far.shape[1]), largest=False)
        every = Nearest(torch.cat([found.values, values], 1), torch.cat([found.indices, indices + begin], 1))
        values, kept = every.values.topk(min(k, every.values.shape[1]), largest=False)
        found = Nearest(values, every.indices.gather(1, kept))
    return found


def neighbour_chances(symbols: Tensor, distances: Tensor, temperature: float, classes: int) -> Tensor:
    """(M, V) p(v), the sum over neighbours of symbol v of softmax(-d / temperature) over all k (kNN-KD).

    Args:
        symbols, distances: (M, k).
        classes: V.
    """
    chances = (-distances / temperature).softmax(1)
    return chances.new_zeros(len(symbols), classes).scatter_add(1, symbols.long(), chances)


def gate(values: Tensor, rate: float) -> Tensor:
    """The ceil(rate n)-th largest of n values, 0-d."""
    return values.topk(math.ceil(rate * len(values))).values[-1]
