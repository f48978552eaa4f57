"""Turned boxes: they move with their pictures, are scored by their own overlap, and methods read their bins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.ops import box_convert

from kdbench import kinds, models
from kdbench.contract import Batch, Objects, OrientedObjects, Rows
from kdbench.data.feed.moved import mirror, moves, transposed
from kdbench.data.sources import shapes_turned
from kdbench.kinds.base import Evidence
from kdbench.kinds.detection import Rules
from kdbench.kinds.oriented import Found, alike, lone
from kdbench.methods.ddkd_obb.adapter import targets
from kdbench.methods.ld_obb.adapter import region
from kdbench.models.obb import ANGLES, DELTAS, Heads, boxes_of, places, smooth_label

KIND = kinds.kind("oriented")
EVERY = torch.ones(1, dtype=torch.bool)


def one_box(*box: float, size: int = 40) -> OrientedObjects:
    return OrientedObjects.of([[[0, *box]]], (size, size))


def corners(boxes: torch.Tensor) -> list[tuple[float, float]]:
    found = box_convert(boxes, "cxcywhr", "xyxyxyxy").view(-1, 2)
    return [(x, y) for x, y in found.tolist()]


def same(one: list[tuple[float, float]], other: list[tuple[float, float]]) -> bool:
    """Whether two lists hold the same points, in whatever order."""
    return float(torch.cdist(torch.tensor(one), torch.tensor(other)).amin(1).max()) < 0.01


@pytest.mark.parametrize("degrees", [-90.0, -35.0, 0.0, 60.0])
def test_corners_of_a_moved_box_are_the_moved_corners(degrees):
    y, pixels = one_box(12, 25, 16, 6, degrees), torch.zeros(1, 1, 40, 40)
    x = corners(y.boxes)
    for axis, place in ((1, lambda p: (40 - p[0], p[1])), (0, lambda p: (p[0], 40 - p[1]))):
        moved = mirror(pixels, y, EVERY, axis)[1]
        assert same(corners(moved.boxes), [place(p) for p in x])
        assert -90 <= moved.boxes[0, 4] < 90
        torch.testing.assert_close(mirror(pixels, moved, EVERY, axis)[1].boxes, y.boxes)
    turned = transposed(pixels, y, EVERY)[1]
    assert same(corners(turned.boxes), [(b, a) for a, b in x])
    torch.testing.assert_close(transposed(pixels, turned, EVERY)[1].boxes, y.boxes)


def test_a_window_keeps_the_objects_whose_centre_it_shows():
    y = OrientedObjects.of([[[0, 5, 5, 4, 2, 10], [1, 30, 30, 8, 4, 0]]], (40, 40))
    cut = y.window(torch.tensor([[20, 24]]), (16, 16))
    assert cut.tolist() == [[[1, 6, 10, 8, 4, 0]]]
    assert y.shown(torch.tensor([[[20, 24]], [[10, 10]]]), (16, 16)).tolist() == [[True], [False]]
    (move,) = moves(["window16"])
    assert isinstance(move(torch.zeros(1, 1, 40, 40), y, torch.Generator())[1], OrientedObjects)
    assert isinstance(y[:1].keep(torch.tensor([True, False])), OrientedObjects)


def test_generated_shapes_lie_in_their_boxes():
    data = shapes_turned.load({"train": 12, "test": 2})
    pixels, y = data.train.x["image"].double().mean(1), data.train.y
    bars = [n for n in range(len(y.labels)) if y.labels[n] == 0]
    grid = np.stack(np.mgrid[:64, :64][::-1], -1) + 0.5
    for n in bars:
        cx, cy, w, h, degrees = y.boxes[n].tolist()
        turn = np.deg2rad(degrees)
        away = grid - [cx, cy]
        along = np.abs(away[..., 0] * np.cos(turn) - away[..., 1] * np.sin(turn))
        across = np.abs(away[..., 0] * np.sin(turn) + away[..., 1] * np.cos(turn))
        inside = (along < w / 2 - 1) & (across < h / 2 - 1)
        assert pixels[int(y.image[n])][torch.from_numpy(inside)].std() < 1
    assert bars


def found_of(y: Objects, scores: torch.Tensor | None = None, **changed: Any) -> Found:
    made = Found(y.boxes, torch.ones(len(y.labels)) if scores is None else scores, y.labels, y.counts, 3)
    return replace(made, _known=[], **changed)


def ap(found: Found, truth: Objects) -> float:
    return KIND.score(["obb_ap50"], Evidence(found, truth))["obb_ap50"]


def test_truth_scores_100_twice_the_same_counts_once_and_a_turned_box_is_no_find():
    truth = OrientedObjects.of([[[0, 20, 20, 20, 4, 30], [1, 8, 8, 8, 4, -20]], [], [[0, 10, 30, 12, 4, 0]]], (40, 40))
    assert ap(found_of(truth), truth) == 100
    turned = truth.boxes.clone()
    turned[:, 4] += 60
    assert ap(found_of(truth, boxes=turned), truth) == 0
    none = found_of(truth, boxes=truth.boxes[:0], scores=torch.zeros(0), labels=truth.labels[:0])
    assert ap(replace(none, counts=torch.zeros(3, dtype=torch.long), _known=[]), truth) == 0
    one = OrientedObjects.of([[[0, 20, 20, 20, 4, 30], [0, 8, 30, 9, 4, 0]]], (40, 40))
    twice = Found(one.boxes[[0, 0, 1]], torch.tensor([0.9, 0.8, 0.7]), one.labels[[0, 0, 1]], torch.tensor([3]), 1)
    assert ap(twice, one) == pytest.approx(100 * (0.5 + 0.5 * 2 / 3))


def test_the_angle_of_a_box_of_like_sides_does_not_count():
    round_one = one_box(20, 20, 11, 10, 0)
    diagonal = round_one.boxes.clone()
    diagonal[:, 4] = 45
    assert alike(diagonal, round_one.boxes)[0, 0] == pytest.approx(1)
    long_one = one_box(20, 20, 20, 5, 0)
    assert alike(long_one.boxes.clone().index_fill_(1, torch.tensor([4]), 90.0), long_one.boxes)[0, 0] < 0.2


def test_of_two_overlapping_finds_of_a_class_the_lower_is_left_out():
    boxes = torch.tensor([[20.0, 20, 20, 4, 30], [20, 20, 20, 4, 35], [20, 20, 20, 4, 120]])
    scores, labels = torch.tensor([0.5, 0.9, 0.3]), torch.zeros(3, dtype=torch.long)
    assert lone(boxes, scores, labels, Rules()).tolist() == [1, 2]
    assert lone(boxes, scores, torch.tensor([0, 1, 0]), Rules()).tolist() == [1, 0, 2]
    assert lone(boxes, scores, labels, Rules(detections=1)).tolist() == [1]


def said(boxes: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """Logits of a head that says the truth as well as bins can."""
    low = places(boxes, anchors).floor().long()[..., None]
    share = places(boxes, anchors)[..., None] - low
    deltas = torch.full((len(boxes), 4, len(DELTAS)), -40.0).scatter(-1, low, (1 - share).clamp_min(1e-9).log())
    deltas = deltas.scatter(-1, low + 1, share.clamp_min(1e-9).log())
    return torch.cat([deltas.flatten(1), smooth_label(boxes[:, 4]).clamp_min(1e-12).log()], 1)


def test_a_head_that_says_the_truth_is_decoded_to_it_whatever_the_angle():
    anchors = torch.tensor([[8.0, 8.0, 24.0, 24.0]]).expand(5, 4)
    boxes = torch.tensor([[15.0, 18, 20, 6, angle] for angle in (-90.0, -89, 0, 44, 88)])
    found = boxes_of(said(boxes, anchors), anchors)
    torch.testing.assert_close(found[:, :4], boxes[:, :4], atol=0.02, rtol=1e-3)
    gap = (found[:, 4] - boxes[:, 4] + 90) % 180 - 90
    assert gap.abs().max() < 0.1


def detector() -> tuple[Any, Batch]:
    torch.manual_seed(0)
    data = shapes_turned.load({"train": 6, "test": 2})
    net = models.build("obb_c8s4-16h1:cell_w4d1", (3, 64, 64), 3)
    net.asked = frozenset({"assigned"})
    return net, data.batch(data.train, torch.arange(6))


def test_losses_do_not_depend_on_the_order_of_objects_and_empty_pictures_train():
    net, batch = detector()
    one = net(batch).dense
    assert isinstance(net.head, Heads)
    assert one.losses.keys() == {"classification", "bbox_distribution", "angle"}
    assert sum(int((level >= 0).sum()) for level in one.assigned) > 0
    begins = batch.y.counts.cumsum(0) - batch.y.counts
    order = torch.cat([torch.arange(n).flip(0) + b for n, b in zip(batch.y.counts, begins, strict=True)])
    flipped = replace(batch.y, boxes=batch.y.boxes[order], labels=batch.y.labels[order])
    other = net(replace(batch, y=flipped)).dense
    for name, value in one.losses.items():
        assert value.item() == pytest.approx(other.losses[name].item(), rel=1e-4)
    none = batch.y.keep(torch.zeros(len(batch.y.labels), dtype=torch.bool))
    empty = net(replace(batch, y=none)).dense.losses
    torch.stack(list(empty.values())).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    answer = KIND.answer(net(batch), batch, KIND.scaling(Rows({}, batch.y), None))
    assert len(KIND.joined([answer, answer]).counts) == 12
    assert len(KIND.marked(answer, batch.y)) == 6


def test_regions_and_target_bins_of_methods():
    anchors = [torch.tensor([[x, y, x + 16, y + 16] for y in range(0, 48, 8) for x in range(0, 48, 8)]).float()]
    box = one_box(28, 28, 20, 8, 0).boxes
    inside = region(box, anchors)
    assert 0 < (inside > 0).sum() < 36
    turned = box.clone()
    turned[:, 4] = 70
    assert torch.equal(region(turned, anchors), inside)  # as in the released code
    assert not region(box[:0], anchors).any()
    bins = targets(
        torch.tensor([[8.0, 8, 16, 16, 0], [8, 8, 16, 8, -31]]), torch.tensor([[0.0, 0, 16, 16]]).expand(2, 4)
    )
    assert [place.tolist() for place, _ in bins[:4]] == [[4, 4], [4, 4], [4, 4], [4, 3]]
    assert [ANGLES[n] for n in bins[4][0].tolist()][1] in (-32, -30)
    assert bins[4][1].tolist() == [False, True]


def test_targets_that_are_not_turned_and_rules_of_size_are_refused():
    plain = Rows({}, Objects.of([[[0, 1, 1, 5, 5]]], (8, 8)))
    assert KIND.refusal(plain, None) == "targets without turned boxes"
    with pytest.raises(ValueError, match="not scored by size"):
        KIND.ruled({"areas": [1, 2]})


@pytest.mark.slow
def test_the_full_size_task_runs_on_a_generated_table_of_its_form(tmp_path):
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    from kdbench import data
    from kdbench.base.home import Home
    from kdbench.base.progress import Progress
    from kdbench.data.decode.place import Place
    from kdbench.engine import teachers
    from kdbench.engine.assemble import prepare
    from kdbench.engine.place import RunPlace
    from kdbench.engine.scoring import Scorer
    from kdbench.engine.trainer import Trainer
    from kdbench.specs.config import run_config

    (tmp_path / "dota").mkdir()
    rng = np.random.default_rng(0)
    for part, count in (("train", 2), ("val", 1)):
        files = []
        for _ in range(count):
            file = io.BytesIO()
            small = Image.fromarray(rng.integers(0, 255, (32, 32, 3)).astype(np.uint8))
            small.resize((1024, 1024), Image.Resampling.NEAREST).save(file, "PNG", compress_level=1)
            files.append({"bytes": file.getvalue()})
        objects = [
            {"obb": [[500.0, 400, 120, 300, 20], [700, 700, 90, 30, -40]], "category": ["ship", "plane"]}
        ] * count
        pq.write_table(pa.table({"image": files, "objects": objects}), tmp_path / "dota" / f"{part}.parquet")
    small_nets = [f"pair.{side}.net=obb_c8s8-128h1:cell_w4d1" for side in ("student", "teachers.image")]
    random = ["pair.student.weights=null", "pair.teachers.image.init=null"]
    of = run_config("ld_obb", "dota/r34-r18", [*small_nets, *random, "train.epochs=1", "train.schedule.milestones=[]"])
    rows = data.load(of.task.data, Place(tmp_path, tmp_path / "cache", Progress.silent()))
    assert rows.train.y.tolist()[0][0] == pytest.approx([6, 500, 400, 300, 120, -70])
    cpu = torch.device("cpu")
    untrained = {role: teachers.untrained(of.task, role, rows, cpu) for role in of.task.pair.teachers}
    made = prepare(of, 0, RunPlace(cpu, Home(tmp_path), None, tmp_path / "run"), rows, untrained)
    Trainer(made.method, made.task).run()
    assert 0 <= Scorer(made.task).all(made.method.deployed)["obb_ap50"] <= 100
