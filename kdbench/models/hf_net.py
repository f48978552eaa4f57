"""Image classifiers of transformers behind :class:`kdbench.contract.Out`: ``hf:<id>``, or a folder with its config.

No code of a repository is run: a net is one of the library's own classes, made from a configuration.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from kdbench.base import hub
from kdbench.base.errors import UserError, described
from kdbench.contract import Network, Vocabulary
from kdbench.models.hooked import Hooked, look
from kdbench.models.plan import CONVOLUTIONS
from kdbench.models.stages import stage_points
from kdbench.models.trace import Call, Trace
from kdbench.specs.nets import Taps

MOST_EXTRA = 16
"""Class and register tokens a net may have."""


def taps_of(body: nn.Module, seen: Trace, input_shape: tuple[int, ...]) -> Taps:
    """Stages of the longest list of blocks; maps, or tokens behind those that are no patches."""
    calls = _blocks(body, seen)
    if not calls:
        return Taps()
    first = calls[0].gave
    assert first is not None
    if first.ndim == 3:
        _, stages = stage_points([1] * len(calls))
        return Taps(maps=tuple(calls[i].path for i in stages), layout="tokens", extra=_extra(seen, first.shape[1]))
    sizes = [call.gave.shape[2] if call.gave is not None else 1 for call in calls]
    stem, stages = stage_points([round(input_shape[1] / size) for size in sizes])
    return Taps(maps=tuple(calls[i].path for i in stages), stem=None if stem is None else calls[stem].path)


def _blocks(body: nn.Module, seen: Trace) -> list[Call]:
    """Calls of the blocks of the largest list of them that give maps or tokens."""
    lists = {path: module for path, module in body.named_modules() if isinstance(module, nn.ModuleList)}
    for path in sorted(lists, key=lambda one: (-sum(p.numel() for p in lists[one].parameters()), len(one))):
        own = {f"{path}.{name}" for name, _ in lists[path].named_children()}
        calls = [call for call in seen.calls if call.path in own and call.gave is not None]
        if len(calls) > 1 and len({call.gave.ndim for call in calls if call.gave is not None} - {3, 4}) == 0:
            return calls
    return []


def _extra(seen: Trace, tokens: int) -> int:
    """Tokens that are no patches, by what the first convolution gives."""
    first = next((call for call in seen.calls if isinstance(call.module, CONVOLUTIONS)), None)
    patches = 0 if first is None or first.gave is None else first.gave[0, 0].numel()
    return tokens - patches if 0 <= tokens - patches <= MOST_EXTRA else 0


def shipped(name: str) -> Mapping[str, Tensor]:
    """The weights of a net, from the hub or its folder; of tensors alone."""
    made: Any = _library().AutoModelForImageClassification.from_pretrained(name, use_safetensors=True)
    found: Mapping[str, Tensor] = made.state_dict()
    return found


def _library() -> Any:
    """transformers.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec("transformers") is None:
        raise UserError("nets 'hf:<id>' need the package transformers: pip install 'kdbench[hf]'")
    import transformers

    return transformers


def build(
    input_shape: tuple[int, ...], outputs: int, id: str, vocabularies: tuple[Vocabulary, Vocabulary] | None = None
) -> Network:
    """A net of transformers for (channels, height, width) inputs, freshly initialised.

    Args:
        id: of the hub, or the path of a folder with ``config.json``.
        vocabularies: of an input of sentences, which a net of :mod:`kdbench.models.hf_text` reads.

    Raises:
        UserError: no such net, or it cannot read such inputs.
    """
    name, library = f"hf:{id}", _library()
    if vocabularies is not None:
        from kdbench.models import hf_text

        return hf_text.build(library, id, vocabularies)
    where = str(Path(id).expanduser()) if id[0] in "./~" else id
    if id[0] in "./~" and not (Path(where) / "config.json").is_file():
        raise UserError(f"net {name!r}: no config.json in that folder; name a folder that save_pretrained wrote")
    try:
        config = library.AutoConfig.from_pretrained(where)
    except (OSError, ValueError, KeyError) as error:
        what = "connect this machine, or name a folder (hf:./NAME)" if hub.unreached(error) else "check the name"
        raise UserError(f"net {name!r}: its configuration cannot be read: {_line(error)}; {what}") from error
    channels, height, width = input_shape
    config.num_labels = outputs
    if hasattr(config, "num_channels"):
        config.num_channels = channels
    if hasattr(config, "image_size"):
        config.image_size = height if height == width else [height, width]
    try:
        body = library.AutoModelForImageClassification.from_config(config)
    except Exception as error:  # a configuration holds whatever its author wrote
        raise UserError(f"net {name!r} cannot be made as an image classifier: {described(error)}") from error
    seen = look(name, body, input_shape)
    return Hooked(name, body, taps_of(body, seen, input_shape), input_shape, outputs, seen, partial(shipped, where))


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
