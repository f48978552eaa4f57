"""One update of each of cgan_kd's nets: rows, conditions, losses, who gets a gradient, the average.

On made-up pictures, beside a teacher that answers with given features; values are worked out from the equations.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pictured import N, at, made
from torch import Tensor, nn

from kdbench.methods.cgan_kd import gan
from kdbench.methods.cgan_kd.ratio import ratio_terms

pytestmark = pytest.mark.seam


def check_plain_losses() -> None:
    """The task's own loss of the student."""
    found = made()
    for name in ("vanilla", "mixed"):
        terms = found.stages()[name].losses(found.batch, at())
        expected = F.cross_entropy(found.method.student.out.logits[found.batch.index], found.batch.y)
        assert terms["task"].item() == pytest.approx(expected.item(), rel=1e-5)


class Updates:
    """Notes what an update is asked for: the group, the loss, and what the loss gives a gradient."""

    def __init__(self, **nets: nn.Module) -> None:
        self.nets, self.seen = nets, []

    def __call__(self, loss: Tensor, group: str) -> None:
        parameters = {name: [p for p in net.parameters() if p.requires_grad] for name, net in self.nets.items()}
        every = [p for some in parameters.values() for p in some]
        grads = dict(zip(every, torch.autograd.grad(loss, every, allow_unused=True), strict=True))
        reached = {name for name, some in parameters.items() if any(grads[p] is not None for p in some)}
        self.seen.append((group, loss.item(), reached))


def check_gan_step(kind: str) -> None:
    """Two updates of the discriminator on weighted real and fake rows, one of the generator, then the average."""
    found = made(kind=kind)
    net: Any = found.method.gan
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    net.discriminator.register_forward_hook(lambda _, given, scores: seen.append((*given, scores)))
    made_rows: list[gan.DRows] = []
    d_rows = net.d_rows

    def weighted(n: int, rng: torch.Generator) -> gan.DRows:
        rows = d_rows(n, rng)
        made_rows.append(rows._replace(real_weight=torch.rand(n) + 0.5, fake_weight=torch.rand(n) + 0.5))
        return made_rows[-1]

    net.d_rows = weighted
    updates = Updates(discriminator=net.discriminator, generator=net.generator)
    before = {key: value.clone() for key, value in net.average.state_dict().items()}
    with torch.no_grad():
        for p in net.generator.parameters():
            p += 0.25
    terms = net.step(None, at(step=3), updates)
    assert [(group, reached) for group, _, reached in updates.seen] == [
        ("discriminator", {"discriminator"}), ("discriminator", {"discriminator"}), ("generator", {"generator"}),
    ]  # fmt: skip
    for rows, (images, told, scores), (_, loss, _) in zip(made_rows, seen, updates.seen, strict=False):
        assert torch.equal(images[:4], gan.to_unit(net.raw(rows.real)))
        assert images[4:].abs().max() <= 1
        assert torch.equal(told, torch.cat([rows.real_condition, rows.fake_condition]))
        real, fake = scores[:4], scores[4:]
        expected = (rows.real_weight * F.relu(1 - real)).mean() + (rows.fake_weight * F.relu(1 + fake)).mean()
        assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert updates.seen[-1][1] == pytest.approx(-seen[-1][2].mean().item(), rel=1e-5)
    assert len(seen[-1][2]) == 4
    assert {name: value.item() for name, value in terms.items()} == {
        "discriminator": updates.seen[1][1], "generator": updates.seen[2][1],
    }  # fmt: skip
    assert all(p.requires_grad for p in net.discriminator.parameters())
    for key, mean in net.average.state_dict().items():
        value = net.generator.state_dict()[key]
        expected = 0.75 * before[key] + 0.25 * value if mean.is_floating_point() else value
        assert torch.allclose(mean, expected, atol=1e-6), key
    net.step(None, at(step=2), updates)  # the average starts at step 3 and is the generator before
    for key, mean in net.average.state_dict().items():
        assert torch.equal(mean, net.generator.state_dict()[key]), key


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_gan_step(kind):
    check_gan_step(kind)


def check_gan_draws(kind: str) -> None:
    """What a step draws is of its generator, and its images are augmented before the discriminator, real and fake."""
    values = []
    for seed in (1, 2):
        found = made(kind=kind, diffaugment=["brightness"])
        state = {key: torch.ones_like(value) * 0.05 for key, value in found.method.gan.state_dict().items()}
        found.method.gan.load_state_dict(state, strict=False)
        torch.manual_seed(seed)
        updates = Updates()
        found.method.gan.step(None, at(), lambda loss, group, to=updates: to.seen.append(loss.item()))
        values.append(updates.seen)
    assert values[0] == values[1]


def check_augmentation() -> None:
    """Real and fake rows go through the augmentation in every update, with the settings asked for."""
    found, asked = made(diffaugment=["brightness"]), []
    own = gan.augment
    gan.augment = lambda images, kinds, rng: asked.append((len(images), tuple(kinds))) or own(images, kinds, rng)
    try:
        found.method.gan.step(None, at(), lambda loss, group: None)
    finally:
        gan.augment = own
    assert asked == [(8, ("brightness",)), (8, ("brightness",)), (4, ("brightness",))]


def check_vanilla_gan() -> None:
    """The other loss of the two."""
    found = made(gan_loss="vanilla")
    net: Any = found.method.gan
    seen: list[Tensor] = []
    net.discriminator.register_forward_hook(lambda _, given, scores: seen.append(scores))
    losses: list[float] = []
    net.step(None, at(), lambda loss, group: losses.append(loss.item()))
    real, fake = seen[0][:4], seen[0][4:]
    assert losses[0] == pytest.approx((F.softplus(-real).mean() + F.softplus(fake).mean()).item(), rel=1e-5)
    assert losses[-1] == pytest.approx(F.softplus(-seen[-1]).mean().item(), rel=1e-5)


def check_ratio_step(kind: str) -> None:
    """Real rows and fakes of the same labels, their features constants; one update by loss and penalty."""
    found = made(kind=kind)
    method: Any = found.method
    nn.init.constant_(method.ratio.main[-2].bias, 2.0)  # ratios above 0, as behind its last layer they must be
    method.ratio.eval()
    asked: list[Tensor] = []
    method.phi = lambda raw: asked.append(raw) or torch.arange(float(len(raw)))[:, None].expand(-1, 7) + len(asked)
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    method.ratio.register_forward_hook(lambda _, given, ratio: seen.append((*given, ratio)))
    updates = Updates(ratio=method.ratio)
    terms = method._ratio_step(None, at(), updates)
    rng = at().rng
    index = method.gan.ratio_rows(5, rng)
    labels = method.gan.labels(index)
    fakes = method.gan.sample(labels, rng)
    assert torch.equal(asked[0], method.task.pixels[index])
    assert torch.equal(asked[1], fakes)
    (real, told, r_real), (fake, also_told, r_fake) = seen
    assert torch.equal(real + 1, fake)
    assert torch.equal(told, method.gan.condition(labels))
    assert torch.equal(told, also_told)
    wanted = ratio_terms(r_real, r_fake, method.hp.ratio_penalty)
    assert {name: value.item() for name, value in terms.items()} == {n: v.item() for n, v in wanted.items()}
    ((group, loss, reached),) = updates.seen
    assert (group, reached) == ("ratio", {"ratio"})
    assert loss == pytest.approx((wanted["softplus"] + wanted["penalty"]).item(), rel=1e-6)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_ratio_step(kind):
    check_ratio_step(kind)


def check_feature_step() -> None:
    """Rows drawn uniformly by the step's generator, as pixels in [-1, 1], with their labels."""
    method: Any = made(kind="regression").method
    asked: list[tuple[Tensor, Tensor]] = []

    class Net(nn.Linear):
        def loss(self, images: Tensor, labels: Tensor) -> Tensor:
            asked.append((images, labels))
            return self.weight.sum() * 3

    net = Net(1, 1)
    updates = Updates(features=net)
    terms = method._feature_step(net, None, at(), updates)
    index = torch.randint(N, (6,), generator=at().rng)
    assert torch.equal(asked[0][0], gan.to_unit(method.task.pixels[index]))
    assert torch.equal(asked[0][1], method.gan.labels(index))
    expected = 3 * net.weight.item()
    assert {name: value.item() for name, value in terms.items()} == {"features": pytest.approx(expected)}
    assert updates.seen == [("features", pytest.approx(expected), {"features"})]


def check_embed_step(batch: int) -> None:
    """The label net is to be inverted by the frozen map back, at distinct labels with noise within [0, 1]."""
    found = made(kind="regression", embed_batch=batch)
    net: Any = found.method.gan
    asked: list[Tensor] = []
    net.label_net.register_forward_hook(lambda _, given, __: asked.append(given[0]))
    updates = Updates(label_net=net.label_net)
    terms = net.embed_step(None, at(), updates)
    rng, labels = at().rng, net.distinct
    if len(labels) > batch:
        labels = labels[torch.randint(len(labels), (batch,), generator=rng)]
    noise = 0.2 * torch.randn(len(labels), generator=rng)
    labels = (labels + noise).clamp(0, 1)
    assert torch.allclose(asked[0], labels)
    expected = ((net.back(net.label_net(labels)) - labels) ** 2).mean().item()
    assert terms["embedding"].item() == pytest.approx(expected, rel=1e-5)
    assert updates.seen == [("label_net", pytest.approx(expected, rel=1e-5), {"label_net"})]


@pytest.mark.parametrize("batch", [4, N, N + 1])
def test_embed_step(batch):
    check_embed_step(batch)


CHECKS: list[Callable[[], None]] = [
    check_plain_losses, check_vanilla_gan, check_augmentation, check_feature_step,
    *(partial(check, kind) for check in (check_gan_step, check_gan_draws, check_ratio_step)
      for kind in ("classification", "regression")),
    *(partial(check_embed_step, batch) for batch in (4, N, N + 1)),
]  # fmt: skip
"""Of the updates, which planted faults are held against."""


@pytest.mark.parametrize("check", [check for check in CHECKS if not isinstance(check, partial)])
def test_checks(check):
    check()


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_gan_draws(kind):
    check_gan_draws(kind)
