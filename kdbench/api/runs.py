"""Runs from a script or a notebook: by name, by path, or of Python objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from kdbench.api.results import Results, of_cells, of_runs
from kdbench.base.errors import UserError
from kdbench.base.given import Device, Listed, Names, Number, Place, Seeds, Settings, Words, checked
from kdbench.base.home import Home, checkpoint_seconds, data_folder
from kdbench.runs.evaluate import Command, evaluate_seeds, ingest, require_together
from kdbench.specs import local, nets, registry
from kdbench.specs.config import run_config
from kdbench.specs.options import EngineOptions
from kdbench.specs.order import ConfigOrder, Mode
from kdbench.specs.overrides import as_words
from kdbench.specs.tuned import AS_PUBLISHED
from kdbench.watch.screen import terminal
from kdbench.watch.trackers import require

if TYPE_CHECKING:
    from kdbench.contract import Method

    AnyMethod = str | Path | type[Method]
else:
    AnyMethod = Any  # what it is is said where it is made a name of


@dataclass(frozen=True)
class OwnTask:
    """Data and networks in memory; made a task of the home in which it is first run."""

    name: str
    given: Mapping[str, Any]


AnyTask = str | Path | OwnTask
_Task = Annotated[AnyTask, Words("a task's name, the path of its file or a kdbench.task")]
_Methods = Annotated[Sequence[AnyMethod], Listed, Words("a list of methods, of one too,")]
_Tasks = Annotated[Sequence[AnyTask], Listed, Words("a list of tasks, of one too,")]


def task(name: str, *, train: Any, test: Any, student: Any, teacher: Any = None, **more: Any) -> OwnTask:
    """A task of Python objects: two data sets and networks.

    Args:
        name: small letters, digits, ``-``, ``_`` and ``.``.
        train, test: ``torch.utils.data.Dataset`` of (input, target), or a pair of tensors.
        student: a module (every run starts from its weights), a factory of (input_shape, classes), or a net's name.
        teacher: the same, or role to network; a module teaches with its weights, any other is trained first. Methods
            that read maps ask for :func:`kdbench.tap` around a module.
        more: ``epochs``, ``batch``, ``optimizer``, ``schedule``, ``augment``, ``mean``, ``std``, ``seeds``, as of
            :func:`kdbench.objects.task`.
    """
    return OwnTask(name, {"train": train, "test": test, "student": student, "teacher": teacher, **more})


@checked
def evaluate(
    method: AnyMethod,
    task: _Task,
    *,
    seeds: Seeds | None = None,
    overrides: Settings | None = None,
    overhead: Mode = "full",
    smoke: bool = False,
    force: bool = False,
    ruleset: str = AS_PUBLISHED,
    teachers: Literal["own", "published"] = "own",
    device: Device = "auto",
    out: Place | None = None,
    data: Place | None = None,
    track: Names = (),
    verbose: bool = False,
    seeds_together: Number = 1,
) -> Results:
    """Trains, scores and measures one method on one task, as ``kdbench evaluate`` does; what has a record is not run
    again.

    Args:
        method: a name, the path of a method's folder, or a class derived from :class:`kdbench.Method`.
        task: a name, the path of a task file, or a :func:`kdbench.task`.
        seeds: the task's own when None.
        overrides: settings by the keys of the command line: ``{"train.epochs": 5, "method.temperature": 2.0}``.
        overhead: how training cost is measured: ``quick``, ``full`` or ``off``.
        ruleset: ``published`` hyper-parameters, or ``tuned``, those that :func:`tune` found for this method and task.
        teachers: ``own`` are trained here; ``published`` ones lie beside the published records, so that a run on
            another processor joins their rows.
        out: home folder, the user's when None; ``data``: the folder with data sets.
        track: names of trackers.
        verbose: a line an epoch.
        seeds_together: how many seeds take turns in this process, a step each, to the same bits.

    Returns:
        The results of these runs.

    Raises:
        UserError: something given is wrong, in one line. Finished runs are recorded.
    """
    home = _home(out)
    _take(teachers, home)
    order = _order(_method(method, home), _task(task, home), overrides, smoke)
    command = Command(order, device, home.root, _path(data), ruleset)
    done = evaluate_seeds(
        command, seeds=seeds, overhead=overhead, force=force, announce=lambda record: None,
        progress=terminal(verbose=verbose), track=track, seeds_together=seeds_together,
    )  # fmt: skip
    if done is None:
        raise UserError("kdbench.evaluate is for one process; under torchrun use the command line")
    return of_runs(home, [record.run_id for record in done.records])


@checked
def sweep(
    methods: _Methods,
    tasks: _Tasks,
    *,
    seeds: Seeds | None = None,
    overrides: Settings | None = None,
    overhead: Mode = "full",
    smoke: bool = False,
    ruleset: str = AS_PUBLISHED,
    teachers: Literal["own", "published"] = "own",
    jobs: Number = 1,
    seeds_together: Number = 1,
    device: Device = "auto",
    out: Place | None = None,
    data: Place | None = None,
) -> Results:
    """Methods x tasks x seeds, as ``kdbench sweep`` runs them; what has a record is not run again.

    Args:
        methods, tasks: as of :func:`evaluate`; names may be patterns such as ``digits/*``.
        ruleset, teachers: as of :func:`evaluate`; a method without searched values is left out.
        jobs: runs at once; with ``seeds_together`` each is of so many seeds of a cell, as of :func:`evaluate`.

    Returns:
        All results of these methods on these tasks.

    Raises:
        UserError: something given is wrong.
    """
    from kdbench.sweep import devices, names
    from kdbench.sweep.plan import Asked
    from kdbench.sweep.progress import SweepProgress
    from kdbench.sweep.rounds import Sweep

    require_together(seeds_together, ())
    checkpoint_seconds()
    home = _home(out)
    _take(teachers, home)
    chosen = names.method_names(",".join(_method(method, home) for method in methods))
    on = names.task_names(",".join(_task(one, home) for one in tasks))
    asked = Asked(
        methods=tuple(chosen), tasks=tuple(on), home=home, overrides=_words(overrides), smoke=smoke, overhead=overhead,
        seeds=None if seeds is None else tuple(seeds), data=data_folder(_path(data)), ruleset=ruleset,
        together=seeds_together,
    )  # fmt: skip
    launcher = "basic" if jobs == 1 else "joblib"
    place = devices.find(launcher, device, jobs, None, _options(chosen[0], on[0], overrides))
    home.require_writable()
    Sweep(asked, place, SweepProgress.stderr()).run()
    ingest(home)
    return of_cells(home, chosen, on)


@checked
def distill(
    task: _Task,
    methods: Literal["recommended"] | _Methods = "recommended",
    *,
    budget: str | None = None,
    seeds: Seeds | None = None,
    overhead: Literal["quick", "full"] = "quick",
    device: Device = "auto",
    out: Place | None = None,
    data: Place | None = None,
    track: Names = (),
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Tries a short list of methods on a task, as ``kdbench distill`` does, and says which is worth its cost.

    Args:
        methods: what the published runs speak for, or methods as of :func:`evaluate`.
        budget: time on this machine, such as ``30m``; five methods when None.
        track: names of trackers.
        say: told what is left out and why.

    Returns:
        ``methods``, each with score, gains, cost and a verdict in words, the best first; ``left``, ``conclusion`` in
        words, and ``page``, the path of the chart.
    """
    from kdbench.distill import report
    from kdbench.distill.study import Study
    from kdbench.sweep import devices, names
    from kdbench.sweep.plan import Asked

    home = _home(out)
    asked = Asked(
        methods=(), tasks=(registry.task(_task(task, home)).name,), home=home, overhead=overhead,
        seeds=None if seeds is None else tuple(seeds), data=data_folder(_path(data)), track=require(track),
    )  # fmt: skip
    named = None
    if methods != "recommended":
        named = names.method_names(",".join(_method(one, home) for one in methods))
    study = Study.of(asked, named, devices.find("basic", device, None, None), budget, say)
    found = report.answered(study, say)
    return {**report.as_json(found, study), "page": str(report.page(study))}


@checked
def tune(
    method: AnyMethod,
    task: _Task,
    *,
    trials: Number = 8,
    seeds: Seeds | None = None,
    sampler: Literal["qmc", "tpe"] = "qmc",
    overrides: Settings | None = None,
    smoke: bool = False,
    device: Device = "auto",
    jobs: Number = 1,
    out: Place | None = None,
    data: Place | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Searches learning rate and hyper-parameters of a method on a task, as ``kdbench tune`` does, on training rows
    that the student does not see, never on test rows.

    Args:
        method, task, overrides: as of :func:`evaluate`.
        trials: sets of values, those given among them.
        seeds: of each trial, none of the task's own; 1000 when None.
        sampler: ``qmc`` spreads the trials evenly, ``tpe`` learns from those before.
        jobs: trials at once, for ``tpe`` seeds of one.
        say: told of each trial.

    Returns:
        The tuned entry, which ``evaluate(..., ruleset="tuned")`` finds in the home: ``values``, what sets the best;
        ``trials`` with their scores, ``best``, ``hours``, ``ruleset``, and what they rest on.

    Raises:
        UserError: something given is wrong, the method does not apply, or no trial gave a score.
    """
    from kdbench.sweep import devices
    from kdbench.sweep.plan import Asked
    from kdbench.tune.points import require as require_optuna
    from kdbench.tune.search import Search

    require_optuna()
    if trials < 1:
        raise UserError(f"trials={trials}: at least one set of values is tried")
    home = _home(out)
    name, on = _method(method, home), registry.task(_task(task, home)).name
    asked = Asked(
        methods=(), tasks=(on,), home=home, overrides=_words(overrides), smoke=smoke,
        seeds=None if seeds is None else tuple(seeds), data=data_folder(_path(data)),
    )  # fmt: skip
    place = devices.find("basic" if jobs == 1 else "joblib", device, jobs, None, _options(name, on, overrides))
    search = Search(asked, name, on, trials, sampler, place, say=say)
    home.require_writable()
    search.run()
    return search.as_json()


def _take(teachers: str, home: Home) -> None:
    """Published teachers into a home that asks for them."""
    if teachers == "published":
        from kdbench.runs import published_teachers

        home.require_writable()
        published_teachers.take(home)


def _home(out: str | Path | None) -> Home:
    """The home folder, told of the nets that this session has declared."""
    home = Home.find(None if out is None else Path(out))
    if nets.declared():
        from kdbench import objects

        objects.session_nets(home)
    return home


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


def _method(given: str | Path | type[Method], home: Home) -> str:
    """The name of a method."""
    if isinstance(given, str | Path):
        return local.method(str(given))
    from kdbench import objects

    return objects.method(given, home)


def _task(given: AnyTask, home: Home) -> str:
    """The name of a task."""
    if isinstance(given, OwnTask):
        from kdbench import objects

        return objects.task(given.name, home, **given.given)
    return local.task(str(given))


def _words(overrides: Mapping[str, Any] | None) -> tuple[str, ...]:
    return tuple(as_words(overrides or {}))


def _order(method: str, task: str, overrides: Mapping[str, Any] | None, smoke: bool) -> ConfigOrder:
    return ConfigOrder.of(run_config(method, task, _words(overrides), smoke=smoke))


def _options(method: str, task: str, overrides: Mapping[str, Any] | None) -> EngineOptions:
    return run_config(method, task, _words(overrides)).engine
