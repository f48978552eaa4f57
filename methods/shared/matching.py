"""Feature maps of two networks made comparable: pairing of stages, pooling to one size, L2 normalisation.

Maps are (N, C, *size) with one axis of positions (series), two (images) or three (clips).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kdbench.base.errors import UserError
from kdbench.contract import NotApplicable

WINDOWED: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
ADAPTIVE: dict[int, Any] = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
"""Average pooling by the number of axes of a map."""


def unit(x: Tensor, dim: int = -1, eps: float = 1e-12) -> Tensor:
    """``x`` divided by its L2 norm along ``dim``; a norm below ``eps`` counts as ``eps``.

    Equal to ``F.normalize``, but a zero vector has gradient 0 where that has one of size ``1 / eps``.
    """
    norm = x.norm(dim=dim, keepdim=True)
    return x.masked_fill(norm == 0, 0.0) / norm.clamp_min(eps)


def with_axes(x: Tensor, axes: int) -> Tensor:
    """A map with at least so many axes of positions; those it lacks are of size 1 and last."""
    return x.reshape(*x.shape, *[1] * (axes + 2 - x.ndim))


def same_axes(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps with the axes of the one that has more."""
    axes = max(a.ndim, b.ndim) - 2
    return with_axes(a, axes), with_axes(b, axes)


def pool(x: Tensor, size: Sequence[int]) -> Tensor:
    """Adaptive average pooling of (N, C, *x's size) to (N, C, *size); a map of that size is returned as it is."""
    here = x.shape[2:]
    if tuple(here) == tuple(size):
        return x
    if all(h % s == 0 for h, s in zip(here, size, strict=True)):  # the same windows, with a deterministic gradient
        return WINDOWED[len(here)](x, [h // s for h, s in zip(here, size, strict=True)])
    return ADAPTIVE[len(here)](x, list(size))


def match(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps pooled to their common size, on each axis the smaller of the two; channels stay as they are."""
    a, b = same_axes(a, b)
    size = [min(sizes) for sizes in zip(a.shape[2:], b.shape[2:], strict=True)]
    return pool(a, size), pool(b, size)


def pair_stages(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    student_stages: Sequence[int] = (),
    teacher_stages: Sequence[int] = (),
) -> list[tuple[Tensor, Tensor]]:
    """Pairs of student and teacher maps with equal numbers of axes, shallow to deep; the teacher's are constants.

    Args:
        student, teacher: all stage maps of each network.
        student_stages, teacher_stages: numbers of the stages to pair, counted from 1, in the order they are paired;
            empty for all of them.

    Raises:
        NotApplicable: the networks have unequal numbers of stages and none were chosen.
        UserError: unequal numbers were chosen, or a stage that a network lacks.
    """
    chosen_s = _chosen(student, student_stages, "student")
    chosen_t = _chosen(teacher, teacher_stages, "teacher")
    if len(chosen_s) != len(chosen_t):
        counts = f"{len(chosen_s)} student stages and {len(chosen_t)} teacher stages"
        if student_stages and teacher_stages:
            raise UserError(f"student_stages and teacher_stages name {counts}; name equally many")
        raise NotApplicable(f"{counts} cannot be paired one to one; choose with student_stages and teacher_stages")
    return [same_axes(s, t.detach()) for s, t in zip(chosen_s, chosen_t, strict=True)]


def _chosen(maps: Sequence[Tensor], stages: Sequence[int], whose: str) -> list[Tensor]:
    if missing := [stage for stage in stages if not 1 <= stage <= len(maps)]:
        raise UserError(f"{whose}_stages names stage {missing[0]}; the {whose} has stages 1 to {len(maps)}")
    return [maps[stage - 1] for stage in stages] if stages else list(maps)
