"""Full-size tasks of detection: generated folders as their data unpack train and are scored through the same code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from objects_on_disk import coco, voc

from kdbench import data
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.data.decode.place import Place
from kdbench.engine import teachers
from kdbench.engine.assemble import prepare
from kdbench.engine.place import RunPlace
from kdbench.engine.scoring import Scorer
from kdbench.engine.trainer import Trainer
from kdbench.specs import registry
from kdbench.specs.config import run_config

TASKS = [name for name in registry.task_files() if name.startswith(("coco/", "voc07/"))]
SMALL = {
    "faster_rcnn": "faster_rcnn_c8s4-16a4p20r16f16",
    "mask_rcnn": "mask_rcnn_c8s4-16a4p20r16f16m1",
    "retinanet": "retinanet_c8s8-32h1",
}
CPU = torch.device("cpu")


def test_pairs_are_those_of_papers_and_nothing_is_ranked() -> None:
    assert len(TASKS) == 7
    for name in TASKS:
        task = registry.task(name)
        assert not task.ranked
        assert "published" in task.notes
        student, teacher = task.pair.student.net, task.teacher_net
        assert student.split("_timm:")[0] == teacher.split("_timm:")[0]
    claims = {name: registry.card(name).claims for name in ("fgd", "mgd", "pkd", "cwd")}
    x101 = registry.task("coco/retinanet-x101-r50")
    for name, value in (("fgd", 40.7), ("mgd", 41.0), ("pkd", 40.8), ("cwd", 40.5)):
        assert [c.value for c in claims[name] if c.teacher == x101.teacher_net] == [value]
    assert run_config("reviewkd", "coco/faster-rcnn-r101-r18").method.params["review_weight"] == 1.2
    assert run_config("reviewkd", "coco/mask-rcnn-r101-r50").method.params["review_weight"] == 0.8


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["coco/faster-rcnn-r101-r18", "coco/mask-rcnn-r101-r50", "coco/retinanet-r101-r50",
                                  "voc07/faster-rcnn-r101-r50"])  # fmt: skip
def test_a_generated_folder_trains_and_is_scored(name: str, tmp_path: Path) -> None:
    task = registry.task(name)
    if name.startswith("coco"):
        parts = {"train2017": 4, "val2017": 3}
        coco(tmp_path / "coco", parts, masks=True, names=("person", "toothbrush"))
    else:
        voc(tmp_path / "voc07", {"trainval": 4, "test": 3}, names=("aeroplane", "tvmonitor"))
    small = SMALL[task.pair.student.net.split("_timm:")[0]]
    nets = [f"pair.{side}.net={small}:cell_w4d1" for side in ("student", "teachers.image")]
    plain = ["pair.student.weights=null", "pair.teachers.image.init=null", "train.epochs=1", "train.batch=2"]
    of = run_config("pkd", name, [*nets, *plain])
    found = data.load(of.task.data, Place(tmp_path, tmp_path / "cache", Progress.silent()))
    assert not found.official
    untrained = {role: teachers.untrained(of.task, role, found, CPU) for role in of.task.pair.teachers}
    made = prepare(of, 0, RunPlace(CPU, Home(tmp_path), None, tmp_path / "run"), found, untrained)
    Trainer(made.method, made.task).run()
    assert 0 <= Scorer(made.task).all(made.method.deployed)[of.task.score.primary] <= 100
