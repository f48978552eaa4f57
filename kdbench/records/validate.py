"""The validator of published records, the same for people and CI: what the schema cannot see in one field or file.

Errors keep a record out. Warnings ask a person to look: they are what honest runs hardly ever show.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdbench.base.errors import UserError
from kdbench.base.fields import CACHE, EVALUATION
from kdbench.base.files import canonical_json, sha256
from kdbench.base.privacy import strings
from kdbench.records import items, shards
from kdbench.records.files import (
    SIDE_FOLDER,
    Problem,
    Record,
    RecordError,
    load,
    load_side,
    read_text,
    side_of,
    spec_hash,
)
from kdbench.records.folder import listed
from kdbench.records.schema.overhead import Measured

TOLERANCE = 1e-6
"""Relative difference allowed between a stored overhead figure and the one its pairs give."""
FEW_PAIRS = 30
LOW_RATIO = 0.98
OVER_TEACHER = 5.0
UNSEEN = re.compile(r"\\[ubfr]|\x7f")
"""What JSON of ASCII alone holds where a string of it has a character that shows nothing."""
CURVE_GAP = 5.0
"""Points of a metric in percent; other units are not judged."""


def check_file(path: Path) -> list[Problem]:
    """All that is wrong with one record, or with one side file if it lies in a folder ``verifications``."""
    return _read(path)[1]


def check_folder(folder: Path) -> list[Problem]:
    """All that is wrong with the records and side files under ``folder``, one by one and with one another.

    Args:
        folder: of records of either form; or a shard.

    Raises:
        UserError: there is no such folder, or it holds no record.
    """
    if not folder.is_dir() and folder.suffix != shards.SUFFIX:
        raise UserError(f"{folder} is no folder; name a folder of records")
    records: list[tuple[str, Record]] = []
    sides: list[Path] = []
    files = listed(folder)
    problems = list(files.bad)
    for path in sorted(file.path for file in files.files):
        record, found = _read(path)
        problems += found
        if record is not None:
            records.append((str(path), record))
        elif path.parent.name == SIDE_FOLDER:
            sides.append(path)
    if not records and not problems:
        raise UserError(f"{folder} holds no record; name a folder with <run_id>.json files in it")
    problems += _duplicates(records)
    standing = [(file, record) for file, record in records if not _withdrawn(Path(file))]
    problems += _repeats(standing)
    problems += _cells(standing)
    problems += _unpaired(standing)
    problems += _other_data(standing)
    ids = {record.run_id for _, record in records}
    problems += [Problem(str(path), "run_id", "no such record in the folder") for path in sides if path.stem not in ids]
    return list(dict.fromkeys(problems))


def _read(path: Path) -> tuple[Record | None, list[Problem]]:
    file = str(path)
    try:
        if path.parent.name == SIDE_FOLDER:
            load_side(path)
            return None, [*_twins(path), *_unseen(path)]
        record = load(path)
    except RecordError as error:
        return None, list(error.problems)
    derived = [*_derived(record, file), *_skipped(record, file)]
    if derived and _withdrawn(path):
        derived = [replace(problem, level="warning", message=f"{problem.message} (withdrawn)") for problem in derived]
    return record, [*_twins(path), *_unseen(path), *derived, *_implausible(record, file), *_items(path, record)]


def _items(path: Path, record: Record) -> Iterator[Problem]:
    """What is kept of each test row beside a record: it must be the record's own."""
    kept = items.path_of(path)
    if not kept.is_file():
        return
    each = items.load(kept)
    fault = "is no Parquet file of test rows as runs write them" if each is None else items.wrong(each, record)
    if fault is not None:
        yield Problem(str(path), f"{items.FOLDER}/{kept.name}", fault)


def _withdrawn(path: Path) -> bool:
    """Whether a record was taken back: what is wrong with it is known, and it counts for nothing."""
    side = side_of(path)
    return side is not None and side.withdrawn is not None


def _twins(path: Path) -> list[Problem]:
    """A key given twice: a reader sees the one, a program the other."""
    twice: list[str] = []

    def keys(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        twice.extend(sorted({name for name in names if names.count(name) > 1}))

    json.loads(read_text(path), object_pairs_hook=keys)
    return [Problem(str(path), name, "stands twice in one object") for name in twice]


def _unseen(path: Path) -> Iterator[Problem]:
    """Characters that show nothing, or turn the text around them: a reader sees other words than are there."""
    written = read_text(path)
    if written.isascii() and UNSEEN.search(written) is None:
        return
    for field, text in strings(json.loads(written)):
        marks = sorted({f"U+{ord(letter):04X}" for letter in text if letter not in "\n\t" and _hidden(letter)})
        if marks:
            yield Problem(str(path), field, f"holds {', '.join(marks)}, which a reader cannot see")


def _hidden(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") and letter not in "\u200c\u200d"


def _derived(record: Record, file: str) -> Iterator[Problem]:
    """Fields that follow from others."""
    spec = record.provenance.config_resolved
    if record.spec_hash != spec_hash(spec):
        yield Problem(file, "spec_hash", f"is not that of provenance.config_resolved, which is {spec_hash(spec)}")
    stated: dict[str, object] = {
        "method": record.method.name,
        "variant": record.method.variant,
        "params": record.method.params,
        "task": {"name": record.task.name, "version": record.task.version},
        "engine_version": record.engine_version,
        "searched": {"ruleset": record.ruleset, "values": record.search.values} if record.search is not None else None,
    }
    for name, value in stated.items():
        if spec.get(name) != value:
            yield Problem(
                file, f"provenance.config_resolved.{name}", f"does not agree with the record, which has {value!r}"
            )
    if record.measured is not None:
        for field, stored, derived in _overhead_figures(record.measured):
            if not math.isclose(stored, derived, rel_tol=TOLERANCE):
                yield Problem(file, f"overhead.{field}", f"is {stored!r}, but the pairs give {derived!r}")


def _skipped(record: Record, file: str) -> Iterator[Problem]:
    """Stages that trained nothing and call that measured: their cost is that of the run which trained them.

    Lines of the ledger that train nothing by their nature have no steps in any run.
    """
    for number, stage in enumerate(record.stages):
        trains = stage.ledger not in (EVALUATION, CACHE)
        if trains and not stage.steps and stage.basis == "measured" and stage.artefact_sha256 is None:
            what = f"stage {stage.name!r} has no step and no artefact, so its cost was not measured"
            yield Problem(file, f"stages.{number}.basis", what)


def _overhead_figures(block: Measured) -> Iterator[tuple[str, float, float]]:
    """(field, stored, recomputed) of every figure that follows from the pairs."""
    from kdbench.stats.step_ratio import estimate_ratio, weighted_ratio

    for number, phase in enumerate(block.phases):
        found = estimate_ratio(phase.builds)
        at = f"phases.{number}"
        yield f"{at}.step_ratio", phase.step_ratio, found.ratio
        yield f"{at}.ci95.0", phase.ci95[0], found.lo
        yield f"{at}.ci95.1", phase.ci95[1], found.hi
    if block.phases:
        whole = weighted_ratio([(phase.steps, phase.builds) for phase in block.phases])
    else:
        whole = estimate_ratio(block.builds)
    yield "step_ratio", block.step_ratio, whole.ratio
    yield "ci95.0", block.ci95[0], whole.lo
    yield "ci95.1", block.ci95[1], whole.hi
    yield "step_ms", block.step_ms, whole.method_ms
    yield "plain_step_ms", block.plain_step_ms, whole.plain_ms


def _implausible(record: Record, file: str) -> Iterator[Problem]:
    def warn(field: str, message: str) -> Problem:
        return Problem(file, field, message, "warning")

    if (why := record.provenance.unclean) is not None:
        yield warn("provenance", f"{why}: the run can never be verified")
    block = record.measured
    if block is not None:
        measured = [block.builds] if block.builds else [phase.builds for phase in block.phases]
        pairs = min(sum(map(len, builds)) for builds in measured)
        if block.mode == "full" and pairs < FEW_PAIRS:
            yield warn("overhead.builds", f"{pairs} pairs: a full measurement has at least {FEW_PAIRS}")
        if block.step_ratio < LOW_RATIO:
            yield warn("overhead.step_ratio", f"{block.step_ratio:.3f}: faster than plain training")
        if block.noise_flag or block.contended:
            yield warn("overhead", "the machine was noisy or shared: this overhead should not be published")
    score, metric = record.score, record.task.metric_primary
    if score is None or record.task.unit != "%" or not record.task.higher_is_better:
        return
    taught = [teacher.val_metric for teacher in record.models.teachers if teacher.val_metric is not None]
    if taught and score > max(taught) + OVER_TEACHER:
        yield warn(
            f"metrics.last.{metric}", f"{score:g} lies more than {OVER_TEACHER:g} over the teacher's {max(taught):g}"
        )
    end = record.curve[-1].val.get(metric) if record.curve else None
    if record.metrics is not None and end is not None and abs(end - record.metrics.last[metric]) > CURVE_GAP:
        yield warn(f"metrics.last.{metric}", f"{record.metrics.last[metric]:g}, but the curve ends at {end:g}")


def _duplicates(records: Iterable[tuple[str, Record]]) -> Iterator[Problem]:
    by_id: dict[str, str] = {}
    by_content: dict[str, str] = {}
    for file, record in records:
        if record.run_id in by_id:
            yield Problem(file, "run_id", f"is that of {by_id[record.run_id]} too; one of the two files must go")
            continue
        by_id[record.run_id] = file
        if record.status != "ok":
            continue
        content = _content(record)
        if content in by_content:
            yield Problem(file, "", f"has the same content as {by_content[content]}: a run counts once")
        by_content.setdefault(content, file)


def _repeats(records: Iterable[tuple[str, Record]]) -> Iterator[Problem]:
    """Seeds that were run twice. A copy is no repeat: :func:`_duplicates` tells of it."""
    by_run: dict[tuple[Any, ...], tuple[str, Record]] = {}
    for file, record in records:
        if record.status != "ok":
            continue
        before, first = by_run.setdefault((*_cell(record), record.seed), (file, record))
        if before != file and _content(first) != _content(record):
            what = f"seed {record.seed} of this cell is in {before} too: only the earlier run counts"
            yield Problem(file, "seed", what, "warning")


def _content(record: Record) -> str:
    """Hash of what was measured: equal for a record and its copy under another name or time."""
    value = record.model_dump(mode="json", exclude={"run_id", "created_at", "finished_at"})
    value["overhead"].pop("measured_by", None)
    return sha256(canonical_json(value))


def _cell(record: Record) -> tuple[Any, ...]:
    teachers = tuple(teacher.weights_sha256 for teacher in record.models.teachers)
    own = canonical_json(record.identity.model_dump(mode="json")) if record.identity is not None else ""
    return (
        record.spec_hash, record.device_class, record.method.adapter_version, own, *_rows(record), teachers,
        record.custom, record.smoke,
    )  # fmt: skip


def _cells(records: Iterable[tuple[str, Record]]) -> Iterator[Problem]:
    """Seeds that all score the same: a seed that does not reach the run, or one run copied."""
    cells: dict[tuple[Any, ...], list[tuple[str, Record]]] = defaultdict(list)
    for file, record in records:
        if record.score is not None:
            cells[_cell(record)].append((file, record))
    for runs in cells.values():
        seeds, scores = {record.seed for _, record in runs}, {record.score for _, record in runs}
        if len(seeds) > 2 and len(scores) == 1:
            file, record = runs[0]
            what = f"all {len(seeds)} seeds of {record.method_name} score {record.score!r}"
            yield Problem(file, f"metrics.last.{record.task.metric_primary}", what, "warning")


def _other_data(records: Iterable[tuple[str, Record]]) -> Iterator[Problem]:
    """Runs on other rows than most of their task have, or of another standing: on a board they would stand together."""
    tasks: dict[str, list[tuple[str, Record]]] = defaultdict(list)
    for file, record in records:
        if record.score is not None and not record.custom and not record.smoke:
            tasks[record.task.label].append((file, record))
    for label, runs in tasks.items():
        of = {file: (record.task.ranked, *_rows(record)) for file, record in runs}
        ranked, name, digest = usual = Counter(sorted(of.values(), reverse=True)).most_common(1)[0][0]
        for file, found in of.items():
            if found[1:] != (name, digest):
                what = f"{found[1]} ({found[2][:8]}), most records of {label} are of {name} ({digest[:8]})"
                yield Problem(file, "task.data", f"is {what}: they cannot stand on one board")
            elif found != usual:
                yield Problem(file, "task.ranked", f"is {found[0]}, most records of {label} say {ranked}".lower())


def _rows(record: Record) -> tuple[str, str]:
    """Name and digest of the rows scored."""
    test = next((used for used in record.task.data if used.split == "test"), None)
    return (test.name, test.sha256) if test is not None else ("nothing", "")


def _unpaired(records: Iterable[tuple[str, Record]]) -> Iterator[Problem]:
    """Ranked runs without the baseline's run of the same seed, so that no difference can be taken."""
    counted = [
        (file, record)
        for file, record in records
        if record.score is not None and record.task.ranked and not record.custom and not record.smoke
    ]

    def place(record: Record) -> tuple[Any, ...]:
        return (record.task.label, record.device_class, record.ruleset, record.engine_version, record.seed)

    there = {(record.method_name, *place(record)) for _, record in counted}
    for file, record in counted:
        if (record.task.baseline, *place(record)) not in there:
            what = f"no run of the baseline {record.task.baseline} with this seed, task, device class and engine"
            yield Problem(file, "seed", what, "warning")
