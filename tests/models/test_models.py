"""Nets by name, and what every net of the zoo promises."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from kdbench import models
from kdbench.base.errors import UserError
from kdbench.contract import Batch, Network

torch.set_num_threads(1)

SHAPES = {
    models.IMAGE: (3, 32, 32),
    models.SERIES: (2, 16),
    models.CLIP: (3, 4, 16, 16),
    models.VECTOR: (12,),
}
LIGHT = {
    "resnet8",
    "resnet20",
    "resnet8x4",
    "wrn_16_1",
    "wrn_16_2",
    "vgg8",
    "mobilenetv2",
    "shufflenetv1",
    "shufflenetv2",
}
"""Of the image zoo; deeper nets of the same families are tested at leisure."""
FILLED = {"<width>": "4", "<stages>": "4", "<depth>": "1", "<heads>": "2", "<patch>": "8", "<name>": "test_resnet"}


def concrete(name: str) -> str:
    for placeholder, value in FILLED.items():
        name = name.replace(placeholder, value)
    return name


LIBRARIES = {"torchvision:<name>", "hf:<id>"}
"""Looked at in test_models_hooked.py."""
NAMES = [concrete(name) for name in models.own() if name not in LIBRARIES and "<net>" not in name]
NAMES = [name for name in NAMES if not models.recipe(name).sentences]
HEAVY = {n for n in models.ZOO if models.recipe(n).axes == models.IMAGE and n not in LIGHT} | {
    "r2plus1d_18",
    "r2plus1d_34",
}
EVERY = [pytest.param(n, marks=pytest.mark.slow) if n in HEAVY else n for n in NAMES]
STAGED = [n for n in NAMES if models.recipe(n).module not in ("mlp", "timm_net", "vit")]
EVERY_STAGED = [pytest.param(n, marks=pytest.mark.slow) if n in HEAVY else n for n in STAGED]


def shape_of(name: str) -> tuple[int, ...]:
    return SHAPES[models.recipe(name).axes]


def fresh(name: str, outputs: int = 7) -> Network:
    torch.manual_seed(0)
    return models.build(name, shape_of(name), outputs)


def inputs(name: str, rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, *shape_of(name), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", EVERY)
def test_forward(name: str) -> None:
    """Shapes agree, the embedding is what the classifier reads, evaluation repeats itself and is per row."""
    net, x = fresh(name).eval(), inputs(name)
    batch = Batch({"image": x, "other": torch.zeros(1)}, torch.zeros(3), torch.arange(3))
    with torch.no_grad():
        out, again, single = net(batch), net.encode(x), net.encode(x[:1])
    assert out.logits.shape == (3, 7)
    assert out.emb.shape == (3, net.classifier.in_features)
    torch.testing.assert_close(net.classifier(out.emb), out.logits)
    assert len(out.preact) in (0, len(out.maps))
    for before, after in zip(out.preact, out.maps, strict=False):
        assert before.shape == after.shape
    sizes = [after.shape[-1] for after in out.maps]
    assert sizes == sorted(sizes, reverse=True)
    torch.testing.assert_close(out.logits, again.logits, rtol=0, atol=0)
    torch.testing.assert_close(out.logits[:1], single.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_every_parameter_learns(name: str) -> None:
    """The logits alone reach every parameter: a net holds nothing that serves training only."""
    net = fresh(name)
    net.encode(inputs(name)).logits.square().sum().backward()
    assert [key for key, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", EVERY)
def test_a_regression_predicts_one_number_a_row(name: str) -> None:
    net = fresh(name, 1).eval()
    with torch.no_grad():
        out = net.encode(inputs(name))
    assert out.logits.shape == (3,)
    torch.testing.assert_close(net.classifier(out.emb)[:, 0], out.logits)


@pytest.mark.parametrize("name", EVERY)
def test_equal_draws_build_equal_nets_and_states_carry_over(name: str) -> None:
    net, twin = fresh(name), fresh(name)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))
    other = models.build(name, shape_of(name), 7)
    other.load_state_dict(net.state_dict())
    x = inputs(name)
    with torch.no_grad():
        torch.testing.assert_close(other.eval().encode(x).logits, net.eval().encode(x).logits, rtol=0, atol=0)


HOOKED = [one for one in EVERY_STAGED if "cbam" not in str(one)]
"""cbam's trunk asks its stages for their attentions too, past the call that a hook sees."""


@pytest.mark.parametrize("name", HOOKED)
def test_later_layers_leave_earlier_taps_alone(name: str) -> None:
    """What a tap holds after the whole pass is what its layer returned: nothing downstream works in place."""
    net, seen = fresh(name), []
    if net.stem is not None:
        net.stem.register_forward_hook(lambda module, args, out: seen.append(out.clone()))
    for stage in net.trunk.stages:
        stage.register_forward_hook(
            lambda module, args, out: seen.append((out[0] if isinstance(out, tuple) else out).clone())
        )
    out = net.encode(inputs(name))
    kept = [*([out.stem] if out.has("stem") else []), *out.maps]
    assert len(seen) == len(kept)
    for then, now in zip(seen, kept, strict=True):
        torch.testing.assert_close(then, now, rtol=0, atol=0)
    loss = sum(t.square().mean() for t in (*out.maps, *out.preact))
    loss.backward()  # autograd refuses tensors changed after it saved them


@pytest.mark.parametrize("name", EVERY_STAGED)
def test_a_tail_continues_its_stage(name: str) -> None:
    """With the net's own weights a tail gives the net's own output; fresh, it is trainable and of other weights."""
    net = fresh(name).eval().requires_grad_(False)
    x = inputs(name)
    out = net.encode(x)
    own = net.state_dict()
    for stage in range(len(out.maps)):
        tail = net.tail(stage)
        assert all(p.requires_grad for p in tail.parameters())
        assert all(module.training for module in tail.modules())
        assert not torch.equal(tail.classifier.weight, net.classifier.weight)
        mapped = {}
        for key in tail.state_dict():
            key_here = key.replace("classifier.", "fc.")
            if key.startswith("trunk.stages."):
                _, _, number, rest = key.split(".", 3)
                key_here = f"trunk.stages.{int(number) + stage + 1}.{rest}"
            mapped[key] = own[key_here]
        tail.load_state_dict(mapped)
        result = tail.eval()(out.maps[stage])
        torch.testing.assert_close(result.logits, out.logits)
        assert len(result.maps) == len(result.preact) == len(out.maps) - stage - 1
    torch.testing.assert_close(net.encode(x).logits, out.logits, rtol=0, atol=0)


@pytest.mark.parametrize("name", EVERY_STAGED)
def test_an_extra_tail_adds_one_stage_of_the_last_shape(name: str) -> None:
    net = fresh(name)
    out = net.encode(inputs(name))
    tail = net.extra_tail()
    result = tail(out.maps[-1])
    assert [m.shape for m in result.maps] == [out.maps[-1].shape]
    assert result.logits.shape == out.logits.shape
    result.logits.square().sum().backward()
    assert all(p.grad is not None for p in tail.parameters())


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1", "vgg8", "mobilenetv2", "shufflenetv2", "convnet1d_w4"])
def test_a_copy_is_independent_and_whole(name: str) -> None:
    net = fresh(name).eval()
    twin, x = copy.deepcopy(net), inputs(name)
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
        before = fresh(name).eval().encode(x).logits
        torch.testing.assert_close(net.encode(x).logits, before, rtol=0, atol=0)
        assert not twin.encode(x).logits.any()


def test_a_stage_norm_is_the_nets_own_parameter_after_a_copy_and_a_module_swap() -> None:
    net = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(fresh("resnet8")))
    scale, _ = net.norm(0)
    assert any(scale is p for p in net.parameters())


def test_channels_follow_the_input() -> None:
    for channels in (1, 5):
        net = models.build("resnet8", (channels, 8, 8), 3)
        assert net.encode(torch.zeros(2, channels, 8, 8)).logits.shape == (2, 3)


def test_the_input_is_read_by_name() -> None:
    net = models.build("linear", (4,), 2, input_name="audio")
    x = torch.randn(3, 4)
    out = net(Batch({"image": torch.zeros(3, 1, 2, 2), "audio": x}, torch.zeros(3), torch.arange(3)))
    torch.testing.assert_close(out.emb, x, rtol=0, atol=0)


def test_known_names_are_recipes_and_others_are_refused_with_the_nearest() -> None:
    assert len(set(models.known())) == len(models.known()) >= 22
    for name in NAMES:
        assert models.recipe(name)
    for wrong, right in [
        ("resnet8x5", "resnet8x4"),
        ("WRN_40_2", "wrn_40_2"),
        ("vgg-13", "vgg13"),
        ("shuffle", "shuffle"),
    ]:
        with pytest.raises(UserError, match=right) as error:
            models.build(wrong, (3, 32, 32), 10)
        assert "\n" not in str(error.value)
    for wrong in ("convnet_w0", "convnet_w", "convnet_w2x", "timm:", "convnet_w1٣"):
        with pytest.raises(UserError, match="no net is called"):
            models.recipe(wrong)


def test_an_input_of_the_wrong_axes_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"'resnet8' reads inputs of \(channels, height, width\).*'sound' has shape \(2, 8\)"
    ):
        models.build("resnet8", (2, 8), 10, input_name="sound")


def test_names_need_no_torch() -> None:
    code = "import sys, kdbench.models as m; m.recipe('timm:x'); assert not {'torch', 'timm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_graph_takes_any_number_of_rows(name: str) -> None:
    """What ``kdbench export`` writes: nothing in a net fixes the size of a batch."""
    net = fresh(name).eval()
    any_number = ({0: torch.export.Dim("batch")},)
    with torch.no_grad():
        graph = torch.export.export(Scores(net), (inputs(name, 2),), dynamic_shapes=any_number).module()
        for rows in (1, 5):
            torch.testing.assert_close(graph(inputs(name, rows)), net.encode(inputs(name, rows)).logits)


class Scores(torch.nn.Module):
    """A net's scores alone."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net.encode(x).logits
