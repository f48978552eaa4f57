"""The verb ``tune``: hyper-parameters for one's own task or for many, on validation rows."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from kdbench.base.errors import UserError
from kdbench.cli.common import (
    EXIT_FAILED,
    DataFolder,
    Devices,
    Jobs,
    JobsPerDevice,
    Json,
    Launcher,
    LauncherArg,
    Local,
    Out,
    Timeout,
    app,
    home_of,
    show,
    take_local,
    warn,
)


@app.command()
def tune(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value of all trials, as for evaluate.", show_default=False)
    ] = None,
    *,
    method: Annotated[
        str | None, typer.Option("--method", "--methods", "-m", help="Names and patterns, as for sweep.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All methods, those that apply.")] = False,
    task: Annotated[
        str, typer.Option("--task", "--tasks", "-t", help="Names and patterns, as for sweep, or a .yaml file of yours.")
    ],
    trials: Annotated[int, typer.Option("--trials", min=1, help="Sets of values, those given among them.")] = 8,
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="Seeds of each trial, none of the task's [default: 1000].")
    ] = None,
    sampler: Annotated[
        Literal["qmc", "tpe"], typer.Option("--sampler", help="Spread evenly, or learn from the trials before.")
    ] = "qmc",
    launcher: Launcher = "basic",
    jobs: Jobs = None,
    jobs_per_device: JobsPerDevice = None,
    launcher_arg: LauncherArg = None,
    device: Devices = "auto",
    timeout: Timeout = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="Cut down to see that it runs.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be tried, and run nothing.")] = False,
    local: Local = None,
    out: Out = None,
    data: DataFolder = None,
    as_json: Json = False,
) -> None:
    """Search learning rate and hyper-parameters on training rows that the student does not see."""
    import json

    from kdbench.base.home import checkpoint_seconds, data_folder
    from kdbench.runs.evaluate import parse_seeds
    from kdbench.specs.config import engine_options
    from kdbench.sweep import devices as where
    from kdbench.sweep import names
    from kdbench.sweep.plan import Asked
    from kdbench.tune import report
    from kdbench.tune.batch import Batch
    from kdbench.tune.points import require
    from kdbench.tune.search import Search

    require()
    if every == (method is not None):
        raise UserError("give --method or --all")
    checkpoint_seconds()
    home = home_of(out)
    take_local(local)
    on = names.task_names(task)
    asked = Asked(
        methods=(), tasks=(), home=home, overrides=tuple(overrides or ()), smoke=smoke,
        seeds=tuple(parse_seeds(seeds)) if seeds is not None else None, data=data_folder(data),
    )  # fmt: skip
    place = where.find(
        launcher, device, jobs, jobs_per_device, engine_options(asked.overrides), launcher_arg or (), timeout
    )

    def search(method: str, task: str) -> Search:
        return Search(asked, method, task, trials, sampler, place, say=warn)

    chosen = names.method_names(names.ALL if method is None else method)
    left: dict[tuple[str, str], str] = {}
    if len(chosen) * len(on) > 1:
        several = Batch.of(chosen, on, search)
        left = several.left
        if dry_run or not as_json:
            show(*report.batch(several))
        if not dry_run:
            home.require_writable()
            several.run()
        found = several.searches
    else:
        found = [search(chosen[0], on[0])]
        found[0].require()
        if dry_run or not as_json:
            show(*report.plan(found[0]))
        if not dry_run:
            home.require_writable()
            found[0].run()
    if dry_run:
        return
    done = [one for one in found if (one.method, one.task) not in left]
    if as_json:
        print(json.dumps([one.as_json() for one in done], indent=1))
    else:
        for one in done:
            show(*report.answer(one))
    for one in found:
        if one not in done:
            warn(left[one.method, one.task])
    if len(done) < len(found):
        raise typer.Exit(EXIT_FAILED)
