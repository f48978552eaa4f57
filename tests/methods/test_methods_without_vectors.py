"""Methods without golden vectors against values worked out from the equations in float64."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from kdbench.contract import NotApplicable, Out
from kdbench.methods.ban.adapter import born_again_loss
from kdbench.methods.byot.adapter import BYOT, Exit, feature_loss, soft_loss
from kdbench.methods.dml.adapter import mutual_loss
from kdbench.methods.introspective.adapter import Introspective, explained_alike
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.tf_kd.adapter import self_loss, virtual_loss
from kdbench.specs import registry

Z_S = torch.tensor([[2, 0, -1], [0.5, 1.5, -0.5]], dtype=torch.float64)
Z_T = torch.tensor([[3, 1, -2], [0, 2, 1]], dtype=torch.float64)
Y = torch.tensor([0, 1])
CE = F.cross_entropy(Z_S, Y)


def test_the_common_ground():
    assert CE.item() == pytest.approx(0.288725992000, abs=1e-12)
    assert kd_loss(Z_S, Z_T, 4.0).item() == pytest.approx(0.288301892013, abs=1e-12)


def test_tf_kd():
    assert (0.05 * CE + 0.95 * self_loss(Z_S, Z_T, 20.0)).item() == pytest.approx(0.132000998176, abs=1e-12)
    assert (0.9 * CE + 0.1 * 50 * virtual_loss(Z_S, Y, 40.0)).item() == pytest.approx(1.114063040911, abs=1e-12)


def test_dml():
    first = CE + mutual_loss(Z_S, [Z_T])
    second = F.cross_entropy(Z_T, Y) + mutual_loss(Z_T, [Z_S])
    assert first.item() == pytest.approx(0.378675583455, abs=1e-12)
    assert second.item() == pytest.approx(0.371084221248, abs=1e-12)


def test_dml_takes_the_mean_over_the_other_peers_and_holds_them_constant():
    own, other = Z_S.clone().requires_grad_(), Z_T.clone().requires_grad_()
    loss = mutual_loss(own, [other, other, own])
    assert loss.item() == pytest.approx(2 / 3 * mutual_loss(own, [other]).item())
    loss.backward()
    assert other.grad is None


def test_ban():
    assert born_again_loss(Z_S, Z_T).item() == pytest.approx(0.705819029778, abs=1e-12)
    assert (born_again_loss(Z_S, Z_T) + CE).item() == pytest.approx(0.994545021778, abs=1e-12)


def test_byot():
    shallow = torch.tensor([[1, -1, 0], [0, 2, 0]], dtype=torch.float64)
    deepest = torch.tensor([[0.5, -2, 1], [0, 1, 0]], dtype=torch.float64)
    soft, feature = soft_loss([Z_S], Z_T, 3.0), feature_loss([shallow], deepest)
    assert soft.item() == pytest.approx(9.166151432200, abs=1e-11)
    assert feature.item() == 2.25
    total = 0.9 * (CE + F.cross_entropy(Z_T, Y)) + 0.1 * soft + 1e-6 * feature
    assert total.item() == pytest.approx(1.419673825198, abs=1e-12)


@pytest.mark.parametrize(("stages", "parameters"), [([(64, 32, 32), (128, 16, 16)], 180_680)])
def test_byot_exits_have_the_published_size_on_resnet8x4(stages, parameters):
    exits = [Exit(stage, (256, 8, 8), 100) for stage in stages]
    assert sum(p.numel() for leave in exits for p in leave.parameters()) == parameters


def test_byot_refuses_stages_that_cannot_be_strided_to_the_deepest():
    maps = (torch.zeros(2, 4, 9, 9), torch.zeros(2, 8, 4, 4))
    task = SimpleNamespace(classes=10, probe=lambda net: Out(None, maps))
    with pytest.raises(NotApplicable, match="9x9 cannot be strided to the deepest one's 4x4"):
        BYOT(task, [torch.nn.Identity()], {}, None)


def test_introspective_explanations():
    """Explanations by autograd, of a linear layer on the pooled map; a map of zeros makes all classes equal."""
    rng = torch.Generator().manual_seed(0)
    last, weight = (torch.randn(*shape, generator=rng, dtype=torch.float64) for shape in ((2, 3, 2, 2), (4, 3)))
    last.requires_grad_()
    scores = last.mean((2, 3)) @ weight.T
    explained = [torch.autograd.grad(scores[:, c].sum(), last, retain_graph=True)[0] * last for c in range(4)]
    y = torch.tensor([3, 1])
    own = torch.stack([explained[int(c)][row] for row, c in enumerate(y)]).flatten(1)
    wanted = torch.stack([F.cosine_similarity(own, one.flatten(1)) for one in explained], dim=1)
    found = explained_alike(last, weight, y)
    assert torch.allclose(found, wanted, rtol=1e-9)
    assert not found.requires_grad
    assert torch.equal(explained_alike(torch.zeros_like(last), weight, y), torch.zeros(2, 4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("classes", "reason"),
    [(10, "reads 12 numbers and not the 3 channels of the last map"), (2, "at least 3 classes, the task has 2")],
)
def test_introspective_refuses_what_it_cannot_explain(classes, reason):
    net = torch.nn.Module()
    net.classifier = torch.nn.Linear(12, classes)
    task = SimpleNamespace(classes=classes, probe=lambda net: Out(None, (torch.zeros(2, 3, 2, 2),)))
    with pytest.raises(NotApplicable, match=reason):
        Introspective(task, [net], {}, None)


def test_the_card_of_a_reconstruction_says_what_it_follows():
    card = registry.card("introspective")
    assert card.parity == "reconstruction"
    assert len(card.reconstruction.points) == 7
    assert len(card.reconstruction.choices) == 5


@pytest.mark.parametrize("name", ["dml", "tf_kd", "byot", "ban"])
def test_the_card_says_that_parity_is_not_verified(name):
    assert registry.card(name).parity == "unverified"


@pytest.mark.parametrize(("name", "students"), [("dml", 2), ("dml-4", 4), ("ban", 4), ("tf_kd", 2), ("tf_kd-reg", 1)])
def test_networks_that_are_trained_are_asked_for(name, students):
    ref = registry.method(name)
    hp = ref.card.typed({**ref.card.defaults(), **(ref.variant.params if ref.variant else {})})
    needs = ref.adapter().needs(hp)
    assert needs.students == students
    assert needs.teachers == ()
