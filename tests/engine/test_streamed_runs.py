"""Runs on pictures with masks that are read when drawn: the bits of held pictures, stopped and gone on too."""

from __future__ import annotations

from pathlib import Path

import torch
from objects_on_disk import coco

from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.checks.watch import first_difference, state_copy
from kdbench.data.decode.place import Place
from kdbench.data.decode.specification import SetSpec
from kdbench.data.feed import described
from kdbench.data.feed.dataset import Dataset
from kdbench.engine import teachers
from kdbench.engine.assemble import Prepared, prepare
from kdbench.engine.place import RunPlace
from kdbench.engine.scoring import Scorer
from kdbench.engine.stage import StageRun
from kdbench.specs.config import RunConfig, run_config

CPU = torch.device("cpu")
NETS = [f"pair.{side}.net=mask_rcnn_c8s4-16a4p20r16f16m1:cell_w4d1" for side in ("student", "teachers.image")]


def started(of: RunConfig, rows: Dataset, folder: Path) -> tuple[Prepared, StageRun]:
    untrained = {role: teachers.untrained(of.task, role, rows, CPU) for role in of.task.pair.teachers}
    made = prepare(of, 0, RunPlace(CPU, Home(folder), None, folder / "run"), rows, untrained)
    made.method.train()
    return made, StageRun(made.method, next(iter(made.method.stages())), made.task)


def finished(run: StageRun) -> None:
    while run.step_number < run.total:
        run.step()


def test_a_run_on_streamed_pictures_stops_and_goes_on_to_the_bits_of_one_on_held_ones(tmp_path: Path) -> None:
    folder = coco(tmp_path / "mine", {"train": 6, "test": 3}, masks=True)
    of = run_config("plain", "shapes/masks", [*NETS, "train.epochs=2", "train.batch=3"])
    data = []
    for kind in ("image", "picture"):
        image = {"kind": kind, "column": "image", "size": 64, "fit": "scale", "mean": [0.5], "std": [0.2]}
        spec = SetSpec.model_validate({
            "name": "mine", "title": "mine", "folders": ["mine"], "path": str(folder), "inputs": {"image": image},
            "objects": {"column": "objects", "segments": "segmentation", "classes": ["bolt", "nut"]},
            "licence": "none", "megabytes": 1,
        })  # fmt: skip
        data.append(described.load(spec, {}, Place(None, tmp_path / kind, Progress.silent())))
    held, whole = started(of, data[0], tmp_path / "a")
    finished(whole)
    _, part = started(of, data[1], tmp_path / "b")
    for _ in range(2):
        part.step()
    state = part.state()
    streamed, rest = started(of, data[1], tmp_path / "c")
    rest.load(state)
    finished(rest)
    assert first_difference(state_copy(held.method.student), state_copy(streamed.method.student)) is None
    scores = [Scorer(one.task).all(one.method.deployed) for one in (held, streamed)]
    assert scores[0] == scores[1]
