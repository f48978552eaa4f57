"""What a network returns."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from kdbench.base.once import said_once
from kdbench.contract.errors import NotApplicable


class _Fields(NamedTuple):
    """The fields of :class:`Out`, absent ones too."""

    logits: Tensor | None
    maps: tuple[Tensor, ...] = ()
    preact: tuple[Tensor, ...] = ()
    stem: Tensor | None = None
    emb: Tensor | None = None


class Out(_Fields):
    """What every network returns.

    A field is given, or absent: None, and ``()`` of maps. Reading ``logits``, ``stem`` or ``emb`` where it is absent
    raises :class:`NotApplicable`, so a method reads without asking; what may do without a field asks :meth:`has`.

    Attributes:
        logits: (N, C) scores of a classifier, (N,) prediction of a regression in scaled units; absent of a teacher that
            only offers stored features.
        maps: stage outputs after the activation, shallow to deep, each (N, C, H, W) or (N, C, L).
        preact: the same stages before the activation.
        stem: output of the stem after the activation.
        emb: (N, D) pooled penultimate features, the input of the classifier.
    """

    __slots__ = ()

    @property
    def logits(self) -> Tensor:
        return _given(self, "logits", self[0])

    @property
    def stem(self) -> Tensor:
        return _given(self, "stem", self[3])

    @property
    def emb(self) -> Tensor:
        return _given(self, "emb", self[4])

    def has(self, field: str) -> bool:
        """Whether the network gave a field."""
        value = self[self._fields.index(field)]
        return value is not None and value != ()

    def float(self) -> Out:
        """The same as float32."""
        logits, maps, preact, stem, emb = self
        logits, stem, emb = (t if t is None else t.float() for t in (logits, stem, emb))
        return Out(logits, tuple(t.float() for t in maps), tuple(t.float() for t in preact), stem, emb)


def _given(out: Out, name: str, value: Tensor | None) -> Tensor:
    """A field's value; the absent one raises :class:`NotApplicable`."""
    if value is None:
        said_once(f"reading Out.{name} of a network without it raises NotApplicable; ask out.has({name!r}) first", 4)
        there = ", ".join(field for field in out._fields if out.has(field)) or "nothing"
        raise NotApplicable(f"a network that it reads gives no {name}, but {there}")
    return value
