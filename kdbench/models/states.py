"""Finds a network's weights in what a file holds: nested, behind prefixes, or under the literature's names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kdbench.base.errors import UserError, nearest
from kdbench.contract import Network, NotApplicable
from kdbench.models.libraries import in_timms_names

WRAPPERS = ("module", "model", "net", "network", "backbone", "encoder")
"""Attributes under which code keeps a whole net; they may stand before some keys of a file and not before others."""
COMPILED = "_orig_mod."
AVERAGES = re.compile(r"(^|[._])(ema|averaged?|avg|swa|shadow)([._]|$)", re.IGNORECASE)
"""Parts of a file that hold a running average of the weights; the weights themselves are preferred."""
COUNTER = "num_batches_tracked"
"""Batch norms' counter, which decides nothing here and which older files lack."""
SHOWN = 4
"""Keys named of each kind of mismatch."""
PUBLISHED = "RepDistiller and mdistiller"
"""Whose names a net's ``published_key`` knows."""

State = dict[str, Tensor]


@dataclass(frozen=True)
class Found:
    """Weights that may be a network's.

    Attributes:
        place: where in the file, dotted; empty for all of it.
        state: the network's key, or the file's where the network has none, to tensor.
        names: whose names the keys had, where they were renamed.
        cut: words of :data:`WRAPPERS` were left off single keys.
        inner: what stands before the network's keys and not before the file's: the net that it wraps.
        missing, unknown, misshapen: keys of the network, of the file, of both.
    """

    place: str
    state: State
    names: str
    cut: bool
    inner: str
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    misshapen: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether it is all of the network and nothing else."""
        return not (self.missing or self.unknown or self.misshapen)

    @property
    def agreeing(self) -> int:
        """Keys whose tensor has the network's shape."""
        return len(self.state) - len(self.unknown) - len(self.misshapen)

    @property
    def how(self) -> str:
        """How the keys were read, in a few words; empty where they stand in the file as the network has them."""
        told = (
            f"its part {self.place!r}" if self.place else "",
            f"without {', '.join(f'{word}.' for word in WRAPPERS[:3])} and their like before keys" if self.cut else "",
            f"under the names of {self.names}" if self.names else "",
        )
        return ", ".join(text for text in told if text)


def find(net: Network, content: Any, *, features: bool, where: str, part: str | None = None) -> tuple[State, str]:
    """Every weight and buffer of ``net``, by its own keys, from what a file holds, and how they were read.

    Args:
        content: nested mappings; what is no tensor is passed over.
        features: the classifier is left as it is, and so is its part of the file.
        where: names the file in errors.
        part: the part of the file to read, by its dotted name or the end of it; None looks at all of them.

    Raises:
        UserError: nothing there fits whole, with what differs from the nearest; or several things do.
    """
    expected = net.state_dict()
    own = _name_of(net, net.classifier) + "." if features else None
    kept = {key: value for key, value in expected.items() if own is not None and key.startswith(own)}
    wanted = {key: value for key, value in expected.items() if key not in kept}
    everything = _flat(content) if isinstance(content, Mapping) else {}
    places = dict(_places(everything))
    if part is not None:
        places = _of_part(places, part, where)
    tried = [
        _compared(place, named, wanted, own)
        for place, tensors in places.items()
        if part is not None or 2 * len(tensors) >= min(len(wanted), len(everything))
        for named in _named(net, tensors, wanted)
    ]
    if not tried:
        raise UserError(f"weights {where!r} hold no mapping of names to tensors; save a state_dict")
    # Where words before keys are a part's name as well, the part says more.
    whole = _distinct(sorted((found for found in tried if found.fits), key=lambda found: found.cut))
    if len(whole) > 1:
        several = " and ".join(repr(found.place) for found in whole)
        raise UserError(
            f"weights {where!r} hold several that fit, {several}; name one as a mapping, "
            f"weights: {{from: ..., part: {whole[0].place}}}"
        )
    best = whole[0] if whole else max(tried, key=lambda found: (found.agreeing, -len(found.unknown), not found.cut))
    if best.names == PUBLISHED and (why := getattr(net, "unlike_published", None)) is not None:
        raise UserError(f"weights {where!r} are not for this net, though their shapes fit: {why}")
    if not whole:
        told = _differences(best, wanted) + _advice(net, best, own is not None)
        raise UserError(f"weights {where!r} do not fit {type(net).__name__}: {told}")
    counters = {key: value for key, value in wanted.items() if key.endswith(COUNTER)}
    return {**kept, **counters, **best.state}, best.how


def _flat(content: Any, prefix: str = "") -> dict[str, Tensor]:
    """All tensors of nested mappings by dotted name."""
    if isinstance(content, Tensor):
        return {prefix: content}
    if not isinstance(content, Mapping):
        return {}
    below = (_flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in content.items())
    return {name: value for part in below for name, value in part.items()}


def _places(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every part of the names' tree, with its tensors by their names below it."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        words = name.split(".")
        for depth in range(len(words)):
            parts.setdefault(".".join(words[:depth]), {})[".".join(words[depth:])] = value
    yield from parts.items()


def _of_part(places: Mapping[str, State], part: str, where: str) -> dict[str, State]:
    """The parts that a name stands for, and those below them.

    Raises:
        UserError: there is none; names the nearest.
    """
    tops = [place for place in places if place == part or place.endswith(f".{part}")]
    if not tops:
        known = [place for place in places if place and "." not in place]
        shown = _some([repr(place) for place in known])
        raise UserError(
            f"weights {where!r} have no part {part!r}{nearest(part, known, 1)}; there are {shown or 'none'}"
        )
    return {place: held for place, held in places.items() if any(f"{place}.".startswith(f"{top}.") for top in tops)}


class _Named(NamedTuple):
    """Tensors under what may be a network's names; see :class:`Found`."""

    state: State
    names: str
    cut: bool
    inner: str


def _named(net: Network, tensors: State, wanted: Mapping[str, Tensor]) -> Iterator[_Named]:
    """The tensors under all names that may be the network's."""
    bare = {_unwrapped(key): value for key, value in tensors.items()}
    inner = [name for name, child in net.named_children() if len(child.state_dict()) == len(net.state_dict())]
    published: Callable[[str], str | None] = getattr(net, "published_key", lambda _: None)
    for keys in [tensors] if bare.keys() == tensors.keys() or len(bare) < len(tensors) else [tensors, bare]:
        cut = keys is bare
        for names, state in [("", dict(keys)), *in_timms_names(keys)]:
            yield _Named(state, names, cut, "")
            for name in inner:
                yield _Named({f"{name}.{key}": value for key, value in state.items()}, names, cut, f"{name}.")
        if any(published(key) in wanted and key not in wanted for key in keys):
            yield _Named({published(key) or key: value for key, value in keys.items()}, PUBLISHED, cut, "")


def _unwrapped(key: str) -> str:
    key = key.replace(COMPILED, "")
    while (parts := key.partition("."))[0] in WRAPPERS and parts[2]:
        key = parts[2]
    return key


def _compared(place: str, named: _Named, wanted: Mapping[str, Tensor], own: str | None) -> Found:
    state = named.state
    if own is not None:
        state = {key: value for key, value in state.items() if not key.startswith(own)}
    return Found(
        place,
        state,
        *named[1:],
        missing=tuple(key for key in wanted if key not in state and not key.endswith(COUNTER)),
        unknown=tuple(key for key in state if key not in wanted),
        misshapen=tuple(key for key, value in wanted.items() if key in state and state[key].shape != value.shape),
    )


def _distinct(whole: list[Found]) -> list[Found]:
    """Those of other values than an earlier one; running averages only where there is nothing else."""
    plain = [found for found in whole if not AVERAGES.search(found.place)] or whole
    distinct: list[Found] = []

    def alike(a: State, b: State) -> bool:
        return all(value is b[key] or torch.equal(value, b[key]) for key, value in a.items() if key in b)

    for found in plain:
        if not any(alike(found.state, other.state) for other in distinct):
            distinct.append(found)
    return distinct


def _name_of(net: nn.Module, part: nn.Module) -> str:
    return next(name for name, module in net.named_modules() if module is part)


def _differences(found: Found, wanted: Mapping[str, Tensor]) -> str:
    """What differs, in one line; keys as the net inside has them where that is what was compared."""
    short = {key: key.removeprefix(found.inner) for key in (*wanted, *found.state)}
    unknown = [short[key] for key in found.unknown]
    lists = {
        "missing": [f"{short[key]}{nearest(short[key], unknown, 1)}" for key in found.missing[: SHOWN + 1]],
        "unknown": unknown,
        "of another shape": [
            f"{short[key]} {tuple(found.state[key].shape)} for {tuple(wanted[key].shape)}" for key in found.misshapen
        ],
    }
    counts = (len(found.missing), len(found.unknown), len(found.misshapen))
    told = [f"{n} {kind} ({_some(keys)})" for n, (kind, keys) in zip(counts, lists.items(), strict=True) if n]
    return "; ".join(told) + (f", read as {found.how}" if found.how else "")


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")


def _advice(net: Network, found: Found, features: bool) -> str:
    """What to do where the classifier alone is another."""
    try:
        own = _name_of(net, net.classifier) + "."
    except NotApplicable:
        return ""
    odd = (*found.missing, *found.misshapen)
    if features or found.unknown or not all(key.startswith(own) for key in odd):
        return ""
    weight = f"{own}weight"
    counts = ""
    if weight in found.misshapen and found.state[weight].ndim == 2:
        counts = f", of {len(found.state[weight])} classes where the task has {len(net.state_dict()[weight])}"
    return (
        f"; its head alone is another{counts}: leave it out with weights: {{from: ..., head: drop}}, or append "
        "#features, which is the same"
    )
