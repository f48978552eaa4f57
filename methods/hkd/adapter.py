"""Holistic knowledge distillation with graph networks (Zhou et al., ICCV 2021, arXiv 2108.05507).

Shapes: B rows of a batch, C classes, D width of the embeddings, n training rows, k neighbours.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.contract import At, Batch, Method, Needs, TaskInfo, Terms
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.shared.banks import MemoryBank, Negatives, fewest_negatives, info_nce, multiplicity
from kdbench.methods.shared.matching import unit

NORM_FLOOR = 1e-7


class Embedding(nn.Module):
    """One network's side: a linear layer to the common width and a graph layer on top.

    Args:
        features: width of the network's pooled features.
        width: D.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(features, width)
        self.graph = nn.Linear(2 * width, width)
        nn.init.xavier_normal_(self.graph.weight, gain=2**0.5)

    def nodes(self, features: Tensor) -> Tensor:
        """(B, D) unit embeddings of (B, features)."""
        return unit(self.embed(features))

    def mixed(self, nodes: Tensor, nearest: Tensor) -> Tensor:
        """(B, D) unit rows of one hop of graph convolution (TAGConv): a node beside its (B, k) neighbours' mean."""
        return unit(self.graph(torch.cat([nodes, nodes[nearest].mean(dim=1)], dim=1)))


def neighbours(logits: Tensor, k: int) -> Tensor:
    """(B, k) rows of nearest predicted class distribution by cosine, each row itself always among its own.

    Args:
        logits: (B, C), B >= k; no gradient flows back to them.
    """
    p = logits.detach().softmax(dim=1)
    norm = p.norm(dim=1)
    distance = 1 - p @ p.T / (norm[:, None] * norm).clamp_min(NORM_FLOOR)
    return distance.fill_diagonal_(-1.0).topk(k, dim=1, largest=False).indices


def smoothed(stored: Tensor, current: Tensor, share: float) -> Tensor:
    """(B, D) unit targets, constants: ``share`` of the stored rows, the rest of the current ones."""
    return unit(share * stored + (1 - share) * current).detach()


def contrasts(
    anchors: Sequence[Tensor],
    positives: Sequence[Tensor],
    banks: Sequence[Tensor],
    log_counts: Tensor,
    tau: float,
    negatives_of: str = "own",
) -> Tensor:
    """(2,) InfoNCE of student anchors and of teacher anchors. Every pair of arguments is the student's, the teacher's.

    Args:
        anchors: (B, D) embeddings.
        positives: (B, D), constants; each anchor is drawn to the other network's.
        banks: (n, D), before this step's update.
        log_counts: (B, n) log of how often each row was drawn as a negative.
        negatives_of: ``own`` takes an anchor's negatives from its own network's bank, ``cross`` from the other's.
    """
    negatives = banks if negatives_of == "own" else banks[::-1]
    parts = zip(anchors, positives[::-1], negatives, strict=True)
    return torch.stack([info_nce(anchor, positive.detach(), bank, log_counts, tau) for anchor, positive, bank in parts])


class HKD(Method):
    """Contrast of the networks' embeddings, each by itself and mixed with its neighbours in the batch's graph."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        fields = frozenset({"logits", "emb"})
        return Needs(student=fields, teacher=fields, batch=frozenset({"index"}), one_process=None)

    def setup(self) -> None:
        task, hp = self.task, self.hp
        self.negatives = Negatives(task.train_labels, min(hp.negatives, fewest_negatives(task.train_labels)))
        probed = [task.probe(net) for net in (self.student, self.teacher)]
        widths = [out.emb.shape[1] for out in probed]
        self.embeddings = nn.ModuleList(Embedding(width, hp.width) for width in widths)
        self.banks = nn.ModuleList(MemoryBank(task.n_train, hp.width) for _ in widths)
        _warn(task, hp.neighbours, probed[1].logits)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp, gather = self.hp, self.task.gather
        sides: list[Any] = list(self.embeddings)
        outs = (self.student(batch), self.teacher(batch))
        nodes = [gather(side.nodes(out.emb)) for side, out in zip(sides, outs, strict=True)]
        y, index = gather(batch.y), gather(batch.index)
        banks: list[Any] = [bank.rows for bank in self.banks]
        stored = [bank[index] for bank in banks]
        log_counts = multiplicity(self.negatives.draw(y, at.rng), len(banks[0])).log()
        contrast = partial(contrasts, banks=banks, log_counts=log_counts, tau=hp.tau, negatives_of=hp.negatives_of)
        terms = {
            "task": hp.ce_weight * self.task.loss(outs[0], batch),
            "individual": hp.hkd_weight * contrast(nodes, stored).sum(),
            "graph": nodes[0].new_zeros(()),
        }
        graph = len(y) >= hp.neighbours
        if graph:
            nearest = [neighbours(gather(out.logits), hp.neighbours) for out in outs]
            mixed = [side.mixed(node, near) for side, node, near in zip(sides, nodes, nearest, strict=True)]
            targets = [smoothed(old, new, hp.smoothing) for old, new in zip(stored, mixed, strict=True)]
            terms["graph"] = hp.hkd_weight * contrast(mixed, targets).sum()
        if hp.kd_weight:
            terms["kd"] = hp.kd_weight * kd_loss(outs[0].logits, outs[1].logits, hp.temperature)
        return Terms(terms, handed=(index, *(node.detach() for node in nodes)) if graph else ())

    def after_step(self, batch: Batch, at: At) -> None:
        if batch.handed == ():  # no graph was built
            return
        index, *nodes = batch.handed
        for bank, rows in zip(list[Any](self.banks), nodes, strict=True):
            bank.update(index, rows, self.hp.momentum, batch.views)


def _warn(task: TaskInfo, least: int, teacher: Tensor) -> None:
    """Warns of batches too small for a graph of ``least`` neighbours, and of a teacher with equal logits (2, C)."""
    rows = min(task.batch, task.n_train)
    if rows < least:
        warnings.warn(
            f"hkd: batches of {rows} rows are smaller than method.neighbours={least}, so no graph is built "
            "and the banks stay as they are",
            stacklevel=3,
        )
    if torch.equal(teacher[0], teacher[1]):
        warnings.warn("hkd: the teacher predicts two rows alike, so its graph's neighbours mean little", stacklevel=3)
