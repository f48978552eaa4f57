"""Contrastive representation distillation (Tian, Krishnan, Isola, ICLR 2020, equations 9 to 18).

Shapes: N rows of a batch, D width of the embeddings, n training rows, K negatives of each row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kdbench.contract import At, Batch, Method, Needs, Terms
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.shared.banks import MemoryBank, Negatives, multiplicity
from kdbench.methods.shared.matching import unit

FLOOR = 1e-7


class Embedding(nn.Module):
    """A linear layer from a network's pooled features to the common width, rows of unit length."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, width)

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) of (N, features); a row of zeros stays zeros."""
        return unit(self.linear(features))


class Contrast(nn.Module):
    """Noise-contrastive estimate of one network's embeddings against the memory of the other.

    Attributes:
        z: 0-d normalisation constant, fixed by the first batch ever; 0 before it.
    """

    z: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("z", torch.zeros(()))

    def forward(self, anchor: Tensor, memory: Tensor, index: Tensor, counts: Tensor, temperature: float) -> Tensor:
        """-mean_n [log p_n0 / (p_n0 + c) + sum_k log c / (p_nk + c)], 0-d, with p = exp(product / T) / Z, c = K / n.

        It is the negative log-likelihood that the positive (k = 0) is real and the negatives are noise.

        Args:
            anchor: (N, D) embeddings.
            memory: (n, D) rows of the other network, constants.
            index: (N,) memory row that is each anchor's positive.
            counts: (N, n) how often each memory row is an anchor's negative.
            temperature: divides the products.
        """
        scores = (anchor @ memory.detach().T / temperature).exp()
        own = scores.gather(1, index[:, None]).squeeze(1)
        n, counts = len(memory), counts.to(scores)
        drawn = counts.sum(dim=1)
        self._fix(n * ((counts * scores).sum() + own.sum()) / (drawn + 1).sum())
        noise = (drawn / n)[:, None]
        p_own, p = own / self.z, scores / self.z
        real = (p_own / (p_own + noise[:, 0] + FLOOR)).log()
        fake = (counts * (noise / (p + noise + FLOOR)).log()).sum(dim=1)
        return -(real + fake).mean()

    @torch.no_grad()
    def _fix(self, estimate: Tensor) -> None:
        self.z.copy_(torch.where(self.z > 0, self.z, estimate.to(self.z)))  # in place: a graph keeps its address


class CRD(Method):
    """Each network's embedding of a row is told from embeddings of other classes in the other network's memory."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        student = frozenset({"logits", "emb"})
        teacher = student if hp.kd_weight else frozenset({"emb"})
        kinds = frozenset({"classification"} if hp.kd_weight else {"classification", "hashing"})
        return Needs(kinds=kinds, student=student, teacher=teacher, batch=frozenset({"index"}), one_process=None)

    def setup(self) -> None:
        task, hp = self.task, self.hp
        self.negatives = Negatives(task.train_labels, hp.negatives)
        widths = [task.probe(net).emb.shape[1] for net in (self.student, self.teacher)]
        self.embeddings = nn.ModuleList(Embedding(width, hp.width) for width in widths)
        self.banks = nn.ModuleList(MemoryBank(task.n_train, hp.width) for _ in widths)
        self.contrasts = nn.ModuleList(Contrast() for _ in widths)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp, gather = self.hp, self.task.gather
        out, target = self.student(batch), self.teacher(batch)
        embed_s, embed_t = self.embeddings
        v_s, v_t = gather(embed_s(out.emb)), gather(embed_t(target.emb))
        y, index = gather(batch.y), gather(batch.index)
        terms = {
            "task": hp.ce_weight * self.task.loss(out, batch),
            "contrast": hp.contrast_weight * self._contrast(v_s, v_t, index, self.negatives.draw(y, at.rng)),
        }
        if hp.kd_weight:
            terms["kd"] = hp.kd_weight * kd_loss(out.logits, target.logits, hp.temperature)
        return Terms(terms, handed=(index, v_s.detach(), v_t.detach()))

    def _contrast(self, v_s: Tensor, v_t: Tensor, index: Tensor, drawn: Tensor) -> Tensor:
        """Each network's embeddings against the memory of the other, summed, 0-d.

        Args:
            v_s, v_t: (N, D) embeddings of the student and of the teacher.
            index: (N,) rows of the memories that are their own.
            drawn: (N, K) rows that are their negatives.
        """
        memory_s, memory_t = (bank.rows for bank in list[Any](self.banks))
        counts = multiplicity(drawn, len(memory_s))
        contrast_s, contrast_t = self.contrasts
        temperature = self.hp.contrast_temperature
        own = contrast_s(v_s, memory_t, index, counts, temperature)
        return own + contrast_t(v_t, memory_s, index, counts, temperature)

    def after_step(self, batch: Batch, at: At) -> None:
        index, *embedded = batch.handed
        for bank, rows in zip(list[Any](self.banks), embedded, strict=True):
            bank.update(index, rows, self.hp.momentum, batch.views)
