"""Checks of a task, in its author's words: the file, its data, its networks, and a run of seconds."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from kdbench import data, kinds, models
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.checks import rows as of_rows
from kdbench.checks.result import CheckResult
from kdbench.contract import NotApplicable
from kdbench.data.decode.cache import Decoded
from kdbench.data.decode.inputs import ClipInput, PictureInput
from kdbench.data.decode.specification import set_names, set_spec
from kdbench.data.feed.augment import augmentation
from kdbench.data.feed.dataset import Dataset
from kdbench.data.feed.described import decoded_of
from kdbench.data.feed.moved import moves
from kdbench.engine.assemble import effective_task, prepare, rehearse, threads
from kdbench.engine.place import RunPlace
from kdbench.engine.scoring import Scorer
from kdbench.engine.task import build_network
from kdbench.engine.teachers import teacher_spec
from kdbench.engine.trainer import Trainer
from kdbench.specs import registry
from kdbench.specs.config import run_config
from kdbench.specs.pair import AUTO
from kdbench.specs.registry import PLAIN
from kdbench.specs.task import TaskSpec

RULES = {
    "baseline": "the baseline is a method that runs on tasks of this kind",
    "nets": "student and teachers are nets of the zoo or of timm",
    "augmentation": "augmentations are known, and of the kind that the inputs take",
    "score": "scores in the target's own unit name it",
    "schedule": "milestones lie within the epochs",
    "data": "both parts can be read and hold what the data set's file says",
    "varies": "the rows of an input differ, in each part and class",
    "apart": "test rows do not stand in the training part too",
    "kind": "the data have targets as the kind of task asks",
    "inputs": "the nets can read the inputs that the task names",
    "subset": "every class has the rows that a subset asks for",
    "batches": "no epoch ends in a batch of one row on which a net cannot train",
    "trains": "plain and the baseline train and are scored on the smoke budget",
    "ranked": "a ranked task has proven data and a least score of each teacher that is trained",
}
"""Rule to what it says."""
AFTER_DATA = ("varies", "apart", "kind", "inputs", "subset", "batches", "trains")
"""Rules that need the rows."""

Verdict = str | None
"""What is wrong and what to do, None when nothing is."""


def check_task(name: str, home: Home, folder: Path | None, progress: Progress) -> list[CheckResult]:
    """Runs every rule on a task.

    Args:
        home: keeps the decoded data for later runs; what is trained here is thrown away.
        folder: the user's data folder, None for the hub.

    Raises:
        UserError: unknown task, or its file is malformed (file, line, key).
    """
    return list(_check(registry.task(name), home, folder, progress))


def _check(spec: TaskSpec, home: Home, folder: Path | None, progress: Progress) -> Iterator[CheckResult]:
    yield _judged("baseline", lambda: baseline(spec))
    yield _judged("nets", lambda: nets(spec))
    yield _judged("augmentation", lambda: augmented(spec))
    yield _judged("score", lambda: unit(spec))
    yield _judged("schedule", lambda: schedule(spec))
    try:
        rows = data.load(spec.data, data.Place(folder, home.data, progress))
    except UserError as error:
        yield CheckResult("data", "", "failed", str(error))
        yield from (CheckResult(rule, "", "skipped", "data failed") for rule in (*AFTER_DATA, "ranked"))
        return
    place = data.Place(folder, home.data, progress)
    yield CheckResult("data", "", "ok", "; ".join(of_rows.remarks(spec.data, rows, place)))
    yield _judged("varies", lambda: of_rows.varies(rows))
    yield of_rows.apart(rows, decoded_of(spec.data, place))
    early = [_judged("kind", lambda: aim(spec, rows)), _judged("inputs", lambda: inputs(spec, rows))]
    early.append(_judged("subset", lambda: subset(spec, rows)))
    yield from early
    broken = next((result.rule for result in early if result.outcome == "failed"), None)
    if broken is None:
        yield _judged("batches", lambda: batches(spec, rows, folder))
        yield _judged("trains", lambda: trains(spec, rows, folder, progress))
    else:
        yield from (CheckResult(rule, "", "skipped", f"{broken} failed") for rule in ("batches", "trains"))
    yield ranked(spec, rows, lambda: decoded_of(spec.data, data.Place(folder, home.data, progress)))


def _judged(rule: str, judge: Callable[[], Verdict]) -> CheckResult:
    try:
        verdict = judge()
    except UserError as error:
        verdict = str(error)
    return CheckResult(rule, "", "failed" if verdict else "ok", verdict or "")


def baseline(spec: TaskSpec) -> Verdict:
    """Rule ``baseline``."""
    ref = registry.method(spec.baseline)
    if kinds.refusal(ref.kinds, spec.kind) is None:
        return None
    return f"{spec.baseline} does not run on {spec.kind} tasks; write `baseline: {PLAIN}`"


def nets(spec: TaskSpec) -> Verdict:
    """Rule ``nets``."""
    for net in (spec.pair.student.net, *(teacher.net for teacher in spec.pair.teachers.values())):
        models.recipe(net)
    return None


def augmented(spec: TaskSpec) -> Verdict:
    """Rule ``augmentation``."""
    if spec.of_kind.placed:
        moves(spec.data.augment)
        return None
    augmentation(spec.data.augment)
    if spec.data.source not in set_names():
        return None
    given = set_spec(spec.data.source).inputs.values()
    stored = [one for one in given if isinstance(one, PictureInput | ClipInput)]
    cropped = any(name.startswith("resized_crop") for name in spec.data.augment)
    if any(one.resize is not None for one in stored) and not cropped:
        return "pictures kept compressed are cropped while they are decoded; add resized_crop<percent> to data.augment"
    if cropped and not stored:
        return "resized_crop<percent> is for pictures kept compressed; these are kept as pixels: use crop<pixels>"
    return None


def unit(spec: TaskSpec) -> Verdict:
    """Rule ``score``."""
    return None if spec.score.unit else "score.unit is empty; name the target's unit, e.g. years"


def schedule(spec: TaskSpec) -> Verdict:
    """Rule ``schedule``."""
    late = [epoch for epoch in spec.train.schedule.milestones if epoch >= spec.train.epochs]
    return f"train.schedule.milestones: epoch {late[0]} is not reached in {spec.train.epochs} epochs" if late else None


def aim(spec: TaskSpec, rows: Dataset) -> Verdict:
    """Rule ``kind``."""
    kind = spec.of_kind
    wrong = kind.refusal(rows.train, rows.label_range)
    return (
        f"the task is of kind {spec.kind}, but {rows.name} has {wrong}; change kind, or the data's targets"
        if wrong
        else kind.unscorable(rows.train, rows.test, spec.score.k)
    )


def inputs(spec: TaskSpec, rows: Dataset) -> Verdict:
    """Rule ``inputs``."""
    pair = [(spec.pair.student.net, spec.pair.student.input)]
    for net, given in [*pair, *((teacher.net, teacher.input) for teacher in spec.pair.teachers.values())]:
        build_network(net, given, rows)
    return None


def subset(spec: TaskSpec, rows: Dataset) -> Verdict:
    """Rule ``subset``."""
    rows.subset(spec.data.subset, spec.seeds[0])
    return None


def batches(spec: TaskSpec, rows: Dataset, folder: Path | None) -> Verdict:
    """Rule ``batches``: of plain, the baseline, and plain with each teacher that is trained."""
    plain = run_config(PLAIN, spec.name)
    configs = [plain, *(run_config(name, spec.name) for name in (spec.baseline,) if name in registry.methods())]
    taught = [teacher for teacher in spec.pair.teachers.values() if teacher.weights == AUTO]
    configs += [replace(plain, task=teacher_spec(spec, teacher, smoke=False)) for teacher in taught]
    for config in configs:
        with tempfile.TemporaryDirectory() as scratch, contextlib.suppress(NotApplicable):
            place = RunPlace(torch.device("cpu"), Home(Path(scratch)), folder, Path(scratch))
            rehearse(config, spec.seeds[0], place, rows)
    return None


def trains(spec: TaskSpec, rows: Dataset, folder: Path | None, progress: Progress) -> Verdict:
    """Rule ``trains``: nothing of it is kept."""
    some = rows.head(spec.smoke.rows)
    device = torch.device("cpu")
    for name in dict.fromkeys((PLAIN, spec.baseline)):
        config = effective_task(run_config(name, spec.name, smoke=True))
        with tempfile.TemporaryDirectory() as scratch, threads(spec, device):
            place = RunPlace(device, Home(Path(scratch)), folder, Path(scratch) / "run", progress)
            try:
                prepared = prepare(config, spec.seeds[0], place, some)
                Trainer(prepared.method, prepared.task).run()
                Scorer(prepared.task).all(prepared.method.deployed)
            except NotApplicable as reason:
                return f"{name} does not apply: {reason}"
            except (RuntimeError, ValueError, IndexError) as error:
                return f"{name} cannot train on it: {type(error).__name__}: {str(error).splitlines()[0]}"
    return None


def ranked(spec: TaskSpec, rows: Dataset, decoded: Callable[[], Decoded | None]) -> CheckResult:
    """Rule ``ranked``; of a task that is not ranked, what is left to do."""
    missing = [
        f"pair.teachers.{role} needs a min_score, a little below what it reaches"
        for role, teacher in spec.pair.teachers.items()
        if teacher.weights == "auto" and teacher.min_score is None
    ]
    if not rows.official and (found := decoded()) is not None:
        parts = found.facts["parts"]
        known = {key: ", ".join(f"{part}: {parts[part][key]}" for part in parts) for key in ("rows", "content")}
        line = f"identity: {{rows: {{{known['rows']}}}, content: {{{known['content']}}}}}"
        missing.append(f"once these are the data that everybody should have, write into their file `{line}`")
    if not missing:
        return CheckResult("ranked", "", "ok")
    return CheckResult(
        "ranked", "", "failed" if spec.ranked else "skipped", "before it is ranked: " + "; ".join(missing)
    )
