"""Names that torchvision and Hugging Face's transformers give to the tensors of nets that timm has too.

Each scheme turns a file's names into timm's, which for residual nets are torchvision's own. Values stay as they are;
queries, keys and values that one library keeps apart and timm does not are joined.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdbench.models.published import Rule, renamed

State = dict[str, Tensor]


@dataclass(frozen=True)
class Scheme:
    """How a library names the tensors of a family of nets.

    Attributes:
        name: of the library and the family.
        mark: an expression of one key that tells the scheme.
        rules: module names of the library to timm's.
        leaves: keys that belong to no module of their own, to timm's.
        finish: what is done to the renamed tensors; as they are without.
    """

    name: str
    mark: str
    rules: Sequence[Rule]
    leaves: Sequence[tuple[str, str]] = ()
    finish: Callable[[State], State] = lambda state: state

    def key(self, key: str) -> str:
        """timm's key; the same one where no rule knows it."""
        for pattern, name in self.leaves:
            if (found := re.fullmatch(pattern, key)) is not None:
                return found.expand(name)
        return renamed(key, self.rules) or key


def in_timms_names(state: State) -> Iterator[tuple[str, State]]:
    """The tensors under timm's names, and whose names they had, for each scheme that knows them."""
    for scheme in SCHEMES:
        if any(re.fullmatch(scheme.mark, key) for key in state):
            yield scheme.name, scheme.finish({scheme.key(key): value for key, value in state.items()})


_APART = ("query", "key", "value")
"""What Hugging Face keeps apart."""


def _joined(state: State) -> State:
    """Query, key and value of each attention, (D, D) or (D,) each, as one tensor (3 D, ...)."""
    parts = [f".{name}." for name in _APART]
    joined = {key: value for key, value in state.items() if not any(part in key for part in parts)}
    for key in state:
        others = [key.replace(parts[0], part) for part in parts]
        if parts[0] in key and all(other in state for other in others):
            joined[key.replace(parts[0], ".qkv.")] = torch.cat([state[other] for other in others])
    return joined


def _flat_scales(state: State) -> State:
    """Scales (C, 1, 1) as (C,)."""
    return {key: value.flatten() if key.endswith(".gamma") else value for key, value in state.items()}


def _up(pattern: str, template: str) -> Rule:
    """A rule whose groups called ``s`` and ``k`` count from 0 there and from 1 in timm."""

    def name(found: re.Match[str]) -> str:
        numbers = {key: int(value) for key, value in found.groupdict().items() if value is not None}
        return template.format(**{key: n + 1 if key in "sk" else n for key, n in numbers.items()})

    return pattern, name


def _half(pattern: str, template: str, first: int) -> Rule:
    """A rule whose group ``s`` counts stages and what lies between them by turns, from ``first``."""
    return pattern, lambda found: template.format(s=(int(found["s"]) - first) // 2, b=found.groupdict().get("b"))


_STAGE = r"(?:resnet\.)?encoder\.stages\.(?P<s>\d+)\.layers\.(?P<b>\d+)"
_HF_LAYER = r"(?:vit\.|deit\.)?(?:encoder\.layer|layers)\.(\d+)"
_TV_LAYER = r"encoder\.layers\.encoder_layer_(\d+)"

_MOBILE = (1, 2, 3, 4, 3, 3, 1)
"""Blocks a stage of MobileNetV2 (Sandler et al. 2018, table 2), which torchvision numbers through."""
_MOBILE_PARTS = {
    1: {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"},
    2: {"0.0": "conv_pw", "0.1": "bn1", "1.0": "conv_dw", "1.1": "bn2", "2": "conv_pwl", "3": "bn3"},
}
"""Parts of a block that does not widen its input, which the first stage has, and of one that does."""


def _mobile(found: re.Match[str]) -> str:
    number = int(found["n"]) - 1
    if not 0 <= number < sum(_MOBILE):
        return found[0]
    stage = 0
    while number >= _MOBILE[stage]:
        number, stage = number - _MOBILE[stage], stage + 1
    part = _MOBILE_PARTS[min(stage + 1, 2)].get(found["part"])
    return f"blocks.{stage}.{number}.{part}" if part is not None else found[0]


SCHEMES = (
    Scheme(
        "Hugging Face's ResNet",
        r"(?:resnet\.)?embedder\.embedder\.convolution\.weight",
        (
            (r"(?:resnet\.)?embedder\.embedder\.convolution", "conv1"),
            (r"(?:resnet\.)?embedder\.embedder\.normalization", "bn1"),
            _up(rf"{_STAGE}\.layer\.(?P<k>\d+)\.convolution", "layer{s}.{b}.conv{k}"),
            _up(rf"{_STAGE}\.layer\.(?P<k>\d+)\.normalization", "layer{s}.{b}.bn{k}"),
            _up(rf"{_STAGE}\.shortcut\.convolution", "layer{s}.{b}.downsample.0"),
            _up(rf"{_STAGE}\.shortcut\.normalization", "layer{s}.{b}.downsample.1"),
            (r"classifier\.1", "fc"),
        ),
    ),
    Scheme(
        "Hugging Face's ViT",
        r"(?:vit\.|deit\.)?embeddings\.patch_embeddings\.projection\.weight",
        (
            (r"(?:vit\.|deit\.)?embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
            (rf"{_HF_LAYER}\.layernorm_before", r"blocks.\1.norm1"),
            (rf"{_HF_LAYER}\.layernorm_after", r"blocks.\1.norm2"),
            *((rf"{_HF_LAYER}\.attention\.attention\.{name}", rf"blocks.\1.attn.{name}") for name in _APART),
            (rf"{_HF_LAYER}\.attention\.(?:output\.dense|o_proj)", r"blocks.\1.attn.proj"),
            (rf"{_HF_LAYER}\.(?:intermediate\.dense|mlp\.fc1)", r"blocks.\1.mlp.fc1"),
            (rf"{_HF_LAYER}\.(?:output\.dense|mlp\.fc2)", r"blocks.\1.mlp.fc2"),
            *((rf"{_HF_LAYER}\.attention\.{name[0]}_proj", rf"blocks.\1.attn.{name}") for name in _APART),
            (r"(?:vit\.|deit\.)?layernorm", "norm"),
            (r"classifier", "head"),
        ),
        (
            (r"(?:vit\.|deit\.)?embeddings\.cls_token", "cls_token"),
            (r"(?:vit\.|deit\.)?embeddings\.position_embeddings", "pos_embed"),
        ),
        _joined,
    ),
    Scheme(
        "torchvision's ViT",
        r"encoder\.layers\.encoder_layer_0\.self_attention\.in_proj_weight",
        (
            (r"conv_proj", "patch_embed.proj"),
            (rf"{_TV_LAYER}\.ln_1", r"blocks.\1.norm1"),
            (rf"{_TV_LAYER}\.ln_2", r"blocks.\1.norm2"),
            (rf"{_TV_LAYER}\.self_attention\.out_proj", r"blocks.\1.attn.proj"),
            (rf"{_TV_LAYER}\.mlp\.(?:0|linear_1)", r"blocks.\1.mlp.fc1"),
            (rf"{_TV_LAYER}\.mlp\.(?:3|linear_2)", r"blocks.\1.mlp.fc2"),
            (r"encoder\.ln", "norm"),
            (r"heads\.head", "head"),
        ),
        (
            (r"class_token", "cls_token"),
            (r"encoder\.pos_embedding", "pos_embed"),
            (rf"{_TV_LAYER}\.self_attention\.in_proj_(weight|bias)", r"blocks.\1.attn.qkv.\2"),
        ),
    ),
    Scheme(
        "torchvision's ConvNeXt",
        r"features\.1\.0\.layer_scale",
        (
            (r"features\.0\.([01])", r"stem.\1"),
            _half(r"features\.(?P<s>[1357])\.(?P<b>\d+)\.block\.0", "stages.{s}.blocks.{b}.conv_dw", 1),
            _half(r"features\.(?P<s>[1357])\.(?P<b>\d+)\.block\.2", "stages.{s}.blocks.{b}.norm", 1),
            _half(r"features\.(?P<s>[1357])\.(?P<b>\d+)\.block\.3", "stages.{s}.blocks.{b}.mlp.fc1", 1),
            _half(r"features\.(?P<s>[1357])\.(?P<b>\d+)\.block\.5", "stages.{s}.blocks.{b}.mlp.fc2", 1),
            _half(r"features\.(?P<s>[246])\.0", "stages.{s}.downsample.0", 0),
            _half(r"features\.(?P<s>[246])\.1", "stages.{s}.downsample.1", 0),
            (r"classifier\.0", "head.norm"),
            (r"classifier\.2", "head.fc"),
            # The scale is a tensor of the block itself; `renamed` parts its name at the last dot.
            _half(r"features\.(?P<s>[1357])\.(?P<b>\d+)", "stages.{s}.blocks.{b}", 1),
        ),
        finish=lambda state: _flat_scales(
            {re.sub(r"(blocks\.\d+)\.layer_scale$", r"\1.gamma", key): value for key, value in state.items()}
        ),
    ),
    Scheme(
        "torchvision's MobileNetV2",
        r"features\.1\.conv\.0\.0\.weight",
        (
            (r"features\.0\.0", "conv_stem"),
            (r"features\.0\.1", "bn1"),
            (r"features\.18\.0", "conv_head"),
            (r"features\.18\.1", "bn2"),
            (r"features\.(?P<n>\d+)\.conv\.(?P<part>[\d.]+)", _mobile),
            (r"classifier\.1", "classifier"),
        ),
    ),
)
