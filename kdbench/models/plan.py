"""From the taps that a net declares, or none, to the places that are read of it, judged on one look at the module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.base.errors import UserError, nearest
from kdbench.models.base import scores
from kdbench.models.hooks import Point
from kdbench.models.trace import Call, Trace
from kdbench.specs.nets import INPUT, Taps

ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Hardswish, nn.Hardtanh, nn.Softplus, nn.Tanh, nn.Sigmoid, nn.Hardsigmoid,
)  # fmt: skip
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Plan:
    """The places that are read.

    Attributes:
        norms: paths of the batch norms before the activations of the stages.
        classifier: path of the last linear layer; None, and then ``unclassified`` says why.
    """

    maps: tuple[Point, ...] = ()
    preact: tuple[Point, ...] = ()
    norms: tuple[str, ...] = ()
    stem: Point | None = None
    emb: Point | None = None
    classifier: str | None = None
    unclassified: str = ""

    def points(self) -> set[Point]:
        """All of them that are tapped."""
        return {*self.maps, *self.preact, *filter(None, (self.stem, self.emb))}


def logits_of(answer: Any, net: str) -> Tensor:
    """The scores in what a module returned: a tensor, ``logits`` of an object or a dict, the first of a tuple.

    Raises:
        UserError: there are none.
    """
    found = getattr(answer, "logits", None)
    if found is None and isinstance(answer, dict):
        found = answer.get("logits", next(iter(answer.values()), None) if len(answer) == 1 else None)
    if found is None and isinstance(answer, tuple | list) and answer:
        found = answer[0]
    found = answer if found is None else found
    if not isinstance(found, Tensor):
        held = f" of {', '.join(map(str, answer))}" if isinstance(answer, dict) else ""
        raise UserError(
            f"net {net!r} returns a {type(answer).__name__}{held}; it should return a tensor of scores, a tuple that "
            "begins with one, or a dict or an object with 'logits'"
        )
    return found


def plan(taps: Taps, seen: Trace, outputs: int, net: str) -> Plan:
    """Judges taps on a look at the module.

    Raises:
        UserError: a tap that is not there, is not called, or gives no tensor; scores of another number of classes.
    """
    logits = logits_of(seen.answer, net)
    shape = tuple(logits.shape[1:])
    if shape not in ((outputs,), () if outputs == 1 else (outputs,)):
        wanted = f"{outputs} class{'es' if outputs > 1 else ''}"
        raise UserError(
            f"net {net!r} answers with scores of shape (N, {', '.join(map(str, shape))}), the task has {wanted}; give "
            "the number of classes that the factory is called with to its last layer"
        )
    find = _Finder(seen, net)
    maps = find.all("maps", taps.maps)
    preact = find.all("preact", taps.preact) or _before_activations(maps, seen)
    norms = tuple(find.point("norms", path).path for path in taps.norms)
    for key, given in (("preact", preact), ("norms", norms)):
        if given and len(given) != len(maps):
            raise UserError(f"net {net!r}: {key} has {len(given)} places, maps {len(maps)}; give one a stage")
    for path in norms:
        call = seen.last(path)
        if call is None or getattr(call.module, "weight", None) is None or getattr(call.module, "bias", None) is None:
            raise UserError(f"net {net!r}: norms: {path!r} has no scale and shift; name batch norms")
    stem = find.point("stem", taps.stem) if taps.stem is not None else None
    last = _classifier(taps, seen, logits, find)
    emb = find.point("emb", taps.emb) if taps.emb is not None else _input_of(last)
    if emb is not None:
        _require_pooled(emb, seen, net)
    why = "" if last is not None else "no linear layer gives its scores"
    if last is not None and emb is not None and not _gives(last, pooled(find.tensor(emb)), logits):
        why = f"its scores are not those of {last.path!r} on {emb.text!r}"
        last = None
    return Plan(maps, preact, norms, stem, emb, last.path if last is not None else None, why)


class _Finder:
    """Places by the text of a tap."""

    def __init__(self, seen: Trace, net: str) -> None:
        self.seen, self.net = seen, net

    def all(self, key: str, texts: Sequence[str]) -> tuple[Point, ...]:
        return tuple(self.point(key, text) for text in texts)

    def point(self, key: str, text: str) -> Point:
        path, before = text.removesuffix(INPUT), text.endswith(INPUT)
        call = self.seen.last(path)
        if call is None:
            known = list(dict.fromkeys(one.path for one in self.seen.calls))
            raise UserError(
                f"net {self.net!r}: {key}: no submodule {path!r} is called in a forward pass{nearest(path, known)}; "
                f"called are {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}"
            )
        if (call.read if before else call.gave) is None:
            raise UserError(
                f"net {self.net!r}: {key}: {path!r} {'reads' if before else 'gives'} no tensor; tap another"
            )
        return place(call, before)

    def tensor(self, point: Point) -> Tensor:
        call = self.seen.last(point.path)
        found = None if call is None else call.read if point.before else call.gave
        assert found is not None
        return found


def place(call: Call, before: bool = False) -> Point:
    """The place before or after a call; what is written to afterwards is copied."""
    own = before and bool(getattr(call.module, "inplace", False))
    return Point(call.path, before, own or call.changed(before))


def _before_activations(maps: Sequence[Point], seen: Trace) -> tuple[Point, ...]:
    """What the activations read that all the maps end in; none where one ends in something else."""
    found = []
    for point in maps:
        whole = seen.last(point.path)
        ends = [call for call in seen.within(point.path) if isinstance(call.module, ACTIVATIONS)]
        if point.before or whole is None or not ends or ends[-1].gave is not whole.gave:
            return ()
        found.append(place(ends[-1], before=True))
    return tuple(found)


def _classifier(taps: Taps, seen: Trace, logits: Tensor, find: _Finder) -> Call | None:
    if taps.classifier is not None:
        call = seen.last(find.point("classifier", taps.classifier).path)
        if call is None or not isinstance(call.module, nn.Linear):
            kind = type(call.module).__name__ if call is not None else "nothing"
            raise UserError(f"net {find.net!r}: classifier: {taps.classifier!r} is a {kind}; name the last nn.Linear")
        return call
    linear = [call for call in seen.calls if isinstance(call.module, nn.Linear) and call.gave is not None]
    return next((call for call in reversed(linear) if _same(call.gave, logits)), None)


def _input_of(last: Call | None) -> Point | None:
    if last is None or last.read is None or last.read.ndim != 2:
        return None
    return place(last, before=True)


def _same(one: Tensor | None, other: Tensor) -> bool:
    return one is not None and one.numel() == other.numel() and torch.equal(one.flatten(), other.flatten())


def _gives(last: Call, emb: Tensor, logits: Tensor) -> bool:
    """Whether a linear layer makes the scores of the embedding."""
    if emb.shape[-1] != getattr(last.module, "in_features", None):
        return False
    with torch.no_grad():
        own = scores(last.module, emb)
    return own.numel() == logits.numel() and torch.allclose(own.flatten(), logits.flatten(), rtol=1e-3, atol=1e-4)


def _require_pooled(emb: Point, seen: Trace, net: str) -> None:
    call = seen.last(emb.path)
    tensor = None if call is None else call.read if emb.before else call.gave
    if tensor is None or pooled(tensor).ndim != 2:
        shape = () if tensor is None else tuple(tensor.shape[1:])
        raise UserError(
            f"net {net!r}: emb: {emb.text!r} has shape (N, {', '.join(map(str, shape))}), one vector a row is asked "
            "for; tap what follows the pooling"
        )


def pooled(tensor: Tensor) -> Tensor:
    """(N, D) of (N, D, 1, ...); anything else stays as it is."""
    return tensor.flatten(1) if tensor.ndim > 2 and all(size == 1 for size in tensor.shape[2:]) else tensor


def undivided(seen: Trace, input_shape: tuple[int, ...]) -> str | None:
    """Why a net of patches cannot read inputs of a shape, whose last rows would be left out; None where it can."""
    for call in seen.calls:
        if not isinstance(call.module, CONVOLUTIONS) or call.read is None or call.read.shape[1:] != input_shape:
            continue
        patch, stride, padded = call.module.kernel_size, call.module.stride, call.module.padding
        places = input_shape[1:]
        if patch != stride or padded not in ((0,) * len(patch), "valid") or not any(map(int.__mod__, places, patch)):
            return None
        return patches(places, patch)
    return None


def patches(places: Sequence[int], patch: Sequence[int]) -> str:
    """The line on patches that do not divide a picture, with the sizes next to it that they do divide."""
    below = [max(p, n // p * p) for n, p in zip(places, patch, strict=True)]
    above = [-(-n // p) * p for n, p in zip(places, patch, strict=True)]
    sizes = " or ".join("x".join(map(str, size)) for size in ([below, above] if below != above else [above]))
    cut, whole = "x".join(map(str, patch)), "x".join(map(str, places))
    return f"its patches of {cut} do not divide inputs of {whole}; give the data a size of {sizes}"
