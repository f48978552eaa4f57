"""Methods of low resolution: which pairs they refuse and why, and what the small pictures leave of a pair."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from kdbench import models
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.contract import Batch, NotApplicable, Out, Rows
from kdbench.engine.assemble import load_data, prepare
from kdbench.engine.place import RunPlace
from kdbench.engine.teachers import untrained
from kdbench.methods.askd.adapter import ASKD
from kdbench.methods.fskd_lr.adapter import FSKDLR
from kdbench.methods.isrd.adapter import ISRD
from kdbench.specs import registry
from kdbench.specs.config import run_config
from kdbench.specs.reduced import Reduced

HP = SimpleNamespace(stage=1)


def task(**more: Any) -> SimpleNamespace:
    return SimpleNamespace(classes=10, device=torch.device("cpu"), probe=lambda net: net.out, **more)


def net(*maps: Tensor, **more: Any) -> SimpleNamespace:
    return SimpleNamespace(out=Out(torch.zeros(2, 10), maps, **more), input="image")


def made(method: Any, student: Any, teacher: Any, hp: Any = HP, **more: Any) -> Any:
    """Its ``setup`` on networks that answer with given outputs."""
    one = method.__new__(method)
    torch.nn.Module.__init__(one)
    one.task, one.hp, one.teachers = task(**more), hp, {"image": teacher}
    one.students = [student]
    one.setup()
    return one


def picture(*shape: int) -> dict[str, Any]:
    """A task whose teacher reads pictures of a shape."""
    rows = Rows({"image": torch.zeros(1, *shape)}, torch.zeros(1))
    return {"rows": lambda index: rows, "wrap": lambda raw: Batch(raw.x, raw.y, torch.arange(1))}


@pytest.mark.parametrize(
    ("side", "shape", "stage", "scale"), [(8, (3, 32, 32), 1, 4), (3, (1, 8, 8), 1, 3), (8, (3, 16, 12), 1, 2)]
)
def test_a_picture_is_rebuilt_at_the_least_scale_that_covers_it(side, shape, stage, scale):
    own = net(torch.zeros(2, 5, side, side))
    rebuild = made(ISRD, own, net(), **picture(*shape)).rebuild
    assert rebuild.scale == scale
    assert rebuild(torch.randn(2, 5, side, side)).shape == (2, *shape)


@pytest.mark.parametrize(
    ("size", "hp", "reason"),
    [
        ((5, 16, 16), HP, "of its size or a larger one, here they are 16x16 and 8x8"),
        ((5, 16), HP, "here they are 16 and 8x8"),
        ((5, 4, 4), SimpleNamespace(stage=2), "stage 2 is not there, the student has 1"),
    ],
)
def test_isrd_refuses_what_it_cannot_rebuild(size, hp, reason):
    with pytest.raises(NotApplicable, match=reason):
        made(ISRD, net(torch.zeros(2, *size)), net(), hp, **picture(1, 8, 8))


def test_maps_of_two_sizes_are_refused_with_what_to_do():
    small, large = torch.zeros(2, 4, 4, 4), torch.zeros(2, 4, 8, 8)
    with pytest.raises(NotApplicable, match=r"maps of 4x4 and of 8x8 cannot be compared .* enlarge: true"):
        made(FSKDLR, net(small), net(large))


def test_attention_of_two_shapes_is_refused():
    def attentive(*shapes: tuple[int, ...]) -> Any:
        return net(attention=tuple(torch.zeros(2, *shape) for shape in shapes))

    with pytest.raises(NotApplicable, match="the student has 2 attention maps and the teacher 4"):
        made(ASKD, attentive((4, 1, 1), (1, 8, 8)), attentive(*[(4, 1, 1), (1, 8, 8)] * 2))
    with pytest.raises(NotApplicable, match=r"attention of 1x2x2 and of 1x8x8 cannot be compared; .*enlarge: true"):
        made(ASKD, attentive((4, 1, 1), (1, 2, 2)), attentive((4, 1, 1), (1, 8, 8)))


def test_a_net_with_attention_offers_its_maps_before_the_sigmoid():
    """Applied by hand to what a stage's convolution gives, they make the map; copies answer the same."""
    torch.manual_seed(0)
    one = models.build("cbam_w4", (3, 12, 8), 5).eval()
    x = torch.randn(2, 3, 12, 8)
    out = one.encode(x)
    assert [tuple(a.shape[1:]) for a in out.attention] == [
        (4, 1, 1), (1, 12, 8), (8, 1, 1), (1, 6, 4), (16, 1, 1), (1, 3, 2),
    ]  # fmt: skip
    assert len(list(out)) == 8
    assert len(list(Out(out.logits, out.maps))) == 5
    stage = one.trunk.stages[0]
    by_hand = stage.layer(x) * out.attention[0].sigmoid() * out.attention[1].sigmoid()
    assert torch.allclose(out.preact[0], by_hand, atol=1e-6)
    assert torch.equal(out.maps[0], out.preact[0].relu())
    assert all(torch.equal(a, b) for a, b in zip(out.float().attention, out.attention, strict=True))
    with pytest.raises(NotApplicable, match="no batch norm right before the activation"):
        one.norm(0)


@pytest.mark.parametrize("name", ["isrd", "rakd"])
def test_a_student_of_small_pictures_is_taught_from_large_ones(name, tmp_path):
    """The whole road on digits at 4x4: the student's input is small, the teacher's is not, and both are of one crop."""
    config = run_config(name, "digits", ["pair.student.net=convnet_w4"])
    inputs = {"tiny": Reduced.model_validate({"from": "image", "reduce": 2})}
    given = config.task.data.model_copy(update={"inputs": inputs})
    student = config.task.pair.student.model_copy(update={"input": "tiny"})
    pair = config.task.pair.model_copy(update={"student": student})
    task = config.task.model_copy(update={"data": given, "pair": pair})
    config = type(config)(config.method, task)
    home = Home(tmp_path)
    rows = load_data(config, None, home, Progress.silent())
    place = RunPlace(torch.device("cpu"), home, None, tmp_path / "run")
    teacher = {"image": untrained(task, "image", rows, place.device)}
    prepared = prepare(config, 0, place, rows, teacher)
    stage = next(prepared.method.stages())
    batch = prepared.task.loader(stage, 1).draw(0)
    assert batch.x["tiny"].shape[2:] == (4, 4)
    assert batch.x["image"].shape[2:] == (8, 8)
    terms = stage.losses(batch, SimpleNamespace(epoch=0, epochs=30))
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    assert torch.isfinite(total)
    assert all(p.grad is not None for group in stage.groups for p in group.params)


def test_the_card_of_rakd_says_what_it_follows():
    card = registry.card("rakd")
    assert card.parity == "reconstruction"
    assert len(card.reconstruction.points) == 6
    assert len(card.reconstruction.choices) == 4
