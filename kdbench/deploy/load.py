"""From a run to its networks: what its record says, the weights that the home folder keeps, the rows of its task."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import nn

from kdbench import data as data_sources
from kdbench import identity
from kdbench.base.errors import UserError
from kdbench.base.files import sha256_file
from kdbench.base.home import Home, data_folder
from kdbench.base.progress import Progress
from kdbench.contract import NotApplicable, Rows
from kdbench.data import sources
from kdbench.data.decode.place import Place
from kdbench.data.decode.specification import set_names
from kdbench.data.feed.dataset import Dataset
from kdbench.deploy.around import Loaded, deployed
from kdbench.deploy.find import again, source
from kdbench.deploy.formats import of_file
from kdbench.deploy.module import Deployed
from kdbench.engine import teachers
from kdbench.engine.assemble import prepare
from kdbench.engine.place import RunPlace
from kdbench.engine.task import build_network
from kdbench.engine.teachers import WEIGHTS
from kdbench.models.weights import load_weights
from kdbench.records.files import Record
from kdbench.records.schema import Teacher
from kdbench.runs.verify import config_of
from kdbench.specs import local as own_files
from kdbench.specs.pair import AUTO
from kdbench.specs.task import TaskSpec
from kdbench.watch.screen import terminal

STUDENT, TEACHER = "student", "teacher"


def load_student(
    run: str | Path,
    *,
    out: str | Path | None = None,
    data: str | Path | None = None,
    local: Sequence[str | Path] = (),
) -> Deployed:
    """The deployed student of a run, in eval mode on the CPU, with its preprocessing and its classes.

    Args:
        run: run id or the beginning of one, a record's file, or a safetensors file of `kdbench export`.
        out: home folder; ``KDBENCH_HOME`` or ``~/.cache/kdbench`` when None.
        data: folder with data sets; ``KDBENCH_DATA`` or the hub when None.
        local: files and folders of one's own that the run rests on, such as its task's.

    Raises:
        kdbench.base.errors.UserError: no such run, its student was not kept, or its data are not at hand.
    """
    return _network(run, STUDENT, out, data, local)


def load_teacher(
    run: str | Path,
    role: str | None = None,
    *,
    out: str | Path | None = None,
    data: str | Path | None = None,
    local: Sequence[str | Path] = (),
) -> Deployed:
    """The teacher that a run's method read; ``role`` names one of several. All else as of :func:`load_student`."""
    net = TEACHER if role is None else f"{TEACHER}:{role}"
    return _network(run, net, out, data, local)


def network(
    found: Record | Path, net: str, home: Home, data: Path | None, progress: Progress
) -> tuple[Deployed, Rows | None]:
    """A network of a run, or that of a safetensors file which `kdbench export` wrote: that needs no run and no data.

    Returns:
        It, and the raw training rows that its score searches: None where it searches none, or of a file.

    Raises:
        UserError: as :func:`load` and :func:`kdbench.deploy.formats.of_file`.
    """
    if isinstance(found, Path):
        return of_file(found), None
    loaded = load(found, net, home, data, progress)
    return loaded.module, loaded.searched


def _network(
    run: str | Path, net: str, out: str | Path | None, data: str | Path | None, own: Sequence[str | Path]
) -> Deployed:
    for path in own:
        own_files.add(str(path))
    home = Home.find(Path(out) if out is not None else None)
    folder = data_folder(Path(data) if data is not None else None)
    return network(source(run, home), net, home, folder, terminal("load:"))[0]


def load(record: Record, net: str, home: Home, data: Path | None, progress: Progress) -> Loaded:
    """A network of a run.

    Args:
        net: ``student``, ``teacher``, or ``teacher:<role>``.

    Raises:
        UserError: as :func:`load_student`; or there is no such teacher, several or one that only lends features.
    """
    spec = task_of(record)
    if net == STUDENT:
        weights = _students_weights(record, home)  # said before the rows are read
        rows = rows_of_run(record, spec, home, data, progress)
        network, by_name = _student(record, spec, rows, weights, home, data, progress)
        given = spec.pair.student
        assert record.metrics is not None
        return deployed(record, spec, rows, network, STUDENT, given.input, given.net, by_name, record.metrics.last)
    chosen = _teacher_of(record, net)
    rows = rows_of_run(record, spec, home, data, progress)
    taught = spec.pair.teachers[chosen.role]
    network = build_network(taught.net, taught.input, rows)
    _load_teacher(network, record, chosen, taught.weights, home)
    name = f"{TEACHER}:{chosen.role}"
    assert chosen.val_metric is not None
    value = {record.task.metric_primary: chosen.val_metric}
    return deployed(record, spec, rows, network, name, taught.input, taught.net, True, value)


def task_of(record: Record) -> TaskSpec:
    """The task as it was, from the record alone, so that neither name nor file of the task need be here."""
    known: dict[str, Any] = dict(record.provenance.config_resolved)
    used = record.task
    body: dict[str, Any] = {
        "name": used.name, "title": used.name, "version": used.version, "kind": used.kind, "suite": used.suite,
        "baseline": used.baseline, "seeds": [record.seed], **known.get("protocol", {}),
        **({"smoke": known.get("smoke")} if record.smoke else {}),
    }  # fmt: skip
    try:
        return TaskSpec.model_validate(body)
    except ValidationError as error:
        raise UserError(
            f"{record.run_id[:12]}: this kdbench does not read its task ({error.errors()[0]['msg']}); check out commit "
            f"{record.provenance.git_commit or 'of kdbench ' + record.provenance.kdbench_version}"
        ) from error


def rows_of_run(record: Record, spec: TaskSpec, home: Home, data: Path | None, progress: Progress) -> Dataset:
    """All rows of the run's task; the student's subset is not drawn.

    Raises:
        UserError: they are not at hand, or not those of the record.
    """
    if spec.data.source not in set_names() and sources.module(spec.data.source) is None:
        raise UserError(
            f"{record.run_id[:12]}: its data set {spec.data.source!r} is described beside a task of your own; give "
            "that task's file with --local FILE, or as local= in Python"
        )
    everything = data_sources.load(spec.data, Place(data, home.data, progress))
    seen = everything.head(spec.smoke.rows) if record.smoke else everything
    rows = seen.validated(spec.data.validation)
    drawn = rows if record.smoke else rows.subset(spec.data.subset, record.seed)
    read = identity.RowsRead(
        seen.identity(), {"train": drawn.drawn or drawn.digest("train"), "test": rows.digest("test")}
    )
    if identity.other_rows(record, read):
        raise UserError(
            f"{record.run_id[:12]}: the data here ({everything.name}) are not the run's: their rows, normalisation or "
            "size differ; name the folder of its data with --data"
        )
    return rows


def _students_weights(record: Record, home: Home) -> Path:
    """The file that keeps a run's student.

    Raises:
        UserError: it is not there, or not the one that was written.
    """
    assert record.deploy is not None
    path = home.students / f"{record.run_id}.safetensors"
    if not path.is_file():
        raise UserError(f"{record.run_id[:12]}: its student is not kept in {home.students}; again: {again(record)}")
    if record.deploy.export_sha256 is not None and sha256_file(path) != record.deploy.export_sha256:
        raise UserError(f"{path}: not the weights that the record names; again: {again(record)}")
    return path


def _student(
    record: Record, spec: TaskSpec, rows: Dataset, weights: Path, home: Home, data: Path | None, progress: Progress
) -> tuple[nn.Module, bool]:
    """The deployed student, and whether its net's name and the weights are all of it."""
    assert record.deploy is not None
    by_name = record.deploy.equals_plain
    if by_name:
        net: nn.Module = build_network(spec.pair.student.net, spec.pair.student.input, rows)
    else:
        net = _made_by_its_method(record, rows, home, data, progress)
    try:
        net.load_state_dict(load_file(weights))
    except RuntimeError as error:
        why = "the code of its net has changed" if by_name else f"{record.method_name} makes it while it trains"
        raise UserError(f"{record.run_id[:12]}: its student cannot be put together again: {why}") from error
    return net, by_name


def _made_by_its_method(record: Record, rows: Dataset, home: Home, data: Path | None, progress: Progress) -> nn.Module:
    """The network that a method deploys which changes the student, untrained."""
    progress.say(f"{record.method_name} changes the student: putting it together from the task's teacher")
    home.runs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="load-", dir=home.runs) as scratch:
        place = RunPlace(torch.device("cpu"), home, data, Path(scratch), progress)
        try:
            return prepare(config_of(record), record.seed, place, rows).method.deployed
        except NotApplicable as reason:
            raise UserError(f"{record.run_id[:12]}: {reason}") from reason


def _teacher_of(record: Record, net: str) -> Teacher:
    """The teacher that a user means.

    Raises:
        UserError: the method reads none, several or no such one, or one without scores.
    """
    head, colon, role = net.partition(":")
    there = {teacher.role: teacher for teacher in record.models.teachers}
    named = " or ".join(f"{TEACHER}:{one}" for one in there)
    if head != TEACHER or (colon and role not in there and there):
        raise UserError(f"net {net!r}: name {STUDENT} or {named or TEACHER}")
    if not there:
        raise UserError(f"{record.method_name} read no teacher; name a run of a method that does, such as kd")
    if not colon and len(there) > 1:
        whole = (
            "their ensemble is no one network: take each and the mean of their scores" if record.models.ensemble else ""
        )
        raise UserError(f"the run read {len(there)} teachers; name {named}{'; ' + whole if whole else ''}")
    chosen = there[role] if colon else next(iter(there.values()))
    if chosen.val_metric is None:
        raise UserError(
            f"teacher {chosen.role!r} ({chosen.arch}) only lends features; it has no scores of these classes"
        )
    return chosen


def _load_teacher(net: Any, record: Record, teacher: Teacher, weights: str, home: Home) -> None:
    """Loads what the run's teacher was: from the home folder, or from where its weights came."""
    if weights == AUTO:
        for path, facts in teachers.kept(home):
            if facts["weights_sha256"] == teacher.weights_sha256 == sha256_file(path / WEIGHTS):
                net.load_state_dict(load_file(path / WEIGHTS))
                return
        raise UserError(
            f"{record.run_id[:12]}: its teacher {teacher.role!r} is not kept in {home.teachers}; again: {again(record)}"
        )
    try:
        digest = load_weights(net, weights).sha256
    except UserError as error:
        raise UserError(
            f"teacher {teacher.role!r}: {error} (records keep the names of files, not their folders)"
        ) from error
    if teacher.weights_sha256 not in (None, digest):
        raise UserError(f"teacher {teacher.role!r}: {weights!r} holds other weights than the run read")
