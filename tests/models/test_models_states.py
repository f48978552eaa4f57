"""Weights as the world saves them: nested, behind prefixes, under the literature's names, with other things beside."""

from __future__ import annotations

import argparse
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filled import filled

from kdbench import models
from kdbench.base.errors import UserError
from kdbench.contract import Network
from kdbench.models.weights import load_weights

torch.set_num_threads(1)
PUBLISHED: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("published_nets.json").read_text())
"""Of RepDistiller's own nets: module names, and logits (float64) of the weights of `filled`."""

State = dict[str, torch.Tensor]


def net(outputs: int = 10, name: str = "convnet_w4") -> Network:
    return models.build(name, (3, 32, 32), outputs)


def saved(folder: Path, content: object) -> str:
    torch.save(content, folder / "w.pth")
    return str(folder / "w.pth")


def same(a: Network, b: Network) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


WAYS: dict[str, Callable[[State], object]] = {
    "as it is": lambda w: w,
    "DataParallel": lambda w: {"state_dict": prefixed("module.", w), "epoch": 3},
    "compiled": lambda w: prefixed("_orig_mod.", w),
    "compiled DataParallel": lambda w: {"model": prefixed("module._orig_mod.", w)},
    "a compiled part": lambda w: {
        "net": {key.replace("trunk.", "trunk._orig_mod."): value for key, value in w.items()}
    },
    "Lightning": lambda w: {"state_dict": prefixed("model.", w), "pytorch-lightning_version": "2.0"},
    "RepDistiller": lambda w: {"epoch": 240, "model": w, "best_acc": torch.tensor(7.0), "optimizer": {"state": {}}},
    "model_state_dict": lambda w: {"model_state_dict": w, "optimizer_state_dict": {"state": {0: {"m": w["fc.bias"]}}}},
    "net": lambda w: {"net": w, "acc": 9.0},
    "nested twice": lambda w: {"checkpoint": {"weights": {"module": w}}},
    "only an average": lambda w: {"ema": {"module": w, "updates": 5}},
    "an average beside": lambda w: {"state_dict_ema": {k: 2 * v for k, v in w.items()}, "state_dict": w},
    "the same twice": lambda w: {"model": w, "best": {k: v.clone() for k, v in w.items()}},
    "a backbone and its classifier": lambda w: {
        (key if key.startswith("fc.") else f"backbone.{key}"): value for key, value in w.items()
    },
    "a distiller": lambda w: {"model": prefixed("module.student.", w) | {"module.teacher.conv1.weight": w["fc.bias"]}},
    "no counters": lambda w: {key: value for key, value in w.items() if not key.endswith("num_batches_tracked")},
    "half precision": lambda w: {k: v.half() if v.is_floating_point() else v for k, v in w.items()},
}


@pytest.mark.parametrize("way", WAYS)
def test_weights_are_found_however_they_were_saved(tmp_path: Path, way: str) -> None:
    source, target = net(), net()
    state = {key: torch.ones_like(value) * number for number, (key, value) in enumerate(source.state_dict().items())}
    state |= {key: torch.zeros_like(value) for key, value in state.items() if key.endswith("num_batches_tracked")}
    source.load_state_dict(state)
    load_weights(target, saved(tmp_path, WAYS[way](state)))
    assert same(source, target)


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"model": prefixed("module.", w)}])
def test_a_net_inside_is_found_behind_prefixes_too(tmp_path: Path, wrap: Callable[[State], object]) -> None:
    source, target = (net(name="timm:test_resnet") for _ in range(2))
    load_weights(target, saved(tmp_path, wrap(source.body.state_dict())))
    assert same(source, target)


def test_of_several_that_fit_none_is_taken(tmp_path: Path) -> None:
    state = net().state_dict()
    both = prefixed("student.", state) | prefixed("teacher.", net().state_dict())
    file = saved(tmp_path, both)
    with pytest.raises(UserError, match=r"hold several that fit, 'student' and 'teacher'; name one .*part: student"):
        load_weights(net(), file)
    target = net()
    load_weights(target, f"{file}#part=teacher")
    assert torch.equal(target.classifier.weight, both["teacher.fc.weight"])
    with pytest.raises(UserError, match=r"have no part 'teachr' \(did you mean 'teacher'\?\); there are 'student', 't"):
        load_weights(net(), f"{file}#part=teachr")


def test_an_average_is_read_where_it_is_named(tmp_path: Path) -> None:
    state, average = net().state_dict(), net().state_dict()
    file = saved(tmp_path, {"epoch": 3, "state_dict": state, "model_ema": {"module": average}})
    for spec, wanted in ((file, state), (f"{file}#part=model_ema", average)):
        target = net()
        load_weights(target, spec)
        assert torch.equal(target.classifier.weight, wanted["fc.weight"])


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("as it is", ""),
        ("DataParallel", ": its part 'state_dict.module'"),
        ("a backbone and its classifier", ": without module., model., net. and their like before keys"),
    ],
)
def test_how_weights_were_read_is_one_line(tmp_path: Path, way: str, said: str) -> None:
    file = saved(tmp_path, WAYS[way](net().state_dict()))
    assert load_weights(net(), file).said == (f"weights {file!r}{said}" if said else "")


def test_a_key_that_does_not_fit_stands_beside_its_nearest(tmp_path: Path) -> None:
    state = net().state_dict()
    state["trunk.stages.0.layer.convolution.weight"] = state.pop("trunk.stages.0.layer.conv.weight")
    with pytest.raises(UserError) as error:
        load_weights(net(), saved(tmp_path, {"model": prefixed("module.", state)}))
    assert (
        "1 missing (trunk.stages.0.layer.conv.weight (did you mean 'trunk.stages.0.layer.convolution.weight'?)); "
        "1 unknown (trunk.stages.0.layer.convolution.weight)" in str(error.value)
    )


def test_weights_for_other_classes_say_what_to_append(tmp_path: Path) -> None:
    file = saved(tmp_path, net(7).state_dict())
    with pytest.raises(UserError, match=r"its head alone is another, of 7 classes where the task has 10: .*head: drop"):
        load_weights(net(), file)
    load_weights(net(), f"{file}#features")


OBJECTS: dict[str, Callable[[Path], None]] = {
    "argparse.Namespace": lambda p: torch.save({"model": net().state_dict(), "args": argparse.Namespace(lr=1)}, p),
    "numpy": lambda p: torch.save({"model": net().state_dict(), "best": np.float64(75.1)}, p),
    "kdbench.models": lambda p: torch.save(net(), p),
    "Python objects": lambda p: p.write_bytes(pickle.dumps({"a": np.zeros(3)})),  # type: ignore[dict-item,return-value]
}


@pytest.mark.parametrize("what", OBJECTS)
def test_files_with_python_objects_are_one_line_that_says_how_to_save_them(
    tmp_path: Path, what: str, recwarn: pytest.WarningsRecorder
) -> None:
    OBJECTS[what](tmp_path / "w.pth")
    recwarn.clear()
    with pytest.raises(UserError) as error:
        load_weights(net(), tmp_path / "w.pth")
    message = str(error.value)
    assert what in message
    assert "re-save its tensors alone" in message
    assert "\n" not in message
    assert "\x1b" not in message
    assert not recwarn.list


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = net().state_dict()
    state["fc.bias"][3] = float("nan")
    with pytest.raises(UserError, match=r"fc\.bias has values that are not finite"):
        load_weights(net(), saved(tmp_path, state))


# ---- the literature's names -----------------------------------------------------------------------------------------


def published(name: str) -> State:
    """Weights under the published names, without the counters that older files lack; shapes are those of our net."""
    about = PUBLISHED[name]
    plain = ["weight", "bias"]
    keys = [f"{module}.{leaf}" for module in about["convolutions"] for leaf in (plain if about["bias"] else plain[:1])]
    keys += [f"{module}.{leaf}" for module in about["norms"] for leaf in (*plain, "running_mean", "running_var")]
    keys += [f"{module}.{leaf}" for module in about["linear"] for leaf in plain]
    target = net(name=name)
    shapes = {key: tuple(value.shape) for key, value in target.state_dict().items()}
    return {key: filled(key, shapes[target.published_key(key)]) for key in keys}  # type: ignore[operator]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_compute_what_they_computed_where_they_were_trained(tmp_path: Path, name: str) -> None:
    target = net(name=name).double().eval()
    file = saved(tmp_path, {"epoch": 240, "model": prefixed("module.", published(name)), "best_acc": torch.tensor(7.0)})
    load_weights(target, file)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, 32, 32)))
    with torch.no_grad():
        logits = target.encode(x).logits[0]
    torch.testing.assert_close(logits, torch.tensor(PUBLISHED[name]["logits"]).double(), rtol=1e-5, atol=1e-5)


def test_weights_of_a_net_of_equal_shapes_that_computes_otherwise_are_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, published("shufflenetv1_relu"))
    with pytest.raises(UserError, match=r"no ReLU behind the depthwise convolution; .*name the net shufflenetv1_relu"):
        load_weights(net(name="shufflenetv1"), file)
    own = net(name="shufflenetv1")
    load_weights(net(name="shufflenetv1"), saved(tmp_path, own.state_dict()))


def test_published_features_start_a_student_for_other_classes(tmp_path: Path) -> None:
    state = published("resnet8")
    target = net(7, "resnet8")
    own = target.fc.weight.detach().clone()
    load_weights(target, f"{saved(tmp_path, state)}#features")
    assert torch.equal(target.fc.weight, own)
    torch.testing.assert_close(target.stem[0].conv.weight, state["conv1.weight"].float())
    with pytest.raises(UserError, match=r"2 of another shape \(fc.weight \(10, 64\) for \(7, 64\)"):
        load_weights(target, tmp_path / "w.pth")
