"""What a network returns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor

from kdbench.base.once import said_once
from kdbench.contract.dense import Dense
from kdbench.contract.errors import NotApplicable

FIRST = 4
"""The number of the last field that there was at first."""


class _Fields(NamedTuple):
    """The fields of :class:`Out`, absent ones too."""

    logits: Tensor | None
    maps: tuple[Tensor, ...] = ()
    preact: tuple[Tensor, ...] = ()
    stem: Tensor | None = None
    emb: Tensor | None = None
    code: Tensor | None = None
    dense: Dense | None = None
    attention: tuple[Tensor, ...] = ()
    patches: tuple[Tensor, Tensor] | None = None
    tokens: tuple[Tensor, ...] = ()
    qkv: tuple[Tensor, ...] = ()


class Out(_Fields):
    """What every network returns.

    A field is given, or absent: None, and ``()`` of those that hold several. Reading ``logits``, ``stem``, ``emb``,
    ``code``, ``dense`` or ``patches`` where it is absent raises :class:`NotApplicable`, so a method reads without
    asking; what may do without one asks :meth:`has`.

    Attributes:
        logits: (N, C) scores of a classifier, (N,) prediction of a regression in scaled units; absent of a teacher that
            only offers stored features.
        maps: stage outputs after the activation, shallow to deep, each (N, C, H, W) or (N, C, L).
        preact: the same stages before the activation.
        stem: output of the stem after the activation.
        emb: (N, D) pooled penultimate features, the input of the classifier; of a hashing net its bits.
        code: (N, L) scores of a hashing net, whose signs are the bits; its ``logits`` are the same.
        dense: pyramid and head of a detector, which has no class scores of a row and no embedding; its ``maps`` are
            those of its backbone.
        attention: of a net with attention over maps, before its sigmoids, shallow to deep: of each block (N, C, 1, 1)
            of channels, then (N, 1, H, W) of positions.
        patches: what a net with a decoder says of the P numbers of each patch, and what they are, (N, L, P) both, in
            the order of the picture's rows (:func:`patched`); given where the batch hides some.
        tokens: of a vision transformer, what each block gives: (N, 1 + L, D), the class token first, then the patches
            that are seen in the order of the picture's rows.
        qkv: queries, keys and values of each block, (N, 3, heads, 1 + L, D / heads).
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

    @property
    def code(self) -> Tensor:
        return _given(self, "code", self[5])

    @property
    def dense(self) -> Dense:
        return _given(self, "dense", self[6])

    @property
    def patches(self) -> tuple[Tensor, Tensor]:
        return _given(self, "patches", self[8])

    def __iter__(self) -> Iterator[Any]:
        """Five fields, as at first; as many more as it takes to reach the last that is given."""
        last = max((n for n, name in enumerate(self._fields) if n > FIRST and self.has(name)), default=FIRST)
        return iter(self[: last + 1])

    def _replace(self, **changed: Any) -> Out:
        return Out(**{**dict(zip(self._fields, self[:], strict=True)), **changed})

    def has(self, field: str) -> bool:
        """Whether the network gave a field."""
        value = self[self._fields.index(field)]
        return value is not None and value != ()

    @property
    def words(self) -> frozenset[str]:
        """What the network gave, in the words of ``Needs``."""
        dense = self[6]
        own = {field for field in self._fields if field != "dense" and self.has(field)}
        return frozenset(own if dense is None else own | dense.words)

    @property
    def answered(self) -> tuple[Tensor, ...]:
        """What answers are made from: class scores, what a detector's head says at its cells, or else the embedding."""
        dense = self[6]
        if dense is not None:
            return dense.answered
        return (self.logits if self.has("logits") else self.emb,)

    def float(self) -> Out:
        """The same as float32."""

        def floated(value: Any) -> Any:
            if isinstance(value, Tensor | Dense):
                return value.float()
            return value if value is None else tuple(t.float() for t in value)

        return Out(*map(floated, self[:]))


def bits(code: Tensor) -> Tensor:
    """(N, L) bits -1 and 1 of scores, by CIBHash (Qiu et al., IJCAI 2021): the signs of ``sigmoid(code) - 1/2``.

    The slope of the sign is taken as 1, so that the sigmoid's is what stays. A score of exactly 0 gives 0, as there.
    """
    share = code.sigmoid()
    return (share - 0.5).sign().detach() + (share - share.detach())


def _given(out: Out, name: str, value: Any) -> Any:
    """A field's value; the absent one raises :class:`NotApplicable`."""
    if value is None:
        said_once(f"reading Out.{name} of a network without it raises NotApplicable; ask out.has({name!r}) first", 4)
        there = ", ".join(field for field in out._fields if out.has(field)) or "nothing"
        raise NotApplicable(f"a network that it reads gives no {name}, but {there}")
    return value
