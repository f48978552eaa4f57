"""Instance segmentation: AP of masks equals pycocotools', truth scores 100, and nets without masks are refused."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kdbench import data, kinds, models
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.checks.watch import first_difference, state_copy
from kdbench.contract import Batch, Objects, Rows
from kdbench.data.decode.place import Place
from kdbench.engine import teachers
from kdbench.engine.assemble import prepare
from kdbench.engine.place import RunPlace
from kdbench.engine.trainer import Trainer
from kdbench.kinds.base import Evidence
from kdbench.kinds.detection import Detections, Rules, runs, runs_of
from kdbench.specs.config import run_config

KIND = kinds.kind("instance_segmentation")
SIZE = (60, 80)
CPU = torch.device("cpu")


def drawn(seed: int, pictures: int = 8) -> tuple[Objects, torch.Tensor]:
    """Objects of three classes that may overlap, some of them crowds, and their (M, H, W) masks."""
    rng = np.random.default_rng(seed)
    found, shapes = [], []
    for _ in range(pictures):
        own = []
        for _ in range(int(rng.integers(0, 5))):
            x, y = (int(v) for v in rng.integers(0, 40, 2))
            w, h = (int(v) for v in rng.integers(6, 20, 2))
            own.append([int(rng.integers(3)), x, y, x + w, y + h])
            shape = torch.zeros(SIZE, dtype=torch.bool)
            shape[y : y + h, x : x + w] = torch.from_numpy(rng.random((h, w)) < 0.8)
            shapes.append(shape)
        found.append(own)
    truth = Objects.of(found, SIZE)
    planes = torch.zeros(pictures, 5, *SIZE, dtype=torch.int16)
    for shape, image, within in zip(shapes, truth.image.tolist(), truth.within.tolist(), strict=True):
        planes[image, within][shape] = within + 1
    crowd = torch.from_numpy(rng.random(len(shapes)) < 0.15)
    area = torch.stack(shapes).sum((1, 2)).float()
    return replace(truth, masks=planes, ignore=crowd, area=area), torch.stack(shapes)


def some(seed: int) -> tuple[Objects, Detections]:
    """Objects, and detections near them with scores that are often equal."""
    truth, shapes = drawn(seed)
    rng = np.random.default_rng(100 + seed)
    order: list[int] = []
    for picture in range(len(truth)):
        own = torch.nonzero(truth.image == picture).flatten().tolist()
        order += rng.permutation(own * 2).tolist()
    kept = torch.stack([shapes[place].roll(int(rng.integers(-2, 3)), 1) for place in order])
    counts = truth.counts * 2
    scores = torch.cat([torch.from_numpy(np.sort(rng.integers(1, 5, int(n)) / 4)[::-1].copy()) for n in counts])
    found = Detections(
        truth.boxes[order], scores, truth.labels[order], counts, 3, Rules(areas=(60.0, 120.0)), tuple(runs(kept))
    )
    return truth, found


def by_pycocotools(truth: Objects, found: Detections) -> dict[str, float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    known = COCO()
    assert truth.ignore is not None
    assert truth.area is not None
    rows = zip(truth.labels.tolist(), truth.image.tolist(), truth.ignore.tolist(), truth.area.tolist(), runs_of(truth),
               strict=True)  # fmt: skip
    known.dataset = {
        "info": {}, "images": [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in range(len(truth))],
        "annotations": [
            {"id": number, "image_id": image, "category_id": label, "segmentation": mask, "area": area,
             "iscrowd": int(crowd), "bbox": [0, 0, 1, 1]}
            for number, (label, image, crowd, area, mask) in enumerate(rows, 1)
        ],
        "categories": [{"id": c} for c in range(3)],
    }  # fmt: skip
    image = torch.arange(len(found.counts)).repeat_interleave(found.counts).tolist()
    results = [
        {"image_id": i, "category_id": c, "segmentation": dict(m), "score": s}
        for i, c, m, s in zip(image, found.labels.tolist(), found.masks, found.scores.tolist(), strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        known.createIndex()
        own = COCOeval(known, known.loadRes(results), "segm")
        low, high = found.rules.areas
        own.params.areaRng = [[0, 1e10], [0, low], [low, high], [high, 1e10]]
        own.params.maxDets = [found.rules.detections]
        own.evaluate()
        own.accumulate()
    precision = own.eval["precision"]
    parts = {"mask_ap": precision[:, :, :, 0], "mask_ap50": precision[0, :, :, 0]}
    return {name: 100 * float(part[part > -1].mean()) for name, part in parts.items()}


@pytest.mark.parametrize("seed", range(3))
def test_ap_of_masks_is_pycocotools_with_ties_crowds_and_three_classes(seed: int) -> None:
    truth, found = some(seed)
    ours = KIND.score(["mask_ap", "mask_ap50"], Evidence(found, truth))
    assert ours == pytest.approx(by_pycocotools(truth, found), abs=1e-9)
    assert 0 < ours["mask_ap"] < 100


def test_truth_scores_100_and_no_detections_nothing() -> None:
    truth, shapes = drawn(0)
    whole = Detections(
        truth.boxes, torch.ones(len(shapes)), truth.labels, truth.counts, 3, Rules(), tuple(runs(shapes))
    )
    names = ["mask_ap", "mask_ap50", "ap"]
    assert KIND.score(names, Evidence(whole, truth)) == pytest.approx(dict.fromkeys(names, 100))
    none = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), truth.counts * 0, 3, Rules())
    assert KIND.score(names, Evidence(none, truth)) == dict.fromkeys(names, 0.0)


def test_targets_and_nets_without_masks_are_refused() -> None:
    assert KIND.refusal(Rows({}, Objects.of([[]], SIZE)), None) == "targets without masks"
    assert KIND.refusal(Rows({}, drawn(0)[0]), None) is None
    net = models.build("fcos_c8s8-16h1:cell_w4d1", (3, *SIZE), 3).eval()
    y = drawn(0)[0][:2]
    batch = Batch({"image": torch.randn(2, 3, *SIZE)}, y, torch.arange(2))
    with torch.no_grad(), pytest.raises(UserError, match="needs nets that tell masks; choose mask_rcnn"):
        KIND.answer(net(batch), batch, KIND.scaling(Rows({}, y), None))


OFF = ["method.pearson_weight=0"]


def trained(method: str, folder: Path, overrides: list[str] | None = None) -> dict[str, torch.Tensor]:
    of = run_config(method, "shapes/masks", [*(overrides or []), "train.epochs=1"])
    rows = data.load(of.task.data, Place(None, folder / "cache", Progress.silent())).head(16)
    untrained = {role: teachers.untrained(of.task, role, rows, CPU) for role in of.task.pair.teachers}
    made = prepare(of, 0, RunPlace(CPU, Home(folder), None, folder / "run"), rows, untrained)
    Trainer(made.method, made.task).run()
    answer = made.task.answers(made.method.student, made.task.test_batches(), ["mask_ap"])
    scores = made.task.score(["mask_ap", "ap"], Evidence(answer, rows.test.y))
    assert scores.keys() == {"mask_ap", "ap"}
    assert all(0 <= value <= 100 for value in scores.values())
    return state_copy(made.method.student)


def test_methods_of_detection_run_and_of_weight_0_are_plain_bit_for_bit(tmp_path: Path) -> None:
    plain = trained("plain", tmp_path / "plain")
    assert first_difference(plain, trained("pkd", tmp_path / "off", OFF)) is None


@pytest.mark.slow
@pytest.mark.parametrize("method", ["reviewkd", "pkd", "fgd", "mgd", "cwd", "fitnet", "defeat", "dkd_roi"])
def test_methods_of_detection_run(tmp_path: Path, method: str) -> None:
    trained(method, tmp_path)
