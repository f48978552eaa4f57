"""ffsd: who gets which gradient, what the guides' targets depend on, optimisers, and what it refuses."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from kdbench.base.errors import UserError
from kdbench.checks.tiny import method_config, tiny
from kdbench.contract import At, Batch, NotApplicable, Out
from kdbench.engine.assemble import hyper_parameters
from kdbench.engine.stage import StageRun
from kdbench.methods.ffsd.adapter import FFSD
from kdbench.methods.ffsd.losses import attention, match, shifted
from kdbench.methods.ffsd.networks import Guide
from kdbench.specs import registry
from kdbench.specs.config import run_config


@pytest.fixture
def ffsd(tmp_path):
    ref = registry.method("ffsd")
    config = method_config(ref)
    needs = ref.adapter().needs(hyper_parameters(config))
    return tiny(ref, config, needs, "classification").prepare(tmp_path)


def at(epoch=6):
    return At(0, epoch, 10, 0.0, torch.Generator().manual_seed(0))


def batch(prepared, rows=8):
    return prepared.task.wrap(prepared.task.rows(torch.arange(rows)))


def gradients(terms, wanted, parameters):
    total = sum(terms[name] for name in wanted)
    return torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)


def test_each_network_gets_the_gradient_of_its_own_losses_alone(ffsd):
    method = ffsd.method
    terms = method.losses(batch(ffsd), at())
    leader, *commons = method.students
    owners = {
        "leader": (["task", "kd", "fused_map", "joined_maps", "guided"], [*leader.parameters()]),
        "expansion": (["joined_maps"], [*method.expansion.parameters()]),
        "commons": (
            ["commons_task", "commons_mutual", "commons_diversity", "commons_guided"],
            [p for net in commons for p in net.parameters()],
        ),
        "fusion": (["fusion_task", "fusion_kd"], [*method.fusion.parameters()]),
        "guides": (["guide_maps", "guide_attention"], [*method.guides.parameters()]),
    }
    for own, parameters in owners.values():
        for of_own, of_all in zip(gradients(terms, own, parameters), gradients(terms, terms, parameters), strict=True):
            assert (of_own is None) is (of_all is None)
            if of_own is not None:
                assert torch.allclose(of_own, of_all, rtol=1e-4, atol=1e-7)


def test_the_first_commons_maps_are_pulled_by_nothing_but_its_scores(ffsd):
    method = ffsd.method
    terms = method.losses(batch(ffsd), at())
    first = list(method.students[1].parameters())
    assert all(g is None for g in gradients(terms, ["commons_diversity", "commons_guided"], first))


def test_targets_of_a_guide_use_its_running_statistics_and_leave_them(ffsd):
    guide = Guide([2, 4, 8]).train()
    x = torch.randn(3, 8, 2, 2)
    before = {name: t.clone() for name, t in guide.state_dict().items()}
    targets = guide.targets(x)
    assert guide.training
    assert all(torch.equal(t, before[name]) for name, t in guide.state_dict().items())
    assert not any(t.requires_grad for t in targets)
    assert [tuple(t.shape[1:]) for t in targets] == [(2, 8, 8), (4, 4, 4)]
    guide.eval()
    assert all(torch.equal(t, made) for t, made in zip(targets, guide(x), strict=True))
    guide.train()
    assert not torch.equal(guide(x)[0], targets[0])


def test_targets_come_from_before_the_guides_own_pass(ffsd):
    method, rows = ffsd.method, batch(ffsd)
    twin = FFSD(ffsd.task, list(method.students), {}, method.hp)
    twin.load_state_dict(method.state_dict())
    first = method.losses(rows, at())
    with torch.no_grad():
        for guide in twin.guides:  # what one pass in train mode would do to the statistics
            guide.train()(torch.randn(8, guide.blocks[0].deconv.in_channels, 2, 2) * 9)
    changed = twin.losses(rows, at())
    assert not torch.equal(first["guided"], changed["guided"])


def test_running_statistics_of_guides_move_once_a_step(ffsd):
    ffsd.method.train()
    ffsd.method.losses(batch(ffsd), at())
    counts = [b for name, b in ffsd.method.guides.named_buffers() if name.endswith("num_batches_tracked")]
    assert {int(count) for count in counts} == {1}


def test_groups_have_optimisers_of_their_own(ffsd):
    run = StageRun(ffsd.method, next(ffsd.method.stages()), ffsd.task)
    groups = {name: (type(o).__name__, o.param_groups[0]) for name, o in run.optimizers.items()}
    assert groups["fusion"][1]["weight_decay"] == 1e-5
    assert groups["fusion"][1]["lr"] == groups["networks"][1]["lr"]
    assert groups["guides"][0] == "Adam"
    assert (groups["guides"][1]["lr"], groups["guides"][1]["weight_decay"]) == (1e-3, 1e-4)
    held = [id(p) for o in run.optimizers.values() for g in o.param_groups for p in g["params"]]
    assert len(held) == len(set(held)) == len(list(ffsd.method.parameters()))


def test_only_the_leaders_backbone_is_deployed(ffsd):
    assert ffsd.method.deployed is ffsd.method.students[0]
    assert len(ffsd.method.students) == 3
    plain = sum(p.numel() for p in ffsd.task.build_student().parameters())
    assert sum(p.numel() for p in ffsd.method.deployed.parameters()) == plain


@pytest.mark.parametrize(("side", "place"), [((3, 3), 3), ((2, 2), 1), ((1, 3), 1), ((4, 5), 6)])
def test_threshold_is_the_lowest_third_counted_from_one(side, place):
    last = torch.rand(2, 4, *side)
    target = shifted(last).target
    a = torch.nn.functional.normalize(attention(last).flatten(1), dim=1)
    norm = attention(last).flatten(1).norm(dim=1)
    for row in range(2):
        q = a[row].sort().values[place - 1]
        for value, found in zip(a[row], target[row], strict=True):
            expected = norm[row] - value if value > q else value if value < q else norm[row] / 2
            assert math.isclose(float(found), float(expected), abs_tol=1e-6)


def test_dead_maps_stay_finite_and_unmoved():
    dead = torch.zeros(2, 4, 3, 3)
    assert torch.equal(shifted(dead).map, dead)
    assert float(match(dead, dead)) == 0


def task(maps, **changes):
    out = Out(torch.zeros(2, 10), tuple(maps), emb=torch.zeros(2, 4))
    return SimpleNamespace(**{"probe": lambda net: out, "classes": 10, "batch": 8, "n_train": 20, **changes})


def maps(*sizes):
    return [torch.zeros(2, 2 ** (i + 1), *size) for i, size in enumerate(sizes)]


def build(maps, **changes):
    card = registry.card("ffsd")
    return FFSD(task(maps, **changes), [torch.nn.Linear(1, 1)] * 3, {}, card.typed(card.defaults()))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (maps((8, 8)), "at least 2 stages"),
        (maps((8,), (4,)), "two-dimensional"),
        (maps((2, 2), (1, 1)), "fewer than 3 positions"),
        (maps((16, 16), (8, 8), (8, 8)), "stages 2 and 3 have 8x8 and 8x8"),
        (maps((9, 9), (4, 4)), "stages 1 and 2 have 9x9 and 4x4"),
    ],
)
def test_maps_that_do_not_fit_are_refused_by_name(given, reason):
    with pytest.raises(NotApplicable, match=reason):
        build(given)


def test_maps_need_not_be_square():
    method = build(maps((8, 12), (4, 6)))
    assert method.fusion.classify(method.fusion(torch.randn(2, 8, 4, 6))).shape == (2, 10)


def test_one_row_and_one_class_are_told():
    with pytest.warns(UserWarning, match="batches of 1 row"):
        build(maps((8, 8), (4, 4)), batch=1)
    with pytest.warns(UserWarning, match="single class"):
        build(maps((8, 8), (4, 4)), classes=1)


def test_a_given_teacher_is_not_read_and_the_card_says_so(ffsd):
    assert FFSD.needs(ffsd.method.hp).teachers == ()
    assert ffsd.method.teachers == {}
    assert any("teacher of the task is not used" in quirk for quirk in registry.card("ffsd").quirks)


def test_one_common_is_refused_with_its_key():
    with pytest.raises(UserError, match="commons"):
        run_config("ffsd", "digits", ["method.commons=1"])


def test_a_batch_of_one_row_trains(ffsd):
    ffsd.method.train()
    one = ffsd.task.wrap(ffsd.task.rows(torch.tensor([0])))
    assert isinstance(one, Batch)
    assert all(torch.isfinite(term) for term in ffsd.method.losses(one, at()).values())
