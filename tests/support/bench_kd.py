"""The KD that benches time: resnet32x4 -> resnet8x4, CIFAR-100's shapes, batch 64, random rows and weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import torch

from kdbench.base.home import Home
from kdbench.contract import Batch, Network, Rows
from kdbench.data.feed.dataset import Dataset, Transform
from kdbench.engine.assemble import Prepared, prepare
from kdbench.engine.place import RunPlace
from kdbench.engine.stage import StageRun
from kdbench.engine.task import build_network
from kdbench.engine.teachers import TrainedTeacher
from kdbench.specs.config import run_config

TASK = "cifar100/resnet32x4-resnet8x4"
CLASSES, BATCH = 100, 64


def random_rows(count: int, size: int = 32) -> Dataset:
    """Random training rows of CIFAR-100's shape, every class among them, and a fifth as many for the test.

    Args:
        size: pixels of a side.
    """
    rng = torch.Generator().manual_seed(0)
    x = torch.randint(256, (count, 3, size, size), generator=rng, dtype=torch.uint8)
    y = torch.arange(count) % CLASSES
    train, test = (Rows({"image": x[:rows]}, y[:rows]) for rows in (count, count // 5))
    norm = {"image": Transform((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))}
    return Dataset("random", train, test, CLASSES, norm, properties=frozenset({"rgb"}))


class Pair(NamedTuple):
    """Networks as they are initialised; speed does not depend on weights."""

    student: Network
    teacher: Network


def networks(rows: Dataset) -> Pair:
    """The student and its teacher, frozen and in eval mode."""
    torch.manual_seed(0)
    student, teacher = (build_network(net, "image", rows) for net in ("resnet8x4", "resnet32x4"))
    return Pair(student, teacher.eval().requires_grad_(False))


class Engine(NamedTuple):
    """The engine's KD, ready to step."""

    prepared: Prepared
    run: StageRun


def engine(
    rows: Dataset,
    nets: Pair,
    folder: Path,
    overrides: Sequence[str] = (),
    device: str = "cpu",
    draw: Callable[[int], Batch] | None = None,
) -> Engine:
    """The engine's KD with the weights of ``nets``.

    Args:
        overrides: engine options.
        draw: batches to take instead of those of the engine's loader.
    """
    facts = {"arch": "resnet32x4", "source": "random"}
    trained = {"image": TrainedTeacher("image", deepcopy(nets.teacher).to(device), 0.0, facts)}
    place = RunPlace(torch.device(device), Home(folder), None, folder / "run")
    prepared = prepare(run_config("kd", TASK, overrides), 0, place, rows, trained)
    prepared.method.student.load_state_dict(nets.student.state_dict())
    stage = next(prepared.method.stages())
    return Engine(prepared, StageRun(prepared.method.train(), stage, prepared.task, draw))


def pixels(rows: Dataset) -> tuple[object, list[int]]:
    """(N, 32, 32, 3) uint8 training pictures and their N classes, as torchvision's CIFAR-100 holds them."""
    return rows.train.x["image"].permute(0, 2, 3, 1).contiguous().numpy(), rows.train.y.tolist()
