"""Weights from a file, from the model hub or from timm into a network, all of them or an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from kdbench.contract import Network
from kdbench.errors import UserError
from kdbench.files import sha256
from kdbench.models.origin import TIMM, Origin

HUB = re.compile(r"hub:(?P<id>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
HUB_FILE = "model.safetensors"
SHOWN = 4
"""Keys named of each kind of mismatch."""


def load_weights(net: Network, spec: str | Path, *, features: bool = False) -> str:
    """Load every weight and buffer of ``net``.

    Args:
        net: changed in place.
        spec: a ``.safetensors`` file or a torch file of tensors only, with the keys of ``net`` or of the net inside it;
            ``hub:<owner>/<name>`` or ``hub:<owner>/<name>@<revision>``; ``timm``, for the weights timm ships with a
            ``timm:`` net. With ``#features`` behind any of these the classifier stays as it is: for a teacher that only
            lends its features, or to start training from weights for other classes.
        features: as if ``#features`` stood there.

    Returns:
        The SHA-256 of ``net``'s state as a safetensors file: one and the same for equal weights of any origin.

    Raises:
        UserError: nothing to read there, or keys or shapes that do not fit, which are named. ``net`` is unchanged then.
    """
    origin = Origin.of(str(spec))
    state = _read(net, origin)
    target = _target(net, state)
    expected = target.state_dict()
    if origin.features or features:
        own = _prefix(target, net.classifier)
        state = {key: value for key, value in state.items() if not key.startswith(own)}
        state |= {key: value for key, value in expected.items() if key.startswith(own)}
    if problem := _mismatch(expected, state):
        raise UserError(f"weights {str(spec)!r} do not fit {type(net).__name__}: {problem}")
    target.load_state_dict(state)
    return sha256(save({key: value.cpu().contiguous() for key, value in net.state_dict().items()}))


def _read(net: Network, origin: Origin) -> dict[str, Tensor]:
    if origin.source == TIMM:
        return _from_timm(net)
    return _from_file(origin.path or _from_hub(origin.source), origin.source)


def _from_timm(net: Network) -> dict[str, Tensor]:
    pretrained = getattr(net, "pretrained", None)
    if pretrained is None:
        raise UserError(f"weights 'timm' need a 'timm:' net, not {type(net).__name__}; name a file or 'hub:<id>'")
    try:
        return dict(pretrained())
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"timm has no weights at hand for this net: {_line(error)}; check its tag and the network"
        ) from error


def _from_hub(spec: str) -> Path:
    match = HUB.fullmatch(spec)
    if match is None:
        raise UserError(f"weights {spec!r} should read 'hub:<owner>/<name>' or 'hub:<owner>/<name>@<revision>'")
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(match["id"], HUB_FILE, revision=match["revision"]))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot get {HUB_FILE} of {spec!r}: {_line(error)}; check the name and the network") from error


def _from_file(path: Path, spec: str) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"no weights at {spec!r}; name a file, 'hub:<id>' or 'timm'") from error
    except Exception as error:  # of a damaged file anything, from EOFError to UnicodeDecodeError
        raise UserError(f"cannot read weights {spec!r} as tensors: {_line(error)}") from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"weights {spec!r} hold no mapping of names to tensors; save a state_dict")
    return dict(content)


def _target(net: Network, state: Mapping[str, Any]) -> nn.Module:
    """``net``, or the net it wraps whole, whichever shares more keys with ``state``."""
    whole = len(net.state_dict())
    wrapped = [child for child in net.children() if len(child.state_dict()) == whole]
    return max((net, *wrapped), key=lambda module: len(module.state_dict().keys() & state.keys()))


def _prefix(target: nn.Module, classifier: nn.Module) -> str:
    return next(name for name, module in target.named_modules() if module is classifier) + "."


def _mismatch(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """What differs, in one line; empty when nothing does."""
    shapes = [
        f"{key} {tuple(state[key].shape)} for {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    found = {
        "missing": [key for key in expected if key not in state],
        "unknown": [key for key in state if key not in expected],
        "of another shape": shapes,
    }
    return "; ".join(f"{len(keys)} {kind} ({_some(keys)})" for kind, keys in found.items() if keys)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
