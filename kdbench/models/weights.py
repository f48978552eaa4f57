"""Weights from a file, from the model hub or from timm into a network, all of them or an error."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from kdbench.base import hub
from kdbench.base.errors import UserError
from kdbench.base.files import sha256
from kdbench.contract import Network
from kdbench.models.origin import SHIPPED, Origin
from kdbench.models.pruning import cut
from kdbench.models.states import find

HUB = re.compile(r"hub:(?P<id>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
HUB_FILE = "model.safetensors"
TERMINAL_CODE = re.compile(r"\x1b\[[0-9;]*m")
OBJECT = re.compile(r"(?:GLOBAL|Unsupported (?:global|class|operand))[: ]+(?:GLOBAL )?([A-Za-z_][\w.]*)")
"""What torch's own reader of tensors says of the first thing in a file that is none."""
LFS = "version https://git-lfs"
WEIGHTS_ONLY = re.compile(r"weights[_ ]only", re.IGNORECASE)


@dataclass(frozen=True)
class Loaded:
    """Weights that are in a network now.

    Attributes:
        sha256: of the network's state as a safetensors file: one and the same for equal weights of any origin.
        said: one line on how they were read; empty where they stood in the file as the network has them.
    """

    sha256: str
    said: str


def load_weights(net: Network, spec: str | Path, *, features: bool = False) -> Loaded:
    """Load every weight and buffer of ``net``.

    Args:
        net: changed in place.
        spec: a ``.safetensors`` file or a torch file of tensors only, with the keys of ``net``, of the net inside it,
            or of the same net in another library (:mod:`kdbench.models.libraries`, :mod:`kdbench.models.published`),
            wherever in the file and behind whatever common prefix; ``hub:<owner>/<name>`` or
            ``hub:<owner>/<name>@<revision>``; ``own``, for the weights that come with the net (``timm`` says the
            same of a ``timm:`` net). With
            ``#part=<name>`` only that part of the file is looked at; with ``#features`` the classifier stays as it is:
            for a teacher that only lends its features, or to start training from weights for other classes.
        features: as if ``#features`` stood there.

    Raises:
        UserError: nothing to read there, or keys or shapes that do not fit, which are named. ``net`` is unchanged then.
    """
    origin = Origin.of(str(spec))
    content = _read(net, origin)
    state, how = find(net, content, features=origin.features or features, where=str(spec), part=origin.part)
    expected = net.state_dict()
    for key, value in state.items():
        if value.layout is not torch.strided or (expected[key].is_floating_point() and not value.is_floating_point()):
            kind = str(value.dtype if value.layout is torch.strided else value.layout).removeprefix("torch.")
            raise UserError(f"weights {str(spec)!r}: {key} is {kind}; only plain floating-point weights are read")
        if value.is_floating_point() and not torch.isfinite(value.float()).all():
            raise UserError(f"weights {str(spec)!r}: {key} has values that are not finite; its training diverged")
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"weights {str(spec)!r}: {str(error).splitlines()[-1].strip()}") from error
    return Loaded(digest_of(net), f"weights {str(spec)!r}: {how}" if how else "")


def digest_of(net: Network) -> str:
    """sha256 of a network's state as a safetensors file."""
    return sha256(save({key: value.cpu().contiguous() for key, value in net.state_dict().items()}))


def load_pruned(net: Network, whole: Network, *, features: bool = False) -> Loaded:
    """Load the weights of a network with channels left out (:mod:`kdbench.models.pruning`).

    Args:
        net: changed in place.
        whole: the network that it is cut out of.
        features: the classifier stays as it is.

    Raises:
        UserError: ``net`` cannot be ``whole`` with channels left out.
    """
    state = cut(net, whole)
    if features:
        kept = next(name for name, module in net.named_modules() if module is net.classifier)
        state |= {key: value for key, value in net.state_dict().items() if key.startswith(f"{kept}.")}
    net.load_state_dict(state)
    return Loaded(digest_of(net), "")


def _read(net: Network, origin: Origin) -> Any:
    if origin.source in SHIPPED:
        return _from_net(net, origin.source)
    return _from_file(origin.path or _from_hub(origin.source), origin.source)


def _from_net(net: Network, source: str) -> Any:
    pretrained = getattr(net, "pretrained", None)
    if pretrained is None:
        raise UserError(
            f"weights {source!r} come with nets of libraries and with modules that were given, not with a "
            f"{type(net).__name__}; name a file or 'hub:<id>'"
        )
    try:
        return dict(pretrained())
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"there are no weights at hand for this net: {_line(error)}; check its name and the network"
        ) from error


def _from_hub(spec: str) -> Path:
    match = HUB.fullmatch(spec)
    if match is None:
        raise UserError(f"weights {spec!r} should read 'hub:<owner>/<name>' or 'hub:<owner>/<name>@<revision>'")
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(match["id"], HUB_FILE, revision=match["revision"]))
    except (OSError, ValueError) as error:
        what = "connect this machine, or name a file" if hub.unreached(error) else "check the name"
        raise UserError(f"cannot get {HUB_FILE} of {spec!r}: {hub.why(error)}; {what}") from error


def _from_file(path: Path, spec: str) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, of files that are refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"no weights at {spec!r}; name a file, 'hub:<id>' or 'own'") from error
    except IsADirectoryError as error:
        raise UserError(f"cannot read weights {spec!r}: a folder; name the file in it") from error
    except Exception as error:  # of a damaged file anything, from EOFError to UnicodeDecodeError
        if (text := _as_text(path)) is not None:
            what = "a pointer of Git LFS; get the file itself with `git lfs pull`" if text.startswith(LFS) else "text"
            raise UserError(f"cannot read weights {spec!r}: {what}") from error
        if WEIGHTS_ONLY.search(text := TERMINAL_CODE.sub("", str(error))):
            what = f" ({found[1]})" if (found := OBJECT.search(text)) is not None else ""
            raise UserError(
                f"cannot read weights {spec!r}: the file holds Python objects{what}, which could run code; where you "
                "trust it, re-save its tensors alone: torch.save(torch.load(FILE, weights_only=False)['state_dict'], "
                "NEW), or the state_dict() of a whole model"
            ) from error
        raise UserError(f"cannot read weights {spec!r} as tensors: {_line(error)}") from error


def _as_text(path: Path) -> str | None:
    """How a file begins that is text, such as a web page or a pointer; None of one that is not."""
    try:
        with path.open("rb") as file:
            text = file.read(200).decode("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    plain = "".join(text.split())
    return text if plain and plain.isprintable() else None


def _line(error: Exception) -> str:
    text = TERMINAL_CODE.sub("", str(error)).strip()
    return (text.splitlines() or [type(error).__name__])[0].rstrip(".")
