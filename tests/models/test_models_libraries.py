"""Weights under torchvision's and Hugging Face's names compute in timm's nets what they computed there."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filled import filled
from safetensors.torch import save_file
from torchvision import models as theirs

from kdbench import models
from kdbench.base.errors import UserError
from kdbench.models.weights import load_weights

torch.set_num_threads(1)
SAVED: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("huggingface_nets.json").read_text())
"""Of transformers' own nets: shapes by the names they save, and logits (float64) of the weights of `filled`."""
VIT = partial(
    theirs.VisionTransformer,
    image_size=224, patch_size=16, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768, num_classes=10,
)  # fmt: skip


@pytest.mark.parametrize(
    ("make", "name", "size", "said"),
    [
        (partial(theirs.resnet18, num_classes=10), "timm:resnet18", 32, ""),
        (partial(theirs.mobilenet_v2, num_classes=10), "timm:mobilenetv2_100", 32, "torchvision's MobileNetV2"),
        pytest.param(
            partial(theirs.convnext_tiny, num_classes=10), "timm:convnext_tiny", 32, "torchvision's ConvNeXt",
            marks=pytest.mark.slow,
        ),
        (VIT, "timm:vit_tiny_patch16_224", 224, "torchvision's ViT"),
    ],
)  # fmt: skip
def test_torchvisions_weights(make: Any, name: str, size: int, said: str, tmp_path: Path) -> None:
    there = make().eval()
    for key, value in there.state_dict().items():
        if value.is_floating_point():
            value.copy_(filled(key, tuple(value.shape)).abs() if "running_var" in key else value + 0.01)
    save_file(there.state_dict(), tmp_path / "w.safetensors")
    here = models.build(name, (3, size, size), 10).eval()
    loaded = load_weights(here, tmp_path / "w.safetensors")
    assert loaded.said.endswith(f"under the names of {said}") if said else not loaded.said
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(here.encode(x).logits, there(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("family", "name", "size"), [("resnet", "resnet18", 32), ("vit", "vit_tiny_patch16_224", 224)])
def test_weights_that_transformers_saved(family: str, name: str, size: int, tmp_path: Path) -> None:
    about = SAVED[family]
    save_file({key: filled(key, tuple(shape)) for key, shape in about["tensors"].items()}, tmp_path / "w.safetensors")
    here = models.build(f"timm:{name}", (3, size, size), 10).double().eval()
    assert "names of Hugging Face's" in load_weights(here, tmp_path / "w.safetensors").said
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, size, size)))
    with torch.no_grad():
        logits = here.encode(x).logits[0]
    # timm's layer norms add 1e-6 to a variance where transformers' add 1e-12.
    torch.testing.assert_close(logits, torch.tensor(about["logits"]).double(), rtol=1e-3, atol=1e-3)


def test_a_head_of_other_classes_is_dropped_under_any_names(tmp_path: Path) -> None:
    tensors = {key: filled(key, tuple(shape)).float() for key, shape in SAVED["resnet"]["tensors"].items()}
    save_file(tensors, tmp_path / "w.safetensors")
    here = models.build("timm:resnet18", (3, 32, 32), 7)
    with pytest.raises(UserError, match=r"of 10 classes where the task has 7: leave it out with .*head: drop"):
        load_weights(here, tmp_path / "w.safetensors")
    load_weights(here, f"{tmp_path / 'w.safetensors'}#features")
    assert torch.equal(here.state_dict()["body.conv1.weight"], tensors["resnet.embedder.embedder.convolution.weight"])
