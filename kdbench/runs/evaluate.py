"""``kdbench evaluate``: the runs of one method on one task, one after the other, then the index."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kdbench.base.errors import UserError
from kdbench.base.given import SEED_LIMIT
from kdbench.base.home import Home, checkpoint_seconds, data_folder
from kdbench.base.leftovers import scratch, tidy
from kdbench.base.progress import Progress
from kdbench.index import home as index
from kdbench.index.file import StoreLocked
from kdbench.parallel.torchrun import launch
from kdbench.records.files import Record
from kdbench.records.folder import of_task
from kdbench.records.provenance import PUBLISHED
from kdbench.results.matched import match_of
from kdbench.specs.config import RunConfig
from kdbench.specs.order import ConfigOrder, Mode
from kdbench.specs.tuned import AS_PUBLISHED, find
from kdbench.watch.trackers import one_a_process, require

if TYPE_CHECKING:
    from kdbench.parallel.ranks import Ranks
    from kdbench.runs.request import Request

MOST_SEEDS = 10_000


def parse_seeds(text: str) -> list[int]:
    """``0-4``, ``3`` or ``0,2,5-7`` as numbers.

    Raises:
        UserError: anything else.
    """
    seeds: list[int] = []

    def is_seed(word: str) -> bool:
        return word.isdecimal() and len(word) <= len(str(SEED_LIMIT)) and int(word) <= SEED_LIMIT

    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (is_seed(first) and (is_seed(last) if dash else True)):
            raise UserError(f"--seeds {text!r}: {part.strip()!r} is not a number or a range; write 0-4, 3 or 0,2,5-7")
        if int(last or first) < int(first):
            raise UserError(
                f"--seeds {text!r}: the range {part.strip()!r} runs backwards; write the smaller number first"
            )
        if len(seeds) + int(last or first) - int(first) >= MOST_SEEDS:
            raise UserError(f"--seeds {text!r}: more than {MOST_SEEDS:,} seeds; is that meant?")
        seeds += range(int(first), int(last or first) + 1)
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {text!r}: a seed stands twice")
    return seeds


def require_together(at_once: int, track: Sequence[str], processes: int = 1) -> None:
    """Refuses what does not go with several runs that take turns in a process.

    Args:
        at_once: runs that take turns.
        track: names of trackers.
        processes: that share each run.

    Raises:
        UserError: naming it.
    """
    if at_once < 1:
        raise UserError(f"--seeds-together {at_once}: at least one run goes on")
    if at_once == 1:
        return
    if processes > 1:
        raise UserError("--seeds-together is for runs of one process; start without torchrun, or leave it out")
    if single := one_a_process(track):
        raise UserError(f"--track {single} follows one run of a process at a time; leave it out, or --seeds-together")


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation left: its records, and what kept them from the index, if anything."""

    config: RunConfig
    records: list[Record]
    warning: str | None


@dataclass(frozen=True)
class Command:
    """What a command names: a configuration, and where its runs happen.

    Attributes:
        device: as typed: ``auto`` or a backend's name, with a number or without, as ``cuda:1``.
        ruleset: by which values of hyper-parameters: ``published``, ``tuned`` or such as ``tuned-8``.
        out: the home folder, None for the user's; ``data``: the folder with data sets, None for the user's or the hub.
    """

    config: ConfigOrder
    device: str = "auto"
    out: Path | None = None
    data: Path | None = None
    ruleset: str = AS_PUBLISHED

    @property
    def said(self) -> str:
        """What lines call it."""
        return f"{self.config.method} on {self.config.task}"

    def searched(self, config: RunConfig, home: Home) -> RunConfig:
        """The configuration with the values of the ruleset's search; as it is where the ruleset is ``published``.

        Raises:
            UserError: there is no such search, see :func:`kdbench.specs.tuned.find`.
        """
        found = find(config, self.ruleset, home)
        return config if found is None else self.config.model_copy(update={"tuned": found}).config()


def evaluate_seeds(
    command: Command,
    *,
    seeds: Sequence[int] | None,
    overhead: Mode,
    force: bool,
    announce: Callable[[Record], None],
    progress: Progress | None = None,
    track: Sequence[str] = (),
    seeds_together: int = 1,
) -> Evaluation | None:
    """Runs a method on a task with each seed; where torchrun started several processes, together with the others.

    Args:
        seeds: the task's own when None.
        announce: told of each finished run.
        progress: shows how far they are; nothing does when None.
        track: names of trackers that are told of them (:mod:`kdbench.watch.trackers`).
        seeds_together: how many of them take turns in this process (:mod:`kdbench.runs.together`).

    Returns:
        None in a process that is not torchrun's first.

    Raises:
        UserError: something the user gave is wrong. Finished runs are recorded.
    """
    shared = launch()
    track = require(track)
    require_together(seeds_together, track, shared.size if shared else 1)
    config = command.config.config()
    home = Home.find(command.out)
    home.require_writable()
    folder = data_folder(command.data)
    checkpoint_seconds()
    config = command.searched(config, home)

    from kdbench.devices import backends
    from kdbench.devices.machine import device_class, take_device
    from kdbench.engine.assemble import require_shared
    from kdbench.parallel.ranks import Ranks
    from kdbench.runs.request import Request  # imports torch: only once all that was typed is known to be right

    place = take_device(command.device, shared)
    if config.method.ref.match is not None:
        own = device_class(place, config.engine, shared.size if shared else 1)
        known = [home.records, *of_task(PUBLISHED, config.task.name)]
        match = match_of(config.method.ref, config.task.name, config.task.version, own, known)
        config = command.config.model_copy(update={"match": match}).config()
    ranks = Ranks()
    if shared is not None:
        require_shared(config, shared.size)
        ranks = Ranks.join(backends.of(place).collective)
    records: list[Record] = []
    progress = progress if progress is not None and ranks.first else Progress.silent()

    def request(seed: int) -> Request:
        return Request(config, seed, place, home, folder, overhead, force, progress=progress, ranks=ranks, track=track)

    wanted = config.task.seeds if seeds is None else seeds
    config.require_unseen(wanted)
    if not ranks.first:
        _follow(list(map(request, wanted)), ranks)
        return None
    if ranks.several and overhead != "off":
        progress.say("step times are measured in runs of one process; this one is recorded without them")
    requests = list(map(request, wanted))
    try:
        made = _in_turns(requests, seeds_together) if seeds_together > 1 else _one_by_one(requests, ranks)
        with closing(made):
            for record in made:
                records.append(record)
                announce(record)
    finally:
        warning = ingest(home) if records else None
    tidy(home)
    return Evaluation(config, sorted(records, key=lambda record: list(wanted).index(record.seed)), warning)


def _one_by_one(requests: Sequence[Request], ranks: Ranks) -> Generator[Record]:
    """Runs, one after the other, until one has ended so that the others would not go otherwise, or cannot go on."""
    from kdbench.devices import backends
    from kdbench.runs import run

    for request in requests:
        place = request.device
        request.progress.runs.begin(request.name, len(requests))
        record = run.run_seed(request)
        yield record
        if record.status == "not_applicable":
            break  # for a reason no seed changes
        if ranks.several and record.status != "ok":
            break  # the other processes are gone, or about to go
        if record.status != "ok" and not backends.of(place).answers(place):
            request.progress.say(
                f"{backends.written(place)} takes no more work of this process; the same command goes on"
            )
            break
    else:
        ranks.leave()


def _in_turns(requests: Sequence[Request], at_once: int) -> Generator[Record]:
    """Runs that take turns, as they end; none begins when one has shown that the method does not apply.

    Raises:
        Exception: the first that one of them raised, when the others are done.
    """
    from kdbench.runs.together import together

    progress = requests[0].progress
    progress.runs.begin(f"{requests[0].cell}, {len(requests)} seeds", 1)
    own = [replace(request, progress=progress.labelled(f"seed {request.seed}")) for request in requests]
    failure: Exception | None = None
    with closing(together(own, at_once)) as made:
        for _, found in made:
            if isinstance(found, Exception):
                failure = failure or found
                continue
            yield found
            if found.status == "not_applicable":
                break
    if failure is not None:
        raise failure


def _follow(requests: Sequence[Request], ranks: Ranks) -> None:
    """The part of a process that is not the first. What ends it is the first's to say: it goes without a word."""
    from kdbench.runs import run

    warnings.simplefilter("ignore")
    try:
        for request in requests:
            run.follow(request)
        ranks.leave()
    except Exception as error:
        # At another code torchrun would end the first too, before it has recorded the failure.
        raise SystemExit(0) from error


def ingest(home: Home) -> str | None:
    """Takes all records into the index; a warning when it stays locked (the records are safe)."""
    try:
        index.update(home)
    except StoreLocked as error:
        return f"{error}; the records are written, `kdbench records ingest` takes them in later"
    return None


def measure_only(command: Command, mode: Literal["quick", "full"], progress: Progress | None = None) -> dict[str, Any]:
    """The overhead block of a method, measured without training the student (its teacher is trained if need be).

    Raises:
        UserError: something the user gave is wrong, or the method does not apply to the task.
    """
    config = command.config.config()
    home = Home.find(command.out)
    home.require_writable()
    config = command.searched(config, home)
    folder = data_folder(command.data)

    from kdbench.contract import NotApplicable
    from kdbench.devices.machine import take_device
    from kdbench.engine.assemble import prepare, threads
    from kdbench.engine.place import RunPlace
    from kdbench.overhead.measure import measure

    progress = progress or Progress.silent()
    with scratch(home) as own:
        place = RunPlace(take_device(command.device), home, folder, own, progress)
        try:
            with threads(config.task, place.device):
                prepare(config, config.task.seeds[0], place)  # trains or loads the teachers, with a progress bar
        except NotApplicable as reason:
            raise UserError(f"{command.config.method} does not apply to {command.config.task}: {reason}") from reason
        progress.pause()  # nothing is drawn beside a measurement
        return measure(config, config.task.seeds[0], place, mode, 1).block
