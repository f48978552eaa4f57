"""What a network of dense prediction returns beside its maps: the pyramid, and what its head says at every cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from kdbench.contract.errors import NotApplicable

Levels = tuple[Tensor, ...]
"""One tensor a level of the pyramid, fine to coarse."""
Decode = Callable[[Tensor, Tensor], Tensor]
MaskHead = Callable[[Sequence[Tensor], Sequence[Tensor]], list[Tensor]]


class Later(Mapping[str, Tensor]):
    """Terms that are computed when they are first read, so that answering costs no loss."""

    def __init__(self, make: Callable[[], Mapping[str, Tensor]]) -> None:
        self._make = make
        self._made: Mapping[str, Tensor] | None = None

    def _terms(self) -> Mapping[str, Tensor]:
        if self._made is None:
            self._made = self._make()
        return self._made

    def __getitem__(self, name: str) -> Tensor:
        return self._terms()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._terms())

    def __len__(self) -> int:
        return len(self._terms())


class _Fields(NamedTuple):
    """The fields of :class:`Dense`, absent ones too."""

    fpn: Levels
    strides: tuple[int, ...]
    cls: Levels = ()
    box: Levels = ()
    quality: Levels = ()
    anchors: Levels = ()
    assigned: Levels = ()
    taps: Mapping[int, tuple[tuple[Tensor, Tensor], ...]] = {}
    losses: Mapping[str, Tensor] = {}
    decode: Decode | None = None
    proposals: tuple[Tensor, ...] = ()
    roi: Tensor = None  # type: ignore[assignment]  # reading what is absent raises
    roi_box: Tensor = None  # type: ignore[assignment]
    roi_labels: Tensor = None  # type: ignore[assignment]
    bins: tuple[tuple[float, ...], ...] = ()
    masks: MaskHead | None = None


class Dense(_Fields):
    """What a detector returns: of levels l = 0 .. L - 1, fine to coarse, each of h_l x w_l cells with A anchors a cell.

    A field is given, or absent: reading an absent one raises :class:`NotApplicable`. A teacher gives what the method
    names in ``Needs.teacher`` and no more, so that a head that nobody reads is not computed; the words are the names of
    these fields, and ``taps:<i>``.

    Places are in pixels of the picture that the targets' are in, which a network of a reduced input sees smaller.

    Attributes:
        fpn: (N, C, h_l, w_l), the maps that the head reads, after the level's last convolution.
        strides: pixels from one cell to the next, of each level.
        cls: (N, h_l w_l A, K) class logits, rows of cells first, then cells, then anchors.
        box: (N, h_l w_l A, 4) raw regression, in the units of the detector, or logits of ``bins``; ``decode`` makes
            boxes of it.
        quality: (N, h_l w_l A) logits of how well a cell's box fits (centre-ness), only of detectors that have it; a
            detection's score is then the root of both probabilities' product.
        anchors: (h_l w_l A, 4) x0, y0, x1, y1, the same in all pictures.
        assigned: (N, h_l w_l A) int64, the assignment that the detector's loss uses: the number of the object in the
            batch's packed :class:`Objects`, -1 for background, -2 for what is left out of the loss. Where asked for.
        taps: block of the head's branches to (class feature, box feature) of each level, each (N, C, h_l, w_l), before
            the block's activation and after its norm; block 0 is the pyramid. Only blocks asked for.
        losses: the detector's own terms by name, 0-d, computed when they are first read; of batches with objects, and
            not of a teacher.
        bins: of heads whose ``box`` holds distributions, (N, Q, sum of bins) logits, edge by edge: what each bin of
            each distribution stands for.
        decode: ``decode(box, anchors)``: (..., 4) raw regression and anchors, broadcast against it, to boxes.
        proposals: of a detector of two stages, one tensor a picture, (P_n, 4) boxes that its second stage looks at: in
            training those sampled for the loss, constants. R is their number in all pictures.
        roi: (R, K + 1) class logits of the proposals, picture after picture; the last is that of background.
        roi_box: (R, K, 4) raw regression of each class, which ``decode`` makes boxes of with the proposals.
        roi_labels: (R,) int64 classes of the proposals, K for background. Where asked for.
        masks: of a detector that gives masks, ``masks(boxes, labels)``: of each picture (D, 4) boxes and (D,) classes
            to (D, m, m) probabilities of what lies in the box.
    """

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name in _OPTIONAL and not _given(value):
            raise NotApplicable(f"a network that it reads gives no {name}, but {', '.join(sorted(self.words))}")
        return value

    def has(self, field: str) -> bool:
        """Whether the network gave a field; ``taps:<i>`` asks for a block."""
        return field in self.words

    @property
    def answered(self) -> tuple[Tensor, ...]:
        """What detections are made from."""
        many = [level for name in ("cls", "box") if self.has(name) for level in getattr(self, name)]
        return (*many, *(getattr(self, name) for name in ("roi", "roi_box") if self.has(name)))

    @property
    def words(self) -> frozenset[str]:
        """What it gives, in the words of ``Needs``."""
        values: dict[str, Any] = dict(zip(self._fields, tuple(self), strict=True))
        taps = values.pop("taps")
        filled = {name for name, value in values.items() if _given(value)}
        return frozenset(filled | {f"taps:{block}" for block in taps})

    def float(self) -> Dense:
        """The same as float32."""
        values: dict[str, Any] = dict(zip(self._fields, tuple(self), strict=True))
        for name in ("fpn", "cls", "box", "quality", "anchors", "proposals"):
            values[name] = tuple(t.float() for t in values[name])
        for name in ("roi", "roi_box"):
            values[name] = None if values[name] is None else values[name].float()
        values["taps"] = {
            block: tuple((one.float(), other.float()) for one, other in levels)
            for block, levels in values["taps"].items()
        }
        return Dense(**values)


def _given(value: Any) -> bool:
    return isinstance(value, Later) or (value is not None and value != () and value != {})


_OPTIONAL = frozenset(
    {"cls", "box", "quality", "anchors", "assigned", "losses", "proposals", "roi", "roi_box", "roi_labels", "bins"}
)
