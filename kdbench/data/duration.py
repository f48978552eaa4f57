"""About how long a task takes: multiply-adds of its nets times rows and epochs, over a device's speed. Needs no torch.

A rough guide for a person who chooses a task: within a factor of three or so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kdbench.specs.task import TaskSpec, Teacher

AT_32 = {
    "resnet8": 12.51, "resnet14": 26.66, "resnet20": 40.82, "resnet32": 69.13, "resnet44": 97.44, "resnet56": 125.75,
    "resnet110": 253.16, "resnet8x4": 177.07, "resnet32x4": 1083.04, "resnet18": 555.47, "resnet34": 1159.4,
    "resnet50": 1298.01, "wrn_16_1": 26.66, "wrn_16_2": 101.12, "wrn_40_1": 83.29, "wrn_40_2": 327.61, "vgg8": 96.19,
    "vgg11": 209.44, "vgg13": 284.94, "vgg16": 398.18, "vgg19": 511.43, "mobilenetv2": 6.52, "mobilenetv2_s1": 25.0,
    "shufflenetv1": 38.69, "shufflenetv2": 44.50,
}  # fmt: skip
"""Million multiply-adds of a forward pass on 3x32x32."""
AT_224 = {
    "resnet18": 1814.0, "resnet34": 3664.0, "resnet50": 4089.0, "mobilenetv1_100": 569.0, "convnext_tiny": 4456.0,
    "convnext_atto": 546.0,
}  # fmt: skip
"""The same of timm's nets on 3x224x224."""
CLIPS = {"r2plus1d_18": 21_350.0, "r2plus1d_34": 75_000.0, "r2plus1d_tiny": 120.0}
"""The same on 3x16x112x112."""
BACKWARD = 2.0
"""Work of a backward pass over that of a forward pass."""


@dataclass(frozen=True)
class Speed:
    """Million multiply-adds a second in training, and seconds that every step costs on top."""

    macs: float
    step: float


def speed() -> tuple[str, Speed]:
    """This machine's device and its rough speed: one GPU if there is a driver, else its cores."""
    if Path("/proc/driver/nvidia/version").exists():
        return "cuda", Speed(3e6, 0.010)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return "cpu", Speed(6e3 * cores, 0.002)


def forward(net: str, shape: tuple[int, ...]) -> float | None:
    """Million multiply-adds of a forward pass on one row; None for a net that is not known here."""
    width = re.fullmatch(r"(convnet|convnet1d|mlp)_w(\d+)", net)
    if width is not None:
        return _by_width(width[1], int(width[2]), shape)
    if net == "linear":
        return shape[0] * 100 / 1e6
    area = shape[-1] * shape[-2] if len(shape) > 2 else 0
    if net in AT_32:
        return AT_32[net] * area / 32**2
    if net in CLIPS:
        return CLIPS[net] * shape[1] * area / (16 * 112**2)
    name = net.removeprefix("timm:").split(".")[0]
    return AT_224[name] * area / 224**2 if name in AT_224 else None


def _by_width(family: str, width: int, shape: tuple[int, ...]) -> float:
    if family == "mlp":
        return shape[0] * width / 1e6
    kernel, places = (9, float(shape[-1] * shape[-2])) if family == "convnet" else (3, float(shape[-1]))
    shrink = 4 if family == "convnet" else 2
    stages = ((shape[0], width, 1), (width, 2 * width, shrink), (2 * width, 4 * width, shrink**2))
    return sum(kernel * inputs * outputs * places / less for inputs, outputs, less in stages) / 1e6


def minutes(
    spec: TaskSpec, rows: int, shapes: Mapping[str, tuple[int, ...]], student_rows: int, at: Speed
) -> tuple[float | None, float | None]:
    """Minutes of one kd run with one seed, and of training the pair's teachers once.

    Args:
        rows: training rows of teachers.
        shapes: of one row of each input.
        student_rows: training rows of the student.

    Returns:
        None where a net is not known.
    """
    student = forward(spec.pair.student.net, shapes[spec.pair.student.input])
    teachers = {name: forward(t.net, shapes[t.input]) for name, t in spec.pair.teachers.items()}
    if student is None or any(cost is None for cost in teachers.values()):
        return None, None
    first = next((cost or 0.0 for cost in teachers.values()), 0.0)
    run = _seconds(student * (1 + BACKWARD) + first, student_rows, spec.train.epochs, spec.train.batch, at)
    made = 0.0
    for name, teacher in spec.pair.teachers.items():
        if teacher.weights == "auto":
            made += _seconds((teachers[name] or 0.0) * (1 + BACKWARD), rows, *_protocol(spec, teacher), at)
    return run / 60, made / 60


def _protocol(spec: TaskSpec, teacher: Teacher) -> tuple[int, int]:
    return teacher.train.epochs or spec.train.epochs, teacher.train.batch or spec.train.batch


def _seconds(macs_a_row: float, rows: int, epochs: int, batch: int, at: Speed) -> float:
    steps = epochs * -(-rows // batch)
    return steps * at.step + epochs * rows * macs_a_row / at.macs
