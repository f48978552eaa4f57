"""What a task's data are and whether they are at hand, for ``kdbench list tasks``. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from kdbench.base.errors import UserError
from kdbench.data import duration, names, sources, unknown
from kdbench.data.decode.cache import peek, peek_hub
from kdbench.data.decode.facts import Facts
from kdbench.data.decode.identity import MINE, identify
from kdbench.data.decode.inputs import ClipInput, ImageInput, PictureInput, SoundInput, height_width
from kdbench.data.decode.specification import SetSpec, set_names, set_spec
from kdbench.devices.base import Speed
from kdbench.specs import reduced
from kdbench.specs.task import TaskSpec

State = Literal["built in", "here", "found", "other copy", "hub", "absent"]
PRESENT: frozenset[State] = frozenset({"built in", "here", "found"})
"""Those in which a run can start now without a download."""


@dataclass(frozen=True)
class DataStatus:
    """What a person wants to know before running a task.

    Attributes:
        name: of the data set or the copy.
        state: ``built in`` ships with a dependency; ``here`` is decoded and what it should be; ``found`` lies in the
            data folder and was not decoded yet; ``other copy`` lies there and is not what the task asks for; ``hub``
            can be downloaded; ``absent`` has to be put into the data folder.
        about: one line: where it is, or what to do.
        megabytes: about what the files take; None for what is built in.
        licence: a short note.
        minutes: about what one kd run with one seed takes on ``device``; None if not known.
        teacher_minutes: about what training the pair's teachers takes, once.
        device: name of a backend.
    """

    name: str
    state: State
    about: str
    megabytes: float | None
    licence: str
    minutes: float | None
    teacher_minutes: float | None
    device: str

    @property
    def present(self) -> bool:
        """Whether a run can start now without a download."""
        return self.state in PRESENT


def status(spec: TaskSpec, folder: Path | None, cache: Path | None = None) -> DataStatus:
    """The state of a task's data.

    Args:
        folder: the user's data folder.
        cache: folder of decoded data sets; without it nothing is known to be ``here``.
    """
    source, options, (device, speed) = spec.data.source, spec.data.options, duration.speed()
    state, about = where(source, options, folder, cache)
    if source in set_names():
        of = set_spec(source)
        run, teachers = _minutes(spec, _facts(of, options), speed)
        return DataStatus(
            of.copy_name(options.get("copy")), state, about, of.megabytes, of.licence, run, teachers, device
        )
    if (module := sources.module(source)) is None:
        return DataStatus(source, state, about, None, "", None, None, device)
    facts = _stated(module)
    run, teachers = _minutes(spec, facts, speed)
    parts = [set_spec(name) for name in facts.made_of]
    corpus = getattr(module, "CORPUS", None)
    megabytes = corpus.megabytes if corpus is not None else sum(part.megabytes for part in parts) if parts else None
    licence = facts.licence or "; ".join(part.licence for part in parts)
    return DataStatus(source, state, about, megabytes, licence, run, teachers, device)


def where(source: str, options: Mapping[str, Any], folder: Path | None, cache: Path | None = None) -> tuple[State, str]:
    """The state of a data source's rows, and a line on it; ``folder`` and ``cache`` as of :func:`status`."""
    if source in set_names():
        return _state(set_spec(source), options.get("copy"), folder, cache)
    if (module := sources.module(source)) is None:
        return "absent", unknown(source)
    if (corpus := getattr(module, "CORPUS", None)) is not None:
        from kdbench.data.decode import corpus as corpora

        return corpora.state(corpus, folder)
    facts = _stated(module)
    if not facts.made_of:
        return "built in", facts.about
    parts = [_state(set_spec(name), None, folder, cache) for name in facts.made_of]
    order: list[State] = ["built in", "here", "found", "hub", "other copy", "absent"]
    return max(parts, key=lambda found: order.index(found[0]))


def missing(source: str, options: Mapping[str, Any], folder: Path | None, cache: Path | None = None) -> str | None:
    """Why a source cannot be read without a download, None where its data are at hand or nobody knows it."""
    if source not in names():
        return None
    state, about = where(source, options, folder, cache)
    return None if state in PRESENT else f"{source} is not at hand ({about})"


def _stated(module: ModuleType) -> Facts:
    """What a source that is a module states of itself."""
    return getattr(module, "FACTS", Facts(0, 1, {}, f"made by {module.__name__}, which states no FACTS"))


def _state(of: SetSpec, copy: str | None, folder: Path | None, cache: Path | None) -> tuple[State, str]:
    local = of.find(folder, copy)
    if local is None:
        if copy is None and of.hub is not None:
            if cache is not None and peek_hub(of, cache) is not None:
                return "here", f"{of.name}, from {of.hub.id} on the hub"
            gated = ", gated: accept its terms there" if of.hub.gated else ""
            return "hub", f"{of.hub.id} on the hub{gated}"
        return "absent", f"put it into {of.places(copy)[0]}/ of the data folder"
    try:
        found = peek(of, local, cache) if cache is not None else None
        if found is None:
            return "found", f"{_where(local, folder)}, decoded at the first run"
        name, why_not = identify(of, copy, found)
    except UserError as error:
        return "other copy", str(error)
    if why_not is MINE:
        return "here", f"yours, {_where(local, folder)}"
    if why_not is not None:
        return "other copy", f"{name}, {_where(local, folder)}: {why_not}"
    return "here", f"{name}, {_where(local, folder)}"


def _where(local: Path, folder: Path | None) -> str:
    return f"in {local.name}/ of the data folder" if local.parent == folder else f"in {local}"


def _facts(of: SetSpec, options: dict[str, Any]) -> Facts:
    classes = of.classes
    first = options.get("first")
    rows = first["train"] * classes if first else of.identity.rows.get("train", of.about_rows)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, given in of.inputs.items():
        if isinstance(given, ImageInput | PictureInput):
            shapes[name] = (given.channels, *height_width(given.size))
        elif isinstance(given, ClipInput):
            shapes[name] = (3, given.frames, *height_width(given.size))
            if given.frame is not None:
                shapes[given.frame] = (3, *height_width(given.size))
        elif isinstance(given, SoundInput):
            shapes[name] = (given.bands, 1 + (given.samples - given.window) // given.hop)
        else:
            shapes[name] = (given.size,)
    return Facts(rows, classes, shapes)


def _minutes(spec: TaskSpec, facts: Facts, speed: Speed) -> tuple[float | None, float | None]:
    if not facts.rows:
        return None, None
    rule = spec.data.subset
    student_rows = facts.rows
    if rule is not None:
        of_classes = rule.per_class * facts.classes if rule.per_class else round(facts.rows * (rule.fraction or 1.0))
        student_rows = rule.rows or of_classes
    try:
        shapes = reduced.shapes(spec.data.inputs or {}, dict(facts.shapes))
    except UserError:  # said by what loads the rows
        return None, None
    return duration.minutes(spec, facts.rows, shapes, student_rows, speed)


def classes(spec: TaskSpec) -> int:
    """How many classes a task's rows have, 1 for a regression and for a source that does not tell."""
    source = spec.data.source
    if source in set_names():
        return _facts(set_spec(source), spec.data.options).classes
    facts = getattr(sources.module(source), "FACTS", None)
    return facts.classes if facts is not None else 1
