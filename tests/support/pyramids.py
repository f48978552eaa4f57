"""Methods on feature pyramids and heads that are given: golden cases and made-up ones through the assembled method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kdbench.base.errors import UserError
from kdbench.checks.stubs import Assembled, Stub, assembled, batch_of
from kdbench.contract import Dense, NotApplicable, Objects, Out

OWN = "loss"
"""The detector's one term."""


def detector(fpn: Sequence[Tensor], strides: Sequence[int] = (), **more: Any) -> Stub:
    """A network that answers with a pyramid; its own loss is 0."""
    strides = strides or [8 * 2**i for i in range(len(fpn))]
    return Stub(Out(None, dense=Dense(tuple(fpn), tuple(strides), losses={OWN: fpn[0].new_zeros(())}, **more)))


def objects(boxes: Tensor, image: Tensor, sizes: Sequence[Sequence[float]] | Tensor) -> Objects:
    """Targets of pictures from packed boxes whose pictures ascend; all of class 0."""
    sizes = torch.as_tensor(sizes, dtype=boxes.dtype)
    counts = torch.bincount(image, minlength=len(sizes))
    return Objects(boxes, torch.zeros_like(image), counts, sizes)


def on_pyramids(
    name: str,
    values: Mapping[str, Any],
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    y: Objects | None = None,
) -> Assembled:
    """A method on the maps of two pyramids, fine to coarse."""
    rows = len(student[0])
    y = y or objects(student[0].new_zeros(0, 4), torch.zeros(0, dtype=torch.long), [[8.0, 8.0]] * rows)
    batch = batch_of(y, rows=torch.arange(rows))
    return assembled(name, values, batch, [detector(student)], detector(teacher), kind="detection", train_labels=y)


class Crossed(Stub):
    """A network whose head is entered by a function, and whose second stage says what it says of any proposals."""

    def __init__(self, out: Out, head: Any) -> None:
        super().__init__(out)
        self.head = (head,)

    def head_from(self, block: int) -> Any:
        return self.head[0]

    def roi_head(self, fpn: Sequence[Tensor], proposals: Sequence[Tensor]) -> Tensor:
        said: Tensor = self.out.dense.roi
        assert sum(len(one) for one in proposals) == len(said)
        return said


def crossed_heads(
    name: str, values: Mapping[str, Any], student: Out, teacher: Out, head: Any, y: Objects | None = None
) -> Assembled:
    """A method on answers of two heads.

    Args:
        head: what the teacher's ``head_from`` gives.
    """
    rows = len(student.dense.fpn[0])
    y = y or objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), [[8.0, 8.0]] * rows)
    batch = batch_of(y, rows=torch.arange(rows))
    return assembled(name, values, batch, [Stub(student)], Crossed(teacher, head), kind="detection", train_labels=y)


def proposing(fpn: Sequence[Tensor], strides: Sequence[int], roi: Tensor, labels: Tensor) -> Dense:
    """Answers of two stages: a pyramid and class logits of proposals, whatever these are; the detector's loss is 0."""
    boxes = (roi.new_zeros(len(roi), 4),)
    losses = {OWN: fpn[0].new_zeros(())}
    return Dense(tuple(fpn), tuple(strides), losses=losses, roi=roi, roi_labels=labels, proposals=boxes)


LEVELS, WIDTH, CLASSES = ((6, 8), (3, 4), (2, 2)), 4, 3
"""Cells of the levels of made-up detectors, their channels and classes; one anchor a cell."""
STRIDES = (8, 16, 32)
BLOCKS = (0, 2, 3)
"""Blocks whose features made-up detectors give."""
SIZES = [[48.0, 64.0], [48.0, 56.0], [40.0, 64.0]]


def anchors_of(levels: Sequence[tuple[int, int]] = LEVELS) -> tuple[Tensor, ...]:
    """Square anchors of two strides' side around the cells' centres."""
    found = []
    for (h, w), stride in zip(levels, STRIDES, strict=True):
        y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
        centre = stride * torch.stack([x, y], -1).reshape(-1, 2)
        found.append(torch.cat([centre - stride, centre + stride], 1).to(torch.get_default_dtype()))
    return tuple(found)


def sides(box: Tensor, anchors: Tensor) -> Tensor:
    """Boxes of distances to the four sides in units of half an anchor's, made positive."""
    centre, half = (anchors[:, :2] + anchors[:, 2:]) / 2, (anchors[:, 2:] - anchors[:, :2]) / 2
    out = box.exp() * half.repeat(1, 2)
    return torch.cat([centre - out[..., :2], centre + out[..., 2:]], -1)


def entered(classes: Sequence[Tensor], boxes: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """A head without weights behind any block: features of the first channels, bent, are logits and regression."""

    def rows(x: Tensor, width: int) -> Tensor:
        return (2 * x.roll(1, 1)).sin()[:, :width].permute(0, 2, 3, 1).flatten(1, 2)

    return tuple(rows(x, CLASSES) for x in classes), tuple(rows(x, 4) for x in boxes)


PROPOSALS = (5, 0, 4)
"""Of made-up detectors in each picture."""


def answers(seed: int, rows: int = 3, width: int = WIDTH, requires_grad: bool = False) -> Dense:
    """Random answers of a detector of consistent shapes."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(rows, *shape, generator=rng, dtype=torch.get_default_dtype()).requires_grad_(requires_grad)

    cells = [h * w for h, w in LEVELS]
    assigned = [
        torch.randint(-2, 4, (rows, n), generator=rng).where(torch.rand(rows, n, generator=rng) < 0.4, -1)
        for n in cells
    ]
    return Dense(
        tuple(draw(width, h, w) for h, w in LEVELS),
        STRIDES,
        tuple(draw(n, CLASSES) for n in cells),
        tuple(draw(n, 4) for n in cells),
        (),
        anchors_of(),
        tuple(assigned),
        {block: tuple((draw(width, h, w), draw(width, h, w)) for h, w in LEVELS) for block in BLOCKS},
        {OWN: torch.ones(())},
        sides,
        **_second(seed, requires_grad),
    )


def _second(seed: int, requires_grad: bool) -> dict[str, Any]:
    """What a second stage says of proposals."""
    rng, count = torch.Generator().manual_seed(100 + seed), sum(PROPOSALS)
    kind = torch.get_default_dtype()
    return {
        "proposals": tuple(torch.zeros(n, 4, dtype=kind) for n in PROPOSALS),
        "roi": torch.randn(count, CLASSES + 1, generator=rng, dtype=kind).requires_grad_(requires_grad),
        "roi_labels": torch.arange(count) % (CLASSES + 1),
    }


def tensors_of(dense: Dense) -> list[Tensor]:
    """All of its tensors that a network makes."""
    taps = [x for levels in dense.taps.values() for pair in levels for x in pair]
    return [*dense.fpn, *dense.cls, *dense.box, *taps, dense.roi]


def some_objects() -> Objects:
    """Two objects in the first picture, none in the second, two in the third."""
    boxes = torch.tensor(
        [[3.0, 5.0, 20.0, 30.0], [8.0, 8.0, 60.0, 44.0], [0.0, 0.0, 9.0, 12.0], [30.0, 10.0, 64.0, 40.0]]
    )
    return objects(boxes.to(torch.get_default_dtype()), torch.tensor([0, 0, 2, 2]), SIZES)


def made_up(name: str, student: Dense | None = None, teacher: Dense | None = None, **hp: Any) -> Assembled:
    """A method on made-up answers, its modules drawn alike each time."""
    torch.manual_seed(0)
    own, theirs = student or answers(1), teacher or answers(2)
    return crossed_heads(name, hp, Out(None, dense=own), Out(None, dense=theirs), entered, some_objects())


FPN = {"student_features": "fpn", "teacher_features": "fpn", "warmup_epochs": 0}
ON: dict[str, tuple[str, dict[str, object]]] = {
    "fitnet": ("fitnet", {"hint_stage": 0, "hint_weight": 1.0}),
    "reviewkd": ("reviewkd", FPN),
    "pkd": ("pkd", {}),
    "cwd": ("cwd", {}),
    "cwd-distiller": ("cwd-distiller", {}),
    "fgd": ("fgd", {}),
    "mgd": ("mgd", {}),
    "crosskd": ("crosskd", {}),
    "crosskd-fcos": ("crosskd-fcos", {}),
    "crosskd+pkd": ("crosskd+pkd", {}),
    "kd_dense": ("kd_dense", {}),
    "defeat": ("defeat", {}),
    "defeat-neck": ("defeat-neck", {}),
    "dkd_roi": ("dkd_roi", {}),
    "real": ("real", {}),
    "real-equal": ("real", {"weighing": "equal"}),
}
"""What is tried: a method or variant and its hyper-parameters on detectors."""


def built(name: str, student: Dense | None = None, teacher: Dense | None = None, **hp: object) -> Assembled:
    method, values = ON[name]
    return made_up(method, student, teacher, **{**values, **hp})


def refused(make: Callable[[], object]) -> str:
    """Why a method does not apply, or cannot be as it is asked for."""
    try:
        make()
    except (NotApplicable, UserError) as reason:
        return str(reason)
    raise AssertionError("nothing was refused")
