"""Any module as a network: the module's own values, taps by path, and one line for what does not fit."""

from __future__ import annotations

import copy
import gc
import importlib.util
import pickle
import threading
import weakref
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tinies
import torch
from own_nets import LAYERS, TAPS, Small, declared
from torch import Tensor, nn

import kdbench
from kdbench import models
from kdbench.base.errors import UserError
from kdbench.checks import rules
from kdbench.checks.nets import check_net, parse_shape
from kdbench.checks.tiny import tiny
from kdbench.contract import NotApplicable, Out
from kdbench.models.hooked import Hooked
from kdbench.specs import nets

torch.set_num_threads(1)
SHAPE = (1, 8, 8)


def small(shape: tuple[int, ...], classes: int) -> nn.Module:
    return Small(shape[0], 4, classes, dropout=0.5)


@pytest.fixture
def net() -> Iterator[Hooked]:
    with declared("small", small, **TAPS):
        torch.manual_seed(0)
        yield models.build("small", SHAPE, 10)  # type: ignore[misc]


def x_of(rows: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(rows, *SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("training", [True, False])
def test_values_and_gradients_are_the_modules_own(net: Hooked, training: bool) -> None:
    torch.manual_seed(0)
    bare = small(SHAPE, 10)
    assert all(torch.equal(value, net.body.state_dict()[key]) for key, value in bare.state_dict().items())
    bare.train(training), net.train(training)
    found = []
    for module in (bare, net.encode):
        torch.manual_seed(1)
        answer = module(x_of())
        logits = answer.logits if isinstance(answer, Out) else answer
        logits.square().sum().backward()
        found.append(logits)
    assert torch.equal(*found)
    pairs = zip(bare.parameters(), net.body.parameters(), strict=True)
    assert all(torch.equal(one.grad, other.grad) for one, other in pairs)  # type: ignore[arg-type]
    for key, value in bare.state_dict().items():
        assert torch.equal(value, net.body.state_dict()[key]), key


def test_taps_give_stages_after_and_before_the_activation(net: Hooked) -> None:
    out = net.train().encode(x_of())
    assert [tuple(m.shape[1:]) for m in out.maps] == [(4, 8, 8), (8, 4, 4), (16, 2, 2)]
    for before, after in zip(out.preact, out.maps, strict=True):
        assert torch.equal(before.relu(), after)
        assert bool((before < 0).any())  # an activation in place did not reach it
    assert out.stem.shape == (4, 4, 8, 8)
    torch.testing.assert_close(net.classifier(out.emb), out.logits)
    bn = net.body.get_submodule("layer2.0.bn2")
    assert net.norm(1)[0] is bn.weight
    (sum(m.square().mean() for m in (*out.maps, *out.preact, out.stem)) + out.emb.sum()).backward()
    assert [key for key, p in net.named_parameters() if p.grad is None] == ["body.fc.weight", "body.fc.bias"]
    for ask in (net.tail, net.extra_tail):
        with pytest.raises(NotApplicable):
            ask(0) if ask == net.tail else ask()


def test_copies_and_pickles_have_taps_of_their_own(net: Hooked) -> None:
    net.eval()
    wanted = net.encode(x_of())
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        out = other.encode(x_of())
        assert all(torch.equal(a, b) for a, b in zip(out.maps + out.preact, wanted.maps + wanted.preact, strict=True))
        with torch.no_grad():
            other.body.conv1.weight.zero_()
        assert not torch.equal(other.encode(x_of()).maps[0], wanted.maps[0])
        assert torch.equal(net.encode(x_of()).maps[0], wanted.maps[0])


def test_nothing_of_a_step_is_held_after_it(net: Hooked) -> None:
    out = net.train().encode(x_of())
    kept = [weakref.ref(tensor) for tensor in (*out.maps, *out.preact, out.emb, out.logits)]
    out.logits.sum().backward()
    del out
    gc.collect()
    assert [ref() for ref in kept] == [None] * len(kept)


def test_an_error_in_a_step_leaves_no_watch_open(net: Hooked) -> None:
    from kdbench.models.hooks import _watches

    with pytest.raises(RuntimeError):
        net.encode(torch.zeros(2, 5, 8, 8))
    assert _watches.open == []


def test_threads_see_what_passed_in_their_own(net: Hooked) -> None:
    """Data parallel: replicas share their hooks, and each runs in a thread of its own."""
    net.eval()
    replicas = [net] + [copy.copy(net) for _ in range(3)]
    for replica in replicas[1:]:
        replica.__dict__ = dict(net.__dict__)
    wanted = [net.encode(x_of(seed=seed)) for seed in range(4)]
    wrong: list[int] = []
    begin = threading.Barrier(4)

    def run(number: int) -> None:
        begin.wait()
        for _ in range(20):
            with torch.no_grad():
                out = replicas[number].encode(x_of(seed=number))
            if not all(torch.equal(a, b) for a, b in zip(out.maps, wanted[number].maps, strict=True)):
                wrong.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def _tuple(logits: Tensor) -> Any:
    return logits, logits.detach() * 2


@pytest.mark.parametrize(
    "answer",
    [
        _tuple,
        lambda logits: {"logits": logits, "other": logits * 0},
        lambda logits: {"scores": logits},
        lambda logits: SimpleNamespace(logits=logits, hidden=None),
        lambda logits: namedtuple("Outputs", ("logits", "aux"))(logits, None),
        lambda logits: [logits],
    ],
)
def test_scores_are_found_in_what_a_module_returns(answer: Any) -> None:
    with declared("small", lambda shape, classes: Small(shape[0], 4, classes, answer), maps=LAYERS):
        net = models.build("small", SHAPE, 10).eval()
    out = net.encode(x_of())
    assert out.logits.shape == (4, 10)
    torch.testing.assert_close(net.classifier(out.emb), out.logits)


def test_a_regression_answers_one_number_a_row() -> None:
    with declared("small", small, **TAPS):
        net = models.build("small", SHAPE, 1)
    assert net.encode(x_of()).logits.shape == (4,)


def test_a_module_without_taps_offers_what_is_found() -> None:
    with declared("bare", small):
        net = models.build("bare", SHAPE, 10)
    out = net.encode(x_of())
    assert (out.maps, out.preact, out.has("stem"), out.emb.shape) == ((), (), False, (4, 16))
    assert isinstance(net.classifier, nn.Linear)
    with pytest.raises(NotApplicable, match="names no batch norms"):
        net.norm(0)


class Tokens(nn.Module):
    """A ViT in few lines: patches of 4, a class token, two blocks."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.patch, self.cls = nn.Conv2d(channels, 12, 4, 4), nn.Parameter(torch.zeros(1, 1, 12))
        self.blocks = nn.ModuleList([nn.TransformerEncoderLayer(12, 2, 24, batch_first=True) for _ in range(2)])
        self.head = nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


def test_tokens_become_maps() -> None:
    taps = {"maps": ["blocks.0", "blocks.1"], "layout": "tokens"}
    with declared("vit", lambda shape, classes: Tokens(shape[0], classes), extra=1, **taps):
        net = models.build("vit", (1, 8, 16), 5)
        assert [tuple(m.shape) for m in net.encode(torch.randn(2, 1, 8, 16)).maps] == [(2, 12, 2, 4)] * 2
        with pytest.raises(UserError, match="patches of 4x4 do not divide inputs of 10x8; give the data a size of 8x8"):
            models.build("vit", (1, 10, 8), 5)
    with declared("vit", lambda shape, classes: Tokens(shape[0], classes), **taps):
        wrong = models.build("vit", (1, 8, 8), 5)
        with pytest.raises(UserError, match="set extra to the number of class and register tokens"):
            wrong.encode(torch.randn(2, 1, 8, 8))


def _ten(shape: tuple[int, ...], classes: int) -> nn.Module:
    return Small(shape[0], 4, 1000)


def _says(answer: Any) -> Any:
    return lambda shape, classes: Small(shape[0], 4, classes, answer)


@pytest.mark.parametrize(
    ("factory", "taps", "line"),
    [
        (small, {"maps": ["layer4"]}, r"maps: no submodule 'layer4' is called .*\(did you mean 'layer"),
        (small, {"maps": LAYERS, "preact": ["bn1"]}, "preact has 1 places, maps 3"),
        (small, {"maps": LAYERS, "norms": ["layer1.0.relu"] * 3}, "has no scale and shift"),
        (small, {"classifier": "layer1"}, "classifier: 'layer1' is a Sequential; name the last nn.Linear"),
        (small, {"emb": "layer3"}, r"emb: 'layer3' has shape \(N, 16, 2, 2\), one vector a row"),
        (_ten, {}, r"scores of shape \(N, 1000\), the task has 10 classes"),
        (_says(lambda logits: "yes"), {}, "returns a str; it should return a tensor of scores"),
        (_says(lambda logits: {"a": logits, "b": logits}), {}, "returns a dict of a, b; it should"),
        (lambda shape, classes: 3, {}, "its factory returns a int, not an nn.Module"),
        (lambda shape, classes: 1 / 0, {}, "cannot be made .* ZeroDivisionError: division by zero"),
        (lambda shape, classes: Small(3, 4, classes), {}, r"cannot read inputs of \(1, 8, 8\): RuntimeError"),
        (lambda shape: None, {}, "cannot be made .* TypeError"),
    ],
)
def test_what_does_not_fit_is_one_line_before_any_training(factory: Any, taps: Any, line: str) -> None:
    with declared("wrong", factory, **taps), pytest.raises(UserError, match=line) as refused:
        models.build("wrong", SHAPE, 10)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "taps", "line"),
    [
        ("Wrong Name", {}, "a net's name is of"),
        ("right", {"maps": "layer1"}, r"maps is a list of module paths; write maps=\['layer1'\]"),
        ("right", {"layout": "NHWC"}, "layout is one of 'channels first'"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(name: str, taps: Any, line: str) -> None:
    with pytest.raises(UserError, match=line):
        kdbench.net(name, **taps)(small)
    assert name not in nets.names()


def test_two_nets_of_one_name_are_refused() -> None:
    with (
        declared("small", small),
        pytest.raises(UserError, match="two nets are called 'small', in"),
    ):
        kdbench.net("small")(small)
    with declared("resnet20", small), pytest.raises(UserError, match="two nets are called 'resnet20', kdbench's own"):
        models.recipe("resnet20")


def test_a_place_that_is_written_to_later_is_said() -> None:
    class Late(Small):
        def forward(self, x: Tensor) -> Any:
            x = self.layer1(self.conv1(x))
            if self.training:
                x.add_(1)
            return self.fc(self.layer3(self.layer2(x)).mean((2, 3)))

    with declared("late", lambda shape, classes: Late(shape[0], 4, classes), maps=LAYERS):
        net = models.build("late", SHAPE, 10)
    net.eval().encode(x_of())
    with pytest.raises(UserError, match="'layer1' was written to in place later on"):
        net.train().encode(x_of())


def test_building_moves_no_generator_and_leaves_the_mode() -> None:
    with declared("small", small, **TAPS):
        torch.manual_seed(3)
        small(SHAPE, 10)
        wanted = torch.rand(1)
        torch.manual_seed(3)
        net = models.build("small", SHAPE, 10)
    assert torch.equal(torch.rand(1), wanted)
    assert all(module.training for module in net.modules())
    assert int(net.body.get_submodule("bn1").num_batches_tracked) == 0


def test_torchvision_nets_have_stages_norms_and_a_classifier() -> None:
    import torchvision

    torch.manual_seed(0)
    net = models.build("torchvision:resnet18", (3, 32, 32), 7).eval()
    torch.manual_seed(0)
    bare = torchvision.models.resnet18(num_classes=7).eval()
    x = torch.randn(2, 3, 32, 32)
    out = net.encode(x)
    assert torch.equal(out.logits, bare(x))
    assert [m.shape[1] for m in out.maps] == [m.shape[1] for m in out.preact] == [64, 128, 256, 512]
    assert [net.norm(stage)[0].numel() for stage in range(4)] == [64, 128, 256, 512]
    for name, shape, line in (
        ("resnet19", (3, 32, 32), "did you mean 'resnet1"),
        ("resnet18", (1, 32, 32), "reads 3 channels, the input has 1"),
        ("vit_b_16", (3, 40, 40), "patches of 16x16 do not divide inputs of 40x40; give the data a size of 32x32 or"),
        ("vit_b_16", (3, 32, 48), "reads square pictures"),
    ):
        with pytest.raises(UserError, match=line):
            models.build(f"torchvision:{name}", shape, 7)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "stages", "stem"),
    [
        ("vgg11_bn", 4, True), ("mobilenet_v2", 4, True), ("shufflenet_v2_x0_5", 4, True), ("densenet121", 4, True),
        ("regnet_y_400mf", 4, True), ("efficientnet_b0", 4, True), ("convnext_tiny", 4, False), ("swin_t", 4, False),
        ("vit_b_16", 4, False), ("googlenet", 4, True), ("mnasnet0_5", 4, True),
    ],
)  # fmt: skip
def test_other_families_of_torchvision(name: str, stages: int, stem: bool) -> None:
    net = models.build(f"torchvision:{name}", (3, 224, 224), 7).eval()
    with torch.no_grad():
        out = net.encode(torch.randn(2, 3, 224, 224))
    assert len(out.maps) == stages
    assert all(m.ndim == 4 and m.shape[2] == m.shape[3] for m in out.maps)
    assert out.has("stem") == stem
    torch.testing.assert_close(net.classifier(out.emb), out.logits)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
def test_a_folder_of_transformers_is_a_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    monkeypatch.chdir(tmp_path)
    vit = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    resnet = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], layer_type="basic"
    )
    torch.manual_seed(0)
    whole = transformers.ViTForImageClassification(vit)
    whole.save_pretrained(tmp_path / "vit")
    resnet.save_pretrained(tmp_path / "resnet")
    net = models.build("hf:./vit", (3, 32, 32), 2).eval()
    x = torch.randn(2, 3, 32, 32)
    assert [tuple(m.shape[1:]) for m in net.encode(x).maps] == [(16, 4, 4)] * 4
    assert torch.equal(net.encode(x).logits, net.body(x).logits)
    from kdbench.models.weights import load_weights

    load_weights(net, "own")
    assert torch.equal(net.encode(x).logits, whole.eval()(x).logits)
    other = models.build("hf:./resnet", (3, 64, 64), 5)
    assert [m.shape[1] for m in other.encode(torch.randn(2, 3, 64, 64)).maps][-1] == 32
    for name, shape, line in (
        ("hf:./none", (3, 32, 32), "no config.json in that folder"),
        ("hf:./vit", (3, 36, 36), "patches of 8x8 do not divide inputs of 36x36"),
    ):
        with pytest.raises(UserError, match=line):
            models.build(name, shape, 5)


def test_patches_of_timms_nets_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UserError, match="its patches of 16x16 do not divide inputs of 30x30"):
        models.build("timm:vit_tiny_patch16_224", (3, 30, 30), 5)


def test_a_check_says_what_a_net_offers_and_to_whom() -> None:
    with declared("small", small, **TAPS), declared("bare", small):
        found, bare = check_net("small", SHAPE, 10), check_net("bare", SHAPE, 10)
    assert found.shapes["maps[2]"] == (16, 2, 2)
    assert found.shapes["emb"] == (16,)
    assert found.offers == {"logits", "maps", "preact", "stem", "emb", "classifier", "norm"}
    assert found.student["ofd"] == frozenset()
    assert found.student["hsakd"] == {"tail"}
    assert bare.student["at"] == {"maps"}
    assert bare.student["kd"] == frozenset()
    assert "plain" not in found.teacher
    assert parse_shape("3, 32,32") == (3, 32, 32)
    with pytest.raises(UserError, match="write 3,32,32"):
        parse_shape("3x32")


FEW = ("at", "fitnet", "reviewkd", "ofd", "crd", "simkd")
OTHERS = [name for name in tinies.METHODS if name not in FEW]


@pytest.mark.parametrize("method", [*FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_methods_step_on_declared_nets(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taps = {**TAPS, "emb": "fc:in"}
    monkeypatch.setitem(tiny.__globals__, "PAIRS", [("image", "own-student", "own-teacher", False)])
    with (
        declared("own-student", lambda shape, classes: Small(shape[0], 4, classes), **taps),
        declared("own-teacher", lambda shape, classes: Small(shape[0], 8, classes), **taps),
    ):
        try:
            task = tinies.tiny_of(method)
        except (NotApplicable, UserError) as reason:  # of detectors it is no backbone
            pytest.skip(f"{method}: {reason}")
        if task.config.task.pair.student.net != "own-student":
            pytest.skip(f"{method} is checked on teachers of another input")
        assert rules._few_steps(task, tmp_path)
