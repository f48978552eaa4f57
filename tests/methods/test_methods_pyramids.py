"""Methods of detectors beyond their golden vectors: weights, copies, constants, draws, levels, refusals."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from pyramids import (
    LEVELS,
    ON,
    answers,
    built,
    entered,
    made_up,
    on_pyramids,
    refused,
    some_objects,
    tensors_of,
)
from smalls import ELSEWHERE
from torch import Tensor

from kdbench.contract import Dense
from kdbench.methods.pkd.adapter import pearson_loss
from kdbench.methods.shared.boxes import same_cells
from kdbench.methods.shared.pyramids import level_pairs
from kdbench.specs import registry

WEIGHTS: dict[str, dict[str, set[str]]] = {
    "fitnet": {"hint_weight": {"hint"}},
    "reviewkd": {"review_weight": {"review"}},
    "pkd": {"pearson_weight": {"pearson"}},
    "cwd": {"channel_weight": {"channels"}},
    "cwd-distiller": {"channel_weight": {"channels"}},
    "fgd": {f"{part}_weight": {part} for part in ("inside", "outside", "attention", "relation")},
    "mgd": {"generation_weight": {"generation"}},
    "crosskd": {"class_weight": {"class"}, "box_weight": {"box"}},
    "crosskd-fcos": {"class_weight": {"class"}, "box_weight": {"box"}},
    "crosskd+pkd": {"class_weight": {"class"}, "box_weight": {"box"}, "pearson_weight": {"pearson"}},
    "kd_dense": {"class_weight": {"class"}, "box_weight": {"box"}},
    "defeat": {f"{part}_weight": {part} for part in ("neck", "neck_back", "head", "head_back")},
    "dkd_roi": {"kd_weight": {"dkd"}},
    "defeat-neck": {f"{part}_weight": {part} for part in ("neck", "neck_back")},
}
UNWEIGHED = ("real", "real-equal")
"""Their weights are trained, see check_scales."""
FIELDS = ("cls", "box", "assigned", "anchors", "proposals", "roi", "roi_labels")
"""Of what a detector returns, those that a method may ask for."""
COPIES = [name for name in ON if name not in ("reviewkd", "mgd", "cwd-distiller", "real", "defeat", "defeat-neck")]
"""Without a term that a copy of the teacher leaves; what adapts it is untrained, an entropy is not 0."""


def check_weights(name: str) -> None:
    """Each weight multiplies its own terms, and no others; of weight 0 they are 0."""
    whole = built(name)
    before = whole.terms()
    assert {term for terms in WEIGHTS[name].values() for term in terms} == before.keys() - {"task"}
    assert before["task"].item() == 1.0
    for weight, own in WEIGHTS[name].items():
        after = built(name, **{weight: 1.6 * getattr(whole.method.hp, weight)}).terms()
        for term, value in before.items():
            assert value.item() != 0
            factor = 1.6 if term in own else 1.0
            assert after[term].item() == pytest.approx(factor * value.item(), rel=1e-5), (weight, term)


def check_copy(name: str) -> None:
    """A student that answers as the teacher does has no loss but its own, and no gradient."""
    own, theirs = answers(1, requires_grad=True), answers(1)
    block = getattr(built(name).method.hp, "reuse_after", None)
    if block is not None:  # what its head says follows from its features
        cls, box = entered(*zip(*theirs.taps[block], strict=True))
        theirs = theirs._replace(cls=cls, box=box)
    terms = built(name, own, theirs).terms()
    parts = torch.stack([value for term, value in terms.items() if term != "task"])
    assert parts.abs().max().item() == pytest.approx(0, abs=1e-4 if block is not None else 1e-9)
    for gradient in torch.autograd.grad(parts.sum(), tensors_of(own), allow_unused=True, materialize_grads=True):
        assert gradient.isfinite().all()
        if name not in ("fgd", "real-equal") and block is None:  # distances with a kink at 0
            assert gradient.abs().max().item() == pytest.approx(0, abs=1e-6)


def check_constants(name: str) -> None:
    """The student's answers get a gradient, the teacher's none."""
    own, theirs = answers(1, requires_grad=True), answers(2, requires_grad=True)
    terms = built(name, own, theirs).terms()
    total = torch.stack([value for term, value in terms.items() if term != "task"]).sum()
    grads = torch.autograd.grad(total, [*tensors_of(own), *tensors_of(theirs)], allow_unused=True)
    half = len(tensors_of(own))
    assert any(g is not None and g.abs().sum() > 0 for g in grads[:half])
    assert all(g is None or not g.any() for g in grads[half:]), name


@pytest.mark.parametrize("name", WEIGHTS)
def test_each_weight_multiplies_its_own_terms(name: str) -> None:
    check_weights(name)


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_of_the_teacher_has_no_loss(name: str) -> None:
    check_copy(name)


@pytest.mark.parametrize("name", ON)
def test_the_teacher_is_constant(name: str) -> None:
    check_constants(name)


def check_composed() -> None:
    """With pkd beside: of all levels, as if pkd were alone on them."""
    alone = built("pkd", levels=5, pearson_weight=2.0).terms()["pearson"]
    assert built("crosskd+pkd").terms()["pearson"].item() == pytest.approx(alone.item())


def check_draws() -> None:
    """Masks come from the step's own generator, one a level, one number a cell whatever the channels."""
    state = torch.get_rng_state()
    made = built("mgd")
    torch.manual_seed(3)
    before = torch.get_rng_state()
    at = made.at(0)
    losses = made.stages()["distill"].losses
    assert losses is not None
    losses(made.batch, at)
    assert torch.equal(torch.get_rng_state(), before)
    rng = torch.Generator().manual_seed(0)
    for h, w in LEVELS:
        torch.rand(3, 1, h, w, generator=rng)
    assert torch.equal(at.rng.get_state(), rng.get_state())
    torch.set_rng_state(state)


def check_reviewed() -> None:
    """Nothing is pooled, and the ramp is that of stages."""
    made = built("reviewkd", warmup_epochs=10, review_weight=2.0)
    assert len(made.method.abfs) == len(LEVELS)
    half, whole = made.terms(epoch=5)["review"], built("reviewkd", review_weight=2.0).terms()["review"]
    assert half.item() == pytest.approx(whole.item() / 2, rel=1e-5)
    for side in ("student", "teacher"):
        assert "both fpn or neither" in refused(lambda side=side: built("reviewkd", **{f"{side}_features": "preact"}))
        assert "leave student_stages" in refused(lambda side=side: built("reviewkd", **{f"{side}_stages": [1]}))


def check_levels() -> None:
    """pkd takes the finest levels."""
    one, all_of_them = (built("pkd", levels=n).terms()["pearson"] for n in (1, 4))
    own, theirs = answers(1), answers(2)
    assert one.item() == pytest.approx(10 * pearson_loss(own.fpn[0], theirs.fpn[0]).item(), rel=1e-5)
    assert all_of_them > one
    low = answers(3)
    low = low._replace(fpn=low.fpn[1:], strides=low.strides[1:])  # a student that sees half the picture
    sized = built("pkd", low._replace(losses={"loss": torch.ones(())}), theirs).terms()["pearson"]
    by_hand = [pearson_loss(s, t) for s, t in zip(low.fpn, theirs.fpn[1:], strict=True)]
    low = answers(3, requires_grad=True)
    low = low._replace(fpn=low.fpn[1:], losses={"loss": torch.ones(())})
    assert torch.autograd.grad(built("pkd", low, theirs).terms()["pearson"], low.fpn)[0].any()
    assert sized.item() == pytest.approx(10 * torch.stack(by_hand).sum().item(), rel=1e-5)
    own = own._replace(fpn=tuple(F.interpolate(x, scale_factor=2.0) for x in own.fpn))
    for resize in ("student", "teacher"):  # as many levels of other sizes: one of the two is resized
        terms = built("pkd", own, theirs, levels=1, resize=resize).terms()
        assert terms["pearson"].item() == pytest.approx(
            10 * pearson_loss(own.fpn[0], theirs.fpn[0], resize == "student").item()
        )


def check_needs(name: str) -> None:
    """What is read is what is asked for: answers with nothing else serve."""
    method, values = ON[name]
    whole = built(name)
    needs = type(whole.method).needs(whole.method.hp)

    def only(dense: Dense, words: frozenset[str], own: dict[str, object]) -> Dense:
        held = {field: getattr(dense, field) for field in FIELDS if field in words}
        held |= {"roi": dense.roi} if "roi_head" in words else {}  # what a made-up head says
        taps = {block: levels for block, levels in dense.taps.items() if f"taps:{block}" in words}
        return Dense(dense.fpn, dense.strides, decode=dense.decode, taps=taps, **held, **own)

    student = only(answers(1), needs.student, {"losses": {"loss": torch.ones(())}})
    reduced = made_up(method, student, only(answers(2), needs.teacher, {}), **values).terms()
    for term, value in whole.terms().items():
        assert torch.equal(reduced[term], value), term
    assert ("boxes" in needs.batch) == (name in ("fgd", "crosskd-fcos", "defeat", "defeat-neck"))


@pytest.mark.parametrize("name", ON)
def test_nothing_is_read_that_is_not_asked_for(name: str) -> None:
    check_needs(name)


def check_pairs() -> None:
    """Levels are paired by the size of their maps."""

    def maps(*sizes: tuple[int, int]) -> list[Tensor]:
        return [torch.full((2, 3, *size), float(i), requires_grad=True) for i, size in enumerate(sizes)]

    def paired(own: list[Tensor], theirs: list[Tensor]) -> list[tuple[int, int]]:
        pairs = level_pairs(own, theirs)
        assert all(s.requires_grad and not t.requires_grad for s, t in pairs)
        return [(int(s[0, 0, 0, 0]), int(t[0, 0, 0, 0])) for s, t in pairs]

    assert paired(maps((8, 6), (1, 1), (1, 1)), maps((8, 6), (1, 1), (1, 1))) == [(0, 0), (1, 1), (2, 2)]
    assert paired(maps((8, 6), (4, 3), (2, 2)), maps((16, 12), (8, 6), (4, 3))) == [(0, 1), (1, 2)]  # half the picture
    assert paired(maps((1, 1), (4, 3)), maps((1, 1), (1, 1), (4, 2))) == [(0, 0)]
    why = refused(lambda: level_pairs(maps((5, 4)), maps((16, 12), (8, 6))))
    assert "the student's are 5x4, the teacher's 16x12, 8x6" in why


def check_widths() -> None:
    """What differs in width goes through a convolution, or is refused."""
    wide = answers(2, width=6)
    for name in ("fitnet", "reviewkd", "cwd", "fgd", "mgd"):
        method, values = ON[name]
        terms = on_pyramids(method, values, answers(1).fpn, wide.fpn, some_objects()).terms()
        assert all(value.isfinite() for value in terms.values())
    for name in ("pkd", "crosskd", "crosskd+pkd"):
        assert "width" in refused(lambda name=name: built(name, teacher=wide))
    for name in ("kd_dense", "real"):
        assert "cell by cell" in refused(lambda name=name: built(name, teacher=fewer(answers(2))))
    same_cells(answers(1, rows=2), answers(2))  # the pictures need not be as many
    one = answers(2)
    for field, width in (("cls", 2), ("box", 3)):
        cut = one._replace(**{field: tuple(level[..., :width] for level in getattr(one, field))})
        assert f"{field} of the student's" in refused(lambda cut=cut: same_cells(answers(1), cut))
    cut = one._replace(cls=(one.cls[0][:, :-1], *one.cls[1:]))
    assert "cls of the student's" in refused(lambda: same_cells(answers(1), cut))
    assert "3 levels, the teacher 2" in refused(lambda: built("crosskd", teacher=fewer(answers(2))))


def fewer(dense: Dense) -> Dense:
    """The same without its coarsest level."""
    taps = {block: levels[:2] for block, levels in dense.taps.items()}
    return Dense(dense.fpn[:2], dense.strides[:2], dense.cls[:2], dense.box[:2], anchors=dense.anchors[:2], taps=taps)


CASES: dict[str, list[Callable[[], None]]] = {
    "crosskd": [check_composed],
    "mgd": [check_draws],
    "reviewkd": [check_reviewed],
    "pkd": [check_levels, check_widths],
    "cwd": [check_pairs],
}
CHECKS: dict[str, list[Callable[[], object]]] = {}
"""Of each method all checks of this file, which planted faults are held against."""
for _name in ON:
    _card = registry.method(ON[_name][0]).card.name
    _own = [partial(check, _name) for check in (check_constants, check_needs)]
    _own += [partial(check_weights, _name)] if _name in WEIGHTS else []
    _own += [partial(check_copy, _name)] if _name in COPIES else []
    CHECKS.setdefault(_card, list(CASES.get(_card, []))).extend(_own)


def test_every_method_of_detectors_is_here() -> None:
    own = {name for name in registry.method_packages() if "detection" in (registry.card(name).kinds or [])}
    own = {name for name in own if ELSEWHERE.get(name) == "detectors"}
    assert own | {"fitnet", "reviewkd"} == CHECKS.keys()
    for name in own:
        assert "stages" not in vars(registry.method(name).adapter())


@pytest.mark.parametrize("check", [check for own in CASES.values() for check in own], ids=lambda c: c.__name__)
def test_case(check: Callable[[], None]) -> None:
    check()
