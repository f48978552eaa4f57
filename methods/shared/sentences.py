"""What methods of sentences share: what a network writes for the training rows, and its states there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kdbench.base.subwords import sacrebleu
from kdbench.contract import Network, Sentences, TaskInfo
from kdbench.contract.sentences import EOS, PAD, first

TEXTS = frozenset({"translation", "language"})
"""Kinds whose targets are sentences."""
CHUNK = 256
"""Rows that a network sees at a time."""
BLOCK = 512
"""States compared with all others at a time."""
Choose = Callable[[Sequence[Sequence[int]], Sequence[int]], Sequence[int]]
"""Of what a beam found, the best first, and the reference: the one that is kept."""


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

    Returns:
        ``symbols`` (n_train, k) int32 and ``distances`` (n_train, k), squared, the smallest first.
    """
    parts = torch.arange(task.n_rows, device=task.device).split(CHUNK)
    outs = [(batch.index, net(batch).emb) for batch in (task.wrap(task.rows(part)) for part in parts)]
    states = torch.cat([emb for _, emb in outs])[torch.cat([index for index, _ in outs]).argsort()]
    norms = states.square().sum(1)
    symbols, distances = [], []
    for part, own in zip(states.split(BLOCK), norms.split(BLOCK), strict=True):
        near = (own[:, None] + norms - 2 * part @ states.T).topk(k, largest=False)
        symbols.append(task.train_labels[near.indices].int())
        distances.append(near.values.clamp_min(0.0))
    return {"symbols": torch.cat(symbols), "distances": torch.cat(distances)}


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
