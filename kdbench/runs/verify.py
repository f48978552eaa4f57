"""``kdbench verify``: is a record what it says? Results are side files; records never change.

The levels are the board's: 1 validated, 2 weights scored again, 3 run again, 4 run again on another device class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kdbench import identity
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.base.seeds import derive
from kdbench.records import files as records
from kdbench.records import recorded, shards
from kdbench.records.files import SIDE_FOLDER, Problem, Record, SideFile
from kdbench.records.folder import records_of
from kdbench.records.schema import Verification
from kdbench.records.validate import check_file, check_folder
from kdbench.specs import local
from kdbench.specs.config import Match, RunConfig, run_config
from kdbench.specs.options import PREFIX
from kdbench.specs.tuned import Tuned
from kdbench.stats.cell import summarise, t_quantile

if TYPE_CHECKING:
    import torch

    from kdbench.data.feed.dataset import Dataset

Level = Literal[1, 2, 3, 4]
SD_FLOOR = 0.1
"""Smallest spread over seeds a re-run is held against, in the metric's unit (site.md 6.6)."""
SCORE_TOLERANCE = 1e-6
ROUNDED, ROUNDED_ROWS = 2e-3, 3
"""What other kernels may change of a score, as a share of it, and how many rows may change sides by their rounding."""


@dataclass(frozen=True)
class Finding:
    """What one check found. ``delta`` is new minus recorded, in the metric's unit, where there is one."""

    level: Level
    passed: bool
    what: str
    delta: float | None = None
    run_id: str | None = None


def validate(path: Path) -> Finding:
    """Schema, hashes, and derived figures recomputed from raw pairs."""
    problems = [str(problem) for problem in check_file(path) if problem.level == "error"]
    return Finding(1, not problems, "; ".join(problems) or "schema, hashes and derived figures agree")


def config_of(record: Record) -> RunConfig:
    """The configuration that a record's run had, from its resolved configuration.

    Raises:
        UserError: it needs what this machine or version does not have.
    """
    match = record.compute_match
    given = Match(match.method, match.ratio, match.spec_hash) if match else None
    _require_known(record)
    name = record.method_name
    overrides = [word for word in _overrides(record.provenance.command) if record.custom or word.startswith(PREFIX)]
    searched = Tuned(**record.search.model_dump()) if record.search else None
    config = run_config(name, record.task.name, overrides, smoke=record.smoke, match=given, tuned=searched)
    if config.spec_hash != record.spec_hash:
        raise UserError(
            f"{record.run_id}: this kdbench gives {name} on {record.task.label} another configuration; "
            f"check out commit {record.provenance.git_commit or 'of kdbench ' + record.provenance.kdbench_version}"
        )
    return config


def changes(record: Record) -> list[str]:
    """What decides the record's result and is otherwise here, a line each."""
    config = config_of(record)
    found = identity.changes(record, identity.of(config), config.method.ref.card.version)
    return [f"{line} changed since" for line in found]


def _require_known(record: Record) -> None:
    """Raises UserError where a record is of something local that was not named."""
    known = {one.said for one in local.known()}
    for used in record.provenance.plugins:
        if used.name.startswith(local.SAID) and used.name not in known:
            raise UserError(
                f"{record.run_id} is of {used.name}, which is not registered here; give its path with --local (of an "
                "object its folder or file below objects/ of the home)"
            )


def _overrides(command: str) -> list[str]:
    """The key=value words of a recorded command."""
    return [word for word in command.split() if "=" in word and not word.startswith("-")]


def _require_one_process(record: Record) -> None:
    """Raises UserError for a record of several processes, whose bits one process cannot give."""
    if (several := record.ran_on.processes) > 1:
        raise UserError(f"{record.run_id} is of {several} processes; --replay and --rerun compare runs of one")


def _require_same_rows(record: Record, config: RunConfig, home: Home, data: Path | None, progress: Progress) -> Dataset:
    """All rows, which are the record's.

    Raises:
        UserError: they are others, or seen otherwise, so that nothing here speaks for or against the record.
    """
    from kdbench.engine.assemble import load_data, rows_read

    everything = load_data(config, data, home, progress)
    if identity.other_rows(record, rows_read(config, record.seed, everything)):
        raise UserError(
            f"{record.run_id}: no verdict, for the data here ({everything.name}) are not the record's: their rows, "
            "normalisation or size differ; name the folder of the record's data with --data"
        )
    return everything


def replay(record: Record, home: Home, data: Path | None, progress: Progress) -> Finding:
    """Trains the first steps again and compares their losses with the record's digest: bit for bit on its own CPU.

    A published teacher that the record names is taken where the home has none in its place.

    Raises:
        UserError: the record has no digest, or there is no device of its kind here.
    """
    if record.digest is None:
        raise UserError(f"{record.run_id} has no loss digest; use --rerun")
    _require_one_process(record)
    import tempfile

    import torch

    from kdbench.devices.machine import take_device
    from kdbench.engine.assemble import prepare, threads
    from kdbench.engine.place import RunPlace
    from kdbench.engine.stage import StageRun
    from kdbench.engine.trainer import digest_sha256
    from kdbench.runs import published_teachers

    device = take_device(record.ran_on.kind)
    home.runs.mkdir(parents=True, exist_ok=True)
    config = config_of(record)
    _require_same_rows(record, config, home, data, progress)
    published_teachers.take_named(record, home)
    with tempfile.TemporaryDirectory(prefix="replay-", dir=home.runs) as scratch, threads(config.task, device):
        place = RunPlace(device, home, data, Path(scratch), progress)
        own = replace(config, engine=config.engine.without_store())  # nothing that was kept is believed
        prepared = prepare(own, record.seed, place)
        torch.manual_seed(derive(record.seed, "stage", 0))
        stage = next(iter(prepared.method.stages()))
        with closing(StageRun(prepared.method.to(device).train(), stage, prepared.task)) as run:
            losses = [float(run.step()["total"]) for _ in range(record.digest.steps)]
    same, other = digest_sha256(losses) == record.digest.sha256, _otherwise(record)
    worst = max(abs(a - b) for a, b in zip(losses, record.digest.losses, strict=False))
    close = all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(losses, record.digest.losses, strict=False))
    what = "the first losses are the same bits" if same else f"the first losses differ by up to {worst:.3g}"
    others = _other_teachers(record, {role: one.facts["weights_sha256"] for role, one in prepared.teachers.items()})
    if others and not same:
        what += f" ({others})"
    return Finding(1, same or (close and bool(other)), what + (f" {other}" if other and not same else ""))


def _other_teachers(record: Record, here: Mapping[str, str | None]) -> str:
    """Which teachers are not the record's, by their weights' hashes and roles; "" where all are."""
    there = {teacher.role: teacher.weights_sha256 for teacher in record.models.teachers}
    others = [role for role, digest in here.items() if there.get(role) != digest]
    return (
        f"taught by other weights than the record's: {', '.join(others)}; --out names the home that has them"
        if others
        else ""
    )


def _otherwise(record: Record) -> str:
    """What gives other bits than the record's on a device of its class here, "" where nothing does."""
    from kdbench.devices import backends
    from kdbench.devices.machine import environment

    if not backends.named(record.ran_on.kind).on_host:
        return f"on {record.ran_on.device} (whose kernels add up in any order)"
    here, there = environment(), record.environment
    told = [
        f"{mine}, the record is of {its}"
        for mine, its in ((here["cpu"], there.cpu), (here["torch"], there.torch))
        if mine != its
    ]
    return f"on another machine ({'; '.join(told)})" if told else ""


def rescore(record: Record, weights: Path, home: Home, data: Path | None, progress: Progress) -> Finding:
    """Scores a saved student and compares with the record.

    Raises:
        UserError: the weights do not fit the student, or the method's deployed network is not the plain student.
    """
    if record.metrics is None or record.deploy is None:
        raise UserError(f"{record.run_id} has no result to compare with")
    if not record.deploy.equals_plain:
        raise UserError(f"{record.method_name} changes the student; its weights cannot be scored without the method")
    from kdbench import kinds
    from kdbench.devices import backends
    from kdbench.engine import accelerate
    from kdbench.engine.assemble import students_rows
    from kdbench.engine.scoring import Scorer
    from kdbench.engine.task import Task, build_network
    from kdbench.engine.teachers import no_keeper
    from kdbench.models.weights import load_weights

    config = config_of(record)
    device = _scored_on(record)
    own_kind = backends.of(device).name == record.ran_on.kind
    engine = config.engine.for_scoring(own_kind)
    accelerate.process(device, engine)
    rows = _require_same_rows(record, config, home, data, progress)
    own = students_rows(config, record.seed, rows)
    student = config.task.pair.student
    net = build_network(student.net, student.input, own)
    load_weights(net, str(weights))
    accelerate.student(net.to(device), engine)
    task = Task(config.task, own, device, record.seed, no_keeper(home, progress.say), engine)
    primary = record.task.metric_primary
    recorded = record.metrics.last[primary]
    delta = Scorer(task).primary(net)[primary] - recorded
    what, allowed = f"{primary} scored again differs by {delta:+.6g}", SCORE_TOLERANCE
    if not (own_kind and backends.of(device).on_host):
        rows_apart = 100 * ROUNDED_ROWS / len(own.test.y) if kinds.metrics()[primary].share else 0.0
        allowed = max(ROUNDED * abs(recorded), rows_apart)
        what += f", allowed is ±{allowed:.3g} where other kernels round otherwise"
    return Finding(2, abs(delta) <= allowed, what, delta)


def _scored_on(record: Record) -> torch.device:
    """A device of the record's own kind, or the CPU where there is none."""
    from kdbench.devices import backends
    from kdbench.devices.machine import take_device

    own = {backend.name: backend for backend in backends.every()}.get(record.ran_on.kind)
    there = own is not None and own.absent() is None
    return take_device(record.ran_on.kind if there else backends.HOST)


def cell_of(record: Record, folder: Path) -> list[float]:
    """Scores of a record's cell below a folder, each seed's first: of its configuration, device class and teachers."""
    scores: dict[int, float] = {}
    for one in recorded.of(folder, record.spec_hash):
        others = _other_teachers(record, {teacher.role: teacher.weights_sha256 for teacher in one.models.teachers})
        if one.device_class == record.device_class and not others and one.score is not None:
            scores.setdefault(one.seed, one.score)
    return list(scores.values())


def rerun(
    record: Record,
    seed: int | None,
    cell: Sequence[float],
    home: Home,
    data: Path | None,
    progress: Progress,
    device: str = "auto",
) -> Finding:
    """Runs the record's configuration again, with the published teacher that it names; level 4 on another device class.

    Args:
        seed: None for the record's own: on its model of CPU, its torch and its teachers the weights must then be the
            same bits; kernels of accelerators add up in any order. Otherwise the new score must lie in the prediction
            interval of the cell's, |x - mean| <= t(n-1) sd sqrt(1 + 1/n).
        cell: scores of the cell's seeds.
        device: where; ``auto`` is the record's own kind of device.
    """
    _require_one_process(record)
    from kdbench.devices.machine import take_device
    from kdbench.runs import published_teachers, run
    from kdbench.runs.request import Request

    place = take_device(record.ran_on.kind if device == "auto" else device)
    chosen = record.seed if seed is None else seed
    config = config_of(record)
    _require_same_rows(record, config, home, data, progress)
    published_teachers.take_named(record, home)
    request = Request(config, chosen, place, home, data, "off", force=True, progress=progress)
    again = run.run_seed(request)
    elsewhere = again.device_class != record.device_class
    level: Level = 4 if elsewhere else 3
    if again.score is None or record.score is None or again.deploy is None or record.deploy is None:
        return Finding(level, False, f"the run again ended as {again.status}", run_id=again.run_id)
    delta = again.score - record.score
    other = ""
    if not elsewhere:
        others = _other_teachers(record, {one.role: one.weights_sha256 for one in again.models.teachers})
        other = ", ".join(part for part in (_otherwise(record), others) if part)
    if seed is None and not elsewhere and not other:
        same = again.deploy.export_sha256 == record.deploy.export_sha256
        what = "the weights are the same bits" if same else f"the weights differ, the score by {delta:+.4g}"
        return Finding(3, same, what, delta, again.run_id)
    stat = summarise(dict(enumerate(cell)))
    if stat.sd is None:
        raise UserError(f"one seed gives no prediction interval; evaluate more seeds of {record.method_name} first")
    bound = t_quantile(stat.n - 1) * max(stat.sd, SD_FLOOR) * math.sqrt(1 + 1 / stat.n)
    passed = abs(again.score - stat.mean) <= bound
    what = f"the new score lies {again.score - stat.mean:+.3g} from the cell's mean, allowed is ±{bound:.3g}"
    what += f"; judged by the cell's prediction interval, for other bits are due: {other}" if other else ""
    return Finding(level, passed, what, again.score - stat.mean, again.run_id)


def keep(record: Record, findings: Sequence[Finding], folder: Path, by: str) -> Path:
    """Adds findings to the record's side file.

    Args:
        folder: the folder of records; the side file lies in its ``verifications``.
    """
    side = folder / SIDE_FOLDER
    path = side / f"{record.run_id}.json"
    before = records.load_side(path) if path.is_file() else SideFile(run_id=record.run_id)
    added = tuple(
        Verification(
            level=finding.level,
            by=by,
            date=records.now(),
            run_id_ref=finding.run_id,
            delta=finding.delta,
            verdict="passed" if finding.passed else "failed",
            note=records.scrub(finding.what)[:2000],
        )
        for finding in findings
    )
    whole = before.model_copy(update={"verifications": (*before.verifications, *added)})
    return records.dump_side(whole, side)


def accept(folder: Path, by: str, progress: Progress) -> tuple[int, list[Problem]]:
    """Gives level 1 to the records of a folder that have none: valid, and made from a clean commit.

    Returns:
        Number of records accepted, and the problems of the others.
    """
    problems = check_folder(folder)
    wrong = {problem.file for problem in problems if problem.level == "error"}
    files = sorted(records_of(folder))
    accepted = 0
    with progress.bar("accepting", len(files)) as advance:
        for path in files:
            advance()
            if str(path) in wrong or (shards.beside(path) / SIDE_FOLDER / path.name).is_file():
                continue
            record = records.load(path)
            if (why := record.provenance.unclean) is not None:
                problems.append(Problem(str(path), "provenance", f"{why}: no level 1"))
                continue
            keep(record, [Finding(1, True, "valid, of a clean commit")], shards.beside(path), by)
            accepted += 1
    return accepted, [problem for problem in problems if problem.level == "error"]
