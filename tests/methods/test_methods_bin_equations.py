"""Whole equations of methods on distributions of boxes, worked out here cell by cell on made-up answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from pyramids import LEVELS, answers, some_objects
from torch import Tensor
from torchvision.ops import box_iou

from kdbench.checks.stubs import Assembled, Stub, assembled, batch_of
from kdbench.contract import Dense, Objects, OrientedObjects, Out
from kdbench.methods.ddkd_obb.adapter import targets
from kdbench.methods.ld.adapter import valuable
from kdbench.methods.ld_obb.adapter import region
from kdbench.models.atss import candidates, thresholds
from kdbench.models.gfl import bins, edges
from kdbench.models.obb import ANGLES, BINS, DELTAS

EDGES = bins(5)
KINDS = {"ld": ("detection", EDGES), "ld_obb": ("oriented", BINS), "ddkd_obb": ("oriented", BINS)}
"""Kind of task and the bins of made-up heads."""


def told(seed: int, places: Sequence[Sequence[float]], **more: int) -> Dense:
    """Random answers of a head of distributions, with gradients."""
    rng = torch.Generator().manual_seed(200 + seed)
    dense, width = answers(seed, requires_grad=True, **more), sum(map(len, places))
    kind = torch.get_default_dtype()
    box = tuple(
        (2 * torch.randn(3, len(level), width, generator=rng, dtype=kind)).requires_grad_() for level in dense.anchors
    )
    return dense._replace(box=box, bins=tuple(map(tuple, places)), decode=edges)


def turned_objects() -> OrientedObjects:
    """Two objects in the first picture, the second too square to have an angle, none in the second, two in the last."""
    boxes = [
        [14.3, 16.4, 30.0, 18.0, 25.3], [36.3, 26.6, 40.0, 38.0, -70.3],
        [20.3, 12.6, 25.0, 12.0, 88.4], [44.3, 24.6, 34.0, 20.0, -44.2],
    ]  # fmt: skip
    plain = some_objects()
    return OrientedObjects(
        torch.tensor(boxes, dtype=torch.get_default_dtype()), plain.labels, plain.counts, plain.sizes
    )


def made(
    name: str, own: Dense | None = None, theirs: Dense | None = None, y: Objects | None = None, **hp: object
) -> Assembled:
    """A method on answers of two heads, its modules drawn alike each time."""
    torch.manual_seed(0)
    kind, places = KINDS[name]
    nets = [Stub(Out(None, dense=dense)) for dense in (own or told(1, places), theirs or told(2, places))]
    y = y or (some_objects() if kind == "detection" else turned_objects())
    return assembled(name, hp, batch_of(y, rows=torch.arange(3)), nets[:1], nets[1], kind=kind, train_labels=y)


def gap(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Of two distributions, (B,) logits: T^2 times their divergence, by the number of bins."""
    p, q = ((x / temperature).softmax(0) for x in (teacher, student))
    return temperature**2 * (p * (p / q).log()).sum() / len(p)


def gaps(student: Tensor, teacher: Tensor, places: Sequence[Sequence[float]], temperature: float) -> float:
    """Of a cell's distributions, summed."""
    widths = [len(one) for one in places]
    pairs = zip(student.split(widths), teacher.split(widths), strict=True)
    return sum(gap(s, t, temperature).item() for s, t in pairs)


def assert_terms(terms: dict[str, Tensor], **wanted: float) -> None:
    """What is minimised, the detector's own loss of 1 beside."""
    assert {name: term.item() for name, term in terms.items()} == pytest.approx({"task": 1.0, **wanted}, rel=1e-4)


LD = {
    "edge_weight": 0.7, "region_weight": 0.9, "class_weight": 1.9, "edge_temperature": 3.0, "class_temperature": 2.5,
}  # fmt: skip


def check_edges() -> None:
    """ld: each cell that is assigned by how sure the student is, each in the region by its overlap."""
    own, theirs, y = told(1, EDGES), told(2, EDGES), some_objects()
    for form in ("released", "union"):
        weight = torch.stack([valuable(one["boxes"], own.anchors, form) for one in y.listed()])
        assert weight.any()
        main = around = classes = 0.0
        begin = 0
        for level, cells in enumerate(map(len, own.anchors)):
            of_level = []
            for n in range(3):
                for cell in range(cells):
                    s, t = own.box[level][n, cell], theirs.box[level][n, cell]
                    found = gaps(s, t, EDGES, 3.0)
                    around += found * weight[n, begin + cell].item()
                    if own.assigned[level][n, cell] >= 0:
                        main += found * own.cls[level][n, cell].sigmoid().max().item()
                        of_level.append(gap(own.cls[level][n, cell], theirs.cls[level][n, cell], 2.5).item())
            classes += sum(of_level) / len(of_level)
            begin += cells
        terms = made("ld", own, theirs, region=form, **LD).terms()
        assert_terms(terms, edges=0.7 / 4 * main, region=0.9 / 16 * around, **{"class": 1.9 * classes})


def assigned_alone(dense: Dense, level: int, cells: int, number: int = 0) -> Dense:
    """The same with nothing assigned but the first cells of a level in the first picture."""
    nothing = [torch.full_like(one, -1) for one in dense.assigned]
    nothing[level][0, :cells] = number
    return dense._replace(assigned=tuple(nothing))


def check_constants() -> None:
    """How sure the student is weighs and is not trained; the teacher is constant; what nothing is assigned to is 0."""
    own, theirs = told(1, EDGES), told(2, EDGES)
    terms = made("ld", own, theirs, feature_weight=1.0, **LD).terms()
    grads = torch.autograd.grad(terms["edges"], own.cls, retain_graph=True, allow_unused=True, materialize_grads=True)
    assert not any(grad.any() for grad in grads)
    total = torch.stack(list(terms.values())).sum()
    inputs = [*own.cls, *own.box, *own.fpn]
    assert all(grad.any() for grad in torch.autograd.grad(total, inputs, retain_graph=True))
    given = [*theirs.cls, *theirs.box, *theirs.fpn]
    assert not any(g.any() for g in torch.autograd.grad(total, given, allow_unused=True, materialize_grads=True))
    one, two = (made("ld", assigned_alone(own, 1, n), theirs, **LD).terms() for n in (1, 2))
    pair = [gap(own.cls[1][0, cell], theirs.cls[1][0, cell], 2.5).item() for cell in range(2)]
    assert one["class"].item() == pytest.approx(1.9 * pair[0], rel=1e-4)
    assert two["class"].item() == pytest.approx(1.9 * sum(pair) / 2, rel=1e-4)
    none = made("ld", assigned_alone(own, 0, 0), theirs, **LD).terms()
    assert none["edges"].item() == none["class"].item() == 0


def chosen(own: Dense, theirs: Dense, level: int) -> list[tuple[int, int]]:
    """Picture and cell of the ten largest gaps of scores whose boxes overlap by 0.3 at most, by hand."""
    every = []
    for n in range(3):
        for cell in range(len(own.anchors[level])):
            s, t = (dense.cls[level][n, cell].detach().sigmoid() for dense in (own, theirs))
            at = int((s - t).abs().argmax())
            surer = own if s[at] > t[at] else theirs
            box = edges(surer.box[level][n, cell].detach(), own.anchors[level][cell])
            every.append(((s - t).abs()[at].item(), (n, cell), box))
    kept: list[tuple[float, tuple[int, int], Tensor]] = []
    for one in sorted(every, key=lambda found: -found[0]):
        if all(box_iou(one[2][None], other[2][None]).item() <= 0.3 for other in kept):
            kept.append(one)
    return [place for _, place, _ in kept[:10]]


def check_features() -> None:
    """ld: cells of every rule, each level's mean, nothing of a level without assigned cells."""
    own, theirs, y = told(1, EDGES), told(2, EDGES, width=6), some_objects()
    own = own._replace(
        assigned=(own.assigned[0], torch.zeros_like(own.assigned[1]), torch.full_like(own.assigned[2], -1))
    )
    for rule in ("finegrained", "fitnet", "gibox"):
        method = made("ld", own, theirs, feature_weight=1.7, imitation=rule, **LD)
        wanted = 0.0
        for level, (align, (h, w)) in enumerate(zip(method.method.levels, LEVELS, strict=True)):
            if level == 2:
                continue
            picked = set(chosen(own, theirs, level)) if rule == "gibox" else set()
            for n, one in enumerate(y.listed()):
                if rule == "gibox" or not len(one["boxes"]):
                    continue
                every = box_iou(torch.cat(own.anchors), one["boxes"]).amax(0)
                for cell, anchor in enumerate(own.anchors[level]):
                    overlap = box_iou(anchor[None], one["boxes"])[0]
                    x, at = ((anchor[i] + anchor[i + 2]) / 2 for i in range(2))
                    within = [(a < x < c and b < at < d) for a, b, c, d in one["boxes"].tolist()]
                    if (overlap > every / 2).any() if rule == "finegrained" else any(within):
                        picked.add((n, cell))
            assert picked
            assert len(picked) < 3 * h * w
            mine = align(own.fpn[level])
            each = [(mine[n, :, c // w, c % w] - theirs.fpn[level][n, :, c // w, c % w]) for n, c in picked]
            wanted += torch.stack(each).square().mean().item()
        assert method.terms()["feature"].item() == pytest.approx(1.7 * wanted, rel=1e-4)
    same = told(2, EDGES)
    feature = made("ld", told(1, EDGES), same, feature_weight=1.0).terms()["feature"]
    assert not any(g.any() for g in torch.autograd.grad(feature, same.fpn, allow_unused=True, materialize_grads=True))


def straight(boxes: Tensor) -> Tensor:
    """Corners of turned boxes as if they were not."""
    return torch.stack([torch.cat([box[:2] - box[2:4] / 2, box[:2] + box[2:4] / 2]) for box in boxes])


def check_region() -> None:
    """ld_obb: both divergences over the region, by its overlaps and the number of its cells."""
    own, theirs, y = told(1, BINS), told(2, BINS), turned_objects()
    anchors = torch.cat(own.anchors)
    box = classes = 0.0
    count = 0
    for n, one in enumerate(y.listed()):
        for number, anchor in enumerate(anchors):
            best = 0.0
            if len(one["boxes"]):
                corners = straight(one["boxes"])
                near = candidates((corners[:, :2] + corners[:, 2:]) / 2, own.anchors)
                limit = thresholds(box_iou(anchors, corners), near) / 4
                shared = box_iou(anchor[None], corners)[0]
                best = max([v.item() for v, least in zip(shared, limit, strict=True) if v >= least], default=0.0)
            count += best > 0
            s, t = (torch.cat(dense.box, 1)[n, number] for dense in (own, theirs))
            box += best * gaps(s, t, BINS, 3.0)
            s, t = (torch.cat(dense.cls, 1)[n, number] for dense in (own, theirs))
            classes += best * gap(s, t, 2.5).item()
    hp = {"box_weight": 0.7, "class_weight": 1.9, "box_temperature": 3.0, "class_temperature": 2.5}
    assert 0 < count < 3 * len(anchors)
    terms = made("ld_obb", own, theirs, **hp).terms()
    assert_terms(terms, box=0.7 * box / count, **{"class": 1.9 * classes / count})
    given = [*theirs.cls, *theirs.box]
    total = terms["box"] + terms["class"]
    assert not any(g.any() for g in torch.autograd.grad(total, given, allow_unused=True, materialize_grads=True))


def check_small_regions() -> None:
    """ld_obb: of one cell nothing is divided by more; without objects both terms are 0."""
    own, theirs, y = told(1, BINS), told(2, BINS), turned_objects()
    far = y.boxes.new_tensor([[900.0, 900.0, 16.0, 16.0, 0.0]])
    anchors = [level.clone() for level in own.anchors]
    anchors[0][0] = anchors[0].new_tensor([892.0, 892.0, 908.0, 908.0])
    alone = own._replace(anchors=tuple(anchors))
    one = OrientedObjects(far, y.labels[:1], torch.tensor([1, 0, 0]), y.sizes)
    assert region(far, anchors).nonzero().tolist() == [[0]]
    terms = made("ld_obb", alone, theirs, one, box_weight=1.0, box_temperature=3.0).terms()
    assert terms["box"].item() == pytest.approx(gaps(own.box[0][0, 0], theirs.box[0][0, 0], BINS, 3.0), rel=1e-4)
    none = replace(one, boxes=far[:0], labels=y.labels[:0], counts=torch.tensor([0, 0, 0]))
    terms = made("ld_obb", own, theirs, none).terms()
    assert terms["box"].item() == terms["class"].item() == 0


def parts(student: Tensor, teacher: Tensor, place: int, temperature: float) -> tuple[float, float]:
    """Of one distribution: the divergences of target and rest, and among the rest."""
    q, p = ((x / temperature).softmax(0) for x in (student, teacher))
    rest = [i for i in range(len(p)) if i != place]
    on = p[place] * (p[place] / q[place]).log() + (1 - p[place]) * ((1 - p[place]) / (1 - q[place])).log()
    a, b = p[rest] / p[rest].sum(), q[rest] / q[rest].sum()
    return temperature**2 * on.item(), temperature**2 * (a * (a / b).log()).sum().item()


def check_decoupled() -> None:
    """ddkd_obb: means over assigned cells, of the angle over those of long boxes, summed over distributions."""
    own, theirs, y = told(1, BINS), told(2, BINS), turned_objects()
    widths = [len(one) for one in BINS]
    every = [[[], []] for _ in BINS]
    for level, anchors in enumerate(own.anchors):
        for n in range(3):
            for cell, anchor in enumerate(anchors):
                if (number := int(own.assigned[level][n, cell])) < 0:
                    continue
                x, at, width, height, angle = y.boxes[number].tolist()
                side = (anchor[2] - anchor[0]).item()
                middle = ((anchor[:2] + anchor[2:]) / 2).tolist()
                deltas = [(x - middle[0]) / side, (at - middle[1]) / side]
                deltas += torch.tensor([width / side, height / side]).log().tolist()
                wanted = [min(range(len(DELTAS)), key=lambda i, d=d: abs(DELTAS[i] - d)) for d in deltas]
                away = [abs((angle - place + 90) % 180 - 90) for place in ANGLES]
                wanted.append(away.index(min(away)))
                s, t = (dense.box[level][n, cell].split(widths) for dense in (own, theirs))
                for i, place in enumerate(wanted):
                    if i == 4 and width < 1.2 * height:
                        continue
                    for kind, value in enumerate(parts(s[i], t[i], place, 2.0)):
                        every[i][kind].append(value)
    on, off = (sum(sum(one[kind]) / len(one[kind]) for one in every) for kind in range(2))
    terms = made("ddkd_obb", own, theirs, target_weight=0.7, others_weight=3.0, temperature=2.0).terms()
    assert len(every[4][0]) < len(every[0][0])
    assert_terms(terms, target=0.7 * on, others=3 * off)
    given = torch.autograd.grad(sum(terms.values()), theirs.box, allow_unused=True, materialize_grads=True)
    assert not any(g.any() for g in given)


def check_uncounted() -> None:
    """ddkd_obb: without long boxes there is no term of an angle, without assigned cells none."""
    own, theirs, y = told(1, BINS), told(2, BINS), turned_objects()
    square = assigned_alone(own, 0, 3, number=1)  # of the object without an angle
    whole = made("ddkd_obb", square, theirs).terms()
    zeroed = [level.detach().clone() for level in theirs.box]
    for level in zeroed:
        level[..., -len(ANGLES) :] = 0.0
    without = made("ddkd_obb", square, theirs._replace(box=tuple(zeroed))).terms()
    assert whole == without
    assert all(term.item() > 0 for term in whole.values())
    assert not any(counts.any() for _, counts in targets(y.boxes[1:2], own.anchors[0][:1])[4:])
    none = made("ddkd_obb", assigned_alone(own, 0, 0), theirs).terms()
    assert none["target"].item() == none["others"].item() == 0


CHECKS: dict[str, list[Callable[[], None]]] = {
    "ld": [check_constants, check_edges, check_features],
    "ld_obb": [check_small_regions, check_region],
    "ddkd_obb": [check_uncounted, check_decoupled],
}
"""Of each method, which planted faults are held against."""


@pytest.mark.parametrize("check", [check for own in CHECKS.values() for check in own], ids=lambda c: c.__name__)
def test_equation(check: Callable[[], None]) -> None:
    check()
