"""Runs on pictures with masks that are read when drawn: the bits of held pictures, stopped and gone on too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from objects_on_disk import coco

import kdbench
from kdbench import scaffold
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
FAULTS = Path(__file__).parents[1] / "support" / "faults"
NET = "mask_rcnn_c8s4-16a4p20r16f16m1:cell_w4d1"
NETS = [f"pair.{side}.net={NET}" for side in ("student", "teachers.image")]


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


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_kill_9_changes_nothing_in_the_record_of_a_run_on_a_streamed_folder(tmp_path: Path) -> None:
    folder = coco(tmp_path / "parts", {"train": 12, "test": 4}, masks=True)
    scaffold.new_task("mine", "coco", str(folder), here=tmp_path)
    file = tmp_path / "sets" / "mine.yaml"
    text = file.read_text()
    held = "kind: image  # held as pixels"
    assert held in text
    file.write_text(text.replace(held, "kind: picture  # held as pixels").replace("    convert: true", "    #"))

    def ended(home: str, fault: dict[str, Any] | None = None) -> int:
        words = ["evaluate", "--method", "plain", "--task", "./mine.yaml", "--seed", "0", "--overhead", "off"]
        own = {"KDBENCH_HOME": str(tmp_path / home), "KDBENCH_CHECKPOINT_SECONDS": "0.05"}
        path = os.pathsep.join([str(FAULTS), str(Path(kdbench.__file__).parents[1])])
        own |= {"PYTHONPATH": path, **({} if fault is None else {"KDBENCH_FAULT": json.dumps(fault)})}
        done = subprocess.run([sys.executable, "-m", "kdbench", *words, *NETS, "train.epochs=6", "train.batch=3"],
                              cwd=tmp_path, env=os.environ | own, capture_output=True, text=True)  # fmt: skip
        assert done.returncode in (0, -9), done.stderr
        return done.returncode

    mark = tmp_path / "mark"
    fault = {"do": "kill", "event": "os.rename", "path": r"/runs/.*/\.current\.pt", "mark": str(mark)}
    assert ended("killed", fault) == -9
    assert mark.exists()
    assert [ended("killed"), ended("whole")] == [0, 0]
    records = [
        json.loads(next((tmp_path / home / "records").glob("*.json")).read_text()) for home in ("killed", "whole")
    ]
    for key in ("digest", "metrics"):
        assert records[0][key] == records[1][key], key
