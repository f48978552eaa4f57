"""Whole equations of detectors' methods, worked out here box by box and cell by cell."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from pyramids import (
    CLASSES,
    LEVELS,
    SIZES,
    STRIDES,
    WIDTH,
    answers,
    built,
    crossed_heads,
    entered,
    sides,
    some_objects,
)
from torch import Tensor

from kdbench.contract import Dense, Out
from kdbench.methods.defeat.adapter import levels_of, own_cells
from kdbench.methods.dkd.adapter import dkd_loss
from kdbench.methods.fgd.adapter import object_masks
from kdbench.methods.mgd.adapter import MGD, kept
from kdbench.methods.pkd.adapter import pearson_loss, standardised
from kdbench.methods.shared.boxes import box_distance, centreness, counted, overlap, quality_focal


def focal(student: Tensor, teacher: Tensor, beta: float = 1.0) -> Tensor:
    p, q = student.sigmoid(), teacher.sigmoid()
    return -(q * p.log() + (1 - q) * (1 - p).log()) * (p - q).abs() ** beta


def corner_iou(a: list[float], b: list[float]) -> tuple[float, float]:
    """IoU and generalised IoU of two boxes."""
    w, h = (max(0.0, min(a[2 + i], b[2 + i]) - max(a[i], b[i])) for i in range(2))
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - w * h
    hull = math.prod(max(a[2 + i], b[2 + i]) - min(a[i], b[i]) for i in range(2))
    return w * h / union, w * h / union - (hull - union) / hull


def check_kd_dense() -> None:
    """Cell by cell."""
    own, theirs = answers(1), answers(2)
    classes = boxes = 0.0
    positives = 0
    for level in range(len(LEVELS)):
        for n in range(3):
            for cell in range(len(own.assigned[level][n])):
                positives += int(own.assigned[level][n, cell] >= 0)
                if own.assigned[level][n, cell] == -2:
                    continue
                sure = theirs.cls[level][n, cell].max().sigmoid()
                gap = (own.box[level][n, cell] - theirs.box[level][n, cell]).abs().mean()
                classes += float(focal(own.cls[level][n, cell], theirs.cls[level][n, cell], 2.0).sum())
                boxes += float(sure * gap)
    terms = built("kd_dense", own, theirs, class_weight=0.7, box_weight=0.3, beta=2.0).terms()
    assert terms["class"].item() == pytest.approx(0.7 * classes / positives, rel=1e-4)
    assert terms["box"].item() == pytest.approx(0.3 * boxes / positives, rel=1e-4)


def check_fcos_form() -> None:
    """The form for FCOS: -log IoU, over the summed centre-ness of positives; whatever is left out counts nothing."""
    own, theirs, y = answers(1), answers(2), some_objects()
    terms = built("crosskd-fcos", own, theirs).terms()
    classes = boxes = summed = 0.0
    for level in range(len(LEVELS)):
        features = []
        for student, teacher in zip(own.taps[2][level], theirs.taps[2][level], strict=True):
            flat, target = (x.transpose(0, 1).flatten(1) for x in (student, teacher))
            z = (flat - flat.mean(1, keepdim=True)) / (flat.std(1, keepdim=True) + 1e-6)
            z = z * target.std(1, keepdim=True) + target.mean(1, keepdim=True)
            features.append(z.view(student.shape[1], len(student), *student.shape[2:]).transpose(0, 1))
        logits, regressed = entered([features[0]], [features[1]])
        decoded, wanted = (sides(x, own.anchors[level]) for x in (regressed[0], theirs.box[level]))
        for n in range(3):
            for cell in range(len(own.assigned[level][n])):
                which = int(own.assigned[level][n, cell])
                if which == -2:
                    continue
                if which >= 0:
                    x0, y0, x1, y1 = own.anchors[level][cell].tolist()
                    x, at = (x0 + x1) / 2, (y0 + y1) / 2
                    a, b, c, d = y.boxes[which].tolist()
                    out = [max(0.0, side) for side in (x - a, at - b, c - x, d - at)]
                    share = math.prod(min(pair) / max(*pair, 1e-6) for pair in (out[::2], out[1::2]))
                    summed += math.sqrt(share)
                sure = float(theirs.cls[level][n, cell].max().sigmoid())
                classes += float(focal(logits[0][n, cell], theirs.cls[level][n, cell]).sum())
                iou, _ = corner_iou(decoded[n, cell].tolist(), wanted[n, cell].tolist())
                boxes -= sure * math.log(max(iou, 1e-6))
    assert summed > 1
    assert terms["class"].item() == pytest.approx(0.4 * classes / summed, rel=1e-4)
    assert terms["box"].item() == pytest.approx(0.75 * boxes / summed, rel=1e-4)


def check_cross_entropy() -> None:
    """As mmdetection-distiller counts: the teacher's entropy stays in, over the student's channels."""
    own, theirs = answers(1), answers(2, width=6)
    made = built("cwd-distiller", own, theirs, temperature=2.0)
    wanted = torch.zeros(())
    for level, s, t in zip(made.method.levels, own.fpn, theirs.fpn, strict=True):
        p, q = ((x.flatten(2) / 2).softmax(2) for x in (t, level(s)))
        wanted = wanted - 4 * (p * q.log()).sum() / (3 * s.shape[1])
    assert made.terms()["channels"].item() == pytest.approx(5 * wanted.item(), rel=1e-5)


def check_no_positive() -> None:
    """A batch in which nothing is assigned is divided by 1."""
    for name in ("kd_dense", "crosskd", "crosskd-fcos"):
        own = answers(1)
        nothing = own._replace(assigned=tuple(torch.full_like(a, -1) for a in own.assigned))
        two = [a.clone() for a in nothing.assigned]
        two[0][0, :2] = 1
        both = own._replace(assigned=tuple(two))
        one, other = (built(name, dense).terms()["class"].item() for dense in (nothing, both))
        number = 2 if name != "crosskd-fcos" else max(1.0, centreness(both, some_objects()).item())
        assert one == pytest.approx(number * other)


def check_overlaps() -> None:
    rng = torch.Generator().manual_seed(0)
    low, high = torch.rand(2, 20, 2, generator=rng)
    one, other = torch.cat([low, low + high], 1), torch.cat([high, high + low + 0.1], 1)
    iou, giou = overlap(one, other)
    for k in range(20):
        assert (iou[k].item(), giou[k].item()) == pytest.approx(
            corner_iou(one[k].tolist(), other[k].tolist()), abs=1e-5
        )
    assert torch.equal(box_distance("giou", one, other), 1 - giou)
    assert box_distance("iou", one, one).abs().max().item() == pytest.approx(0, abs=1e-5)
    apart = box_distance("iou", torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[5.0, 5.0, 6.0, 6.0]]))
    assert apart.item() == pytest.approx(-math.log(1e-6))


def check_counts() -> None:
    own, theirs = torch.tensor([[0.3, -2.0]]), torch.tensor([[-1.0, 0.5]])
    assert quality_focal(own, theirs, 1.5).item() == pytest.approx(focal(own, theirs, 1.5).sum().item(), rel=1e-5)
    assert not quality_focal(own, own, 1.0).any()
    dense = answers(1)
    counts, positives = counted(dense)
    assigned = torch.cat(dense.assigned, 1)
    assert torch.equal(counts == 0, assigned == -2)
    assert positives.item() == (assigned >= 0).sum().item() > 0


def check_centreness() -> None:
    y = some_objects()
    middle = Dense(
        (torch.zeros(3, 4, 1, 1),), (8,), anchors=(torch.tensor([[31.0, 23.0, 37.0, 29.0]]),),
        assigned=(torch.tensor([[1], [-1], [-2]]),),
    )  # fmt: skip
    assert centreness(middle, y).item() == pytest.approx(1.0)
    edge = middle._replace(anchors=(torch.tensor([[5.0, 23.0, 11.0, 29.0]]),))
    assert centreness(edge, y).item() == pytest.approx(0.0)


def check_masks() -> None:
    y, (h, w) = some_objects(), LEVELS[0]
    y = replace(y, boxes=torch.cat([y.boxes[:3], torch.tensor([[50.0, 30.0, 64.0, 40.0]])]))  # ends at the border
    inside, outside = object_masks(y.boxes, y.image, y.sizes, (h, w))
    wanted = torch.zeros(3, h, w)
    for (x1, y1, x2, y2), n in zip(y.boxes.tolist(), y.image.tolist(), strict=True):
        height, width = SIZES[n]
        left, right = math.floor(x1 / width * w), math.ceil(x2 / width * w)
        top, bottom = math.floor(y1 / height * h), math.ceil(y2 / height * h)
        value = 1 / ((bottom + 1 - top) * (right + 1 - left))
        for row in range(top, min(bottom + 1, h)):
            for column in range(left, min(right + 1, w)):
                wanted[n, row, column] = max(wanted[n, row, column], value)
    assert torch.allclose(inside, wanted)
    for n in range(3):
        free = int((wanted[n] == 0).sum())
        assert torch.allclose(outside[n], (wanted[n] == 0) / max(free, 1))
    assert not inside[1].any()
    assert outside[1].sum().item() == pytest.approx(1)
    whole = object_masks(
        torch.tensor([[0.0, 0.0, 64.0, 48.0]]), torch.tensor([0]), torch.tensor([[48.0, 64.0]]), (h, w)
    )
    assert not whole[1].any()
    nothing = object_masks(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.tensor([[48.0, 64.0]]), (h, w))
    assert not nothing[0].any()


def check_share() -> None:
    uniform = torch.tensor([0.0, 0.34, 0.36, 0.99])
    assert kept(uniform, 0.65).tolist() == [1.0, 1.0, 0.0, 0.0]
    at = built("mgd").at(0)
    assert MGD.uniform(torch.zeros(2, 5, 3, 4), at).shape == (2, 1, 3, 4)


def check_scores() -> None:
    """Class scores beside: each channel's divergence over its cells, mean over pictures and channels, weighted."""
    own, theirs = torch.randn(2, 3, CLASSES, 4, 5, generator=torch.Generator().manual_seed(0))
    outs = (Out(scores, dense=answers(seed)) for seed, scores in ((1, own), (2, theirs)))
    terms = crossed_heads("mgd", {"score_weight": 0.7, "score_temperature": 2.5}, *outs, entered).terms()
    wanted = 0.0
    for n in range(3):
        for channel in range(CLASSES):
            p, q = ((x[n, channel].flatten() / 2.5).softmax(0) for x in (theirs, own))
            wanted += 2.5**2 * (p * (p / q).log()).sum().item()
    assert terms.keys() == {"task", "generation", "scores"}
    assert terms["scores"].item() == pytest.approx(0.7 * wanted / (3 * CLASSES), rel=1e-4)


def check_correlation() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 5, 3, 4, 6, dtype=torch.float64)
    flat = [x.transpose(0, 1).flatten(1) for x in (a, b)]
    r = torch.stack([torch.corrcoef(torch.stack([x, y]))[0, 1] for x, y in zip(*flat, strict=True)])
    count = flat[0].shape[1]
    assert pearson_loss(a, b).item() == pytest.approx((count - 1) / count * (1 - r).mean().item(), rel=1e-5)
    assert pearson_loss(3 * a + 5, a).item() == pytest.approx(0, abs=1e-9)  # magnitudes do not count
    flat_channel = a.clone()
    flat_channel[:, 0] = 2.0
    flat_channel.requires_grad_()
    pearson_loss(flat_channel, b).backward()
    assert flat_channel.grad is not None
    assert flat_channel.grad.isfinite().all()
    assert not standardised(flat_channel)[:, 0].any()


def check_relations() -> None:
    """Whole equation of the reconstruction, picture by picture, with equal weights."""
    own, theirs = answers(1), answers(2)
    anchors = torch.cat(own.anchors)
    counts = torch.cat(own.assigned, 1) != -2
    positives = (torch.cat(own.assigned, 1) >= 0).sum()
    direct = alone = mutual = torch.zeros(())
    for n in range(3):
        z, t = (torch.cat(dense.cls, 1)[n] for dense in (own, theirs))
        b, w = (sides(torch.cat(dense.box, 1)[n], anchors) for dense in (own, theirs))
        sure = t.sigmoid().amax(1)
        for q in counts[n].nonzero().flatten().tolist():
            direct = direct + focal(z[q], t[q], 2.0).sum() + sure[q] * (1 - corner_iou(b[q].tolist(), w[q].tolist())[1])
        chosen = sure.argsort(descending=True)[:5]
        rows = []
        for scores, boxes in ((z, b), (t, w)):
            middle, side = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
            shape = torch.cat([(boxes[:, :2] - middle) / side, (boxes[:, 2:] - middle) / side], 1)
            rows.append(F.normalize(torch.cat([scores.sigmoid(), shape], 1)[chosen]))
        alone = alone + (rows[0] @ rows[0].T - rows[1] @ rows[1].T).square().mean() / 3
        mutual = mutual + (rows[0] @ rows[1].T - rows[1] @ rows[1].T).square().mean() / 3
    terms = built("real-equal", own, theirs, beta=2.0, cells=5).terms()
    wanted = {"task": 1.0, "direct": float(direct / positives), "self": alone.item(), "mutual": mutual.item()}
    assert {part: term.item() for part, term in terms.items()} == pytest.approx(wanted, rel=1e-4)
    nothing = own._replace(assigned=tuple(torch.full_like(a, -1) for a in own.assigned))
    two = [a.clone() for a in nothing.assigned]
    two[0][0, :2] = 1
    one, other = (built("real-equal", d).terms()["direct"].item() for d in (nothing, own._replace(assigned=tuple(two))))
    assert one == pytest.approx(2 * other)


def check_scales() -> None:
    """Trained weights: each loss over the exponential of its scale, their sum beside, clamped after a step."""
    made, equal = built("real"), built("real-equal").terms()
    assert {*made.terms()} == {*equal, "scales"}
    scales = torch.tensor([0.5, -1.0, 3.0, -4.0])
    with torch.no_grad():
        made.method.scales.copy_(scales)
    terms = made.terms()
    for part, scale in zip(equal, scales, strict=True):
        assert terms[part].item() == pytest.approx(equal[part].item() * math.exp(-scale), rel=1e-5)
    assert terms["scales"].item() == pytest.approx(-1.5)
    made.step()
    assert made.method.scales.tolist() == [0.5, -1.0, 2.0, -2.0]
    built("real-equal").step()


def check_decoupled() -> None:
    """Cell by cell and proposal by proposal; half of the epochs done, half of the weights are left."""
    own, theirs, y = answers(1), answers(2), some_objects()
    made = built("defeat", own, theirs, decay="linear", smallest=8.0, temperature=2.0)
    shares = {True: 0.0, False: 0.0}
    for number, (adapt, (h, w)) in enumerate(zip(made.method.adapt, LEVELS, strict=True)):
        mask = torch.zeros(3, h, w, dtype=torch.bool)
        for (x1, y1, x2, y2), n in zip(y.boxes.tolist(), y.image.tolist(), strict=True):
            size = math.sqrt((x2 - x1 + 1) * (y2 - y1 + 1))
            if min(max(math.floor(math.log2(size / 8 + 1e-6)), 0), len(LEVELS) - 1) != number:
                continue
            left, top, right, bottom = (int(v / STRIDES[number]) for v in (x1, y1, x2, y2))
            mask[n, top : min(bottom, h), left : min(right, w)] = True
            if right <= left or bottom <= top:
                mask[n, min(top, h - 1), min(left, w - 1)] = True
        gap = (adapt(own.fpn[number]) - theirs.fpn[number]).square().sum(1)
        for inside in shares:
            cells = int((mask == inside).sum())
            shares[inside] += gap[mask == inside].sum().item() / max(1, 2 * WIDTH * cells) / len(LEVELS)
    terms = made.terms(epoch=20)
    assert terms["neck"].item() == pytest.approx(3 * shares[True] / 2, rel=1e-5)
    assert terms["neck_back"].item() == pytest.approx(12 * shares[False] / 2, rel=1e-5)
    p, q = ((x / 2).softmax(1) for x in (own.roi, theirs.roi))
    each = 4 * (q * (q / p).log()).sum(1)
    objects_in = own.roi_labels < CLASSES
    assert terms["head"].item() == pytest.approx(each[objects_in].mean().item(), rel=1e-5)
    assert terms["head_back"].item() == pytest.approx(each[~objects_in].mean().item(), rel=1e-5)
    whole = built("defeat", own, theirs, smallest=8.0, temperature=2.0).terms(epoch=20)
    assert whole["head"].item() == pytest.approx(2 * terms["head"].item(), rel=1e-5)


def check_absent() -> None:
    """Of a batch without objects, or with nothing but them, what is not there is 0; starts are small."""
    own, theirs = answers(1), answers(2)
    for label, term in ((CLASSES, "head"), (0, "head_back")):
        only = own._replace(roi_labels=torch.full_like(own.roi_labels, label))
        assert built("defeat", only, theirs).terms()[term].item() == 0
    made = built("defeat", answers(1), answers(1))
    assert all(made.terms()[term].item() == pytest.approx(0, abs=1e-9) for term in ("head", "head_back"))
    assert all(0 < conv.weight.abs().max() <= 2e-4 and not conv.bias.any() for conv in made.method.adapt)


def check_borders() -> None:
    """Cells of boxes at borders, and levels of sizes at which one begins."""
    boxes = torch.tensor([[8.0, 0.0, 24.0, 16.0], [40.0, 24.0, 64.0, 31.0], [64.0, 8.0, 64.0, 24.0]])
    cells = own_cells(boxes, torch.tensor([0, 1, 1]), 2, (4, 8), 8)
    assert cells[0].nonzero().tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    assert cells[1].nonzero().tolist() == [[1, 7], [2, 7], [3, 5]]
    sides = torch.tensor([1.0, 15.0, 31.0, 32.0, 63.0, 500.0])
    squares = torch.stack([sides * 0, sides * 0, sides, sides], 1)
    assert levels_of(squares, 3, 16.0).tolist() == [0, 0, 1, 1, 2, 2]


def check_strides() -> None:
    """Of a student's level that the teacher has not, the stride is none of a level's that is compared."""
    own, theirs = answers(1), answers(2)
    theirs = theirs._replace(fpn=theirs.fpn[1:], strides=theirs.strides[1:])
    cut = own._replace(fpn=own.fpn[1:], strides=own.strides[1:])
    whole, alone = (built("defeat-neck", dense, theirs).terms() for dense in (own, cut))
    assert whole == alone
    assert whole["neck"].item() > 0


def check_proposals() -> None:
    """dkd's own equation, background a class; no ramp, no loss of two classes too few."""
    own, theirs = answers(1), answers(2)
    terms = built("dkd_roi", own, theirs, alpha=0.7).terms()
    wanted = dkd_loss(own.roi, theirs.roi, own.roi_labels, 1.0, 0.7, 0.25)
    assert terms["dkd"].item() == pytest.approx(wanted.item())
    assert terms["task"].item() == 1


CHECKS: dict[str, list[Callable[[], None]]] = {
    "kd_dense": [check_kd_dense, check_no_positive, check_overlaps, check_counts, check_centreness],
    "crosskd": [check_fcos_form, check_no_positive],
    "real": [check_relations, check_scales],
    "mgd": [check_share, check_scores],
    "pkd": [check_correlation],
    "cwd": [check_cross_entropy],
    "fgd": [check_masks],
    "defeat": [check_decoupled, check_absent, check_borders, check_strides],
    "dkd_roi": [check_proposals],
}
"""Of each method, which planted faults are held against."""


@pytest.mark.parametrize("check", [check for own in CHECKS.values() for check in own], ids=lambda c: c.__name__)
def test_equation(check: Callable[[], None]) -> None:
    check()
