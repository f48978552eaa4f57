"""The verb ``tune``: hyper-parameters for one's own task, on validation rows."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from kdbench.cli.common import DataFolder, Device, Json, Local, Out, app, home_of, show, take_local, warn


@app.command()
def tune(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value of all trials, as for evaluate.", show_default=False)
    ] = None,
    *,
    method: Annotated[str, typer.Option("--method", "-m", help="Names and patterns, as for sweep.")],
    task: Annotated[str, typer.Option("--task", "-t", help="A task by name, or a .yaml file of yours.")],
    trials: Annotated[int, typer.Option("--trials", min=1, help="Sets of values, those given among them.")] = 8,
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="Seeds of each trial, none of the task's [default: 1000].")
    ] = None,
    sampler: Annotated[
        Literal["qmc", "tpe"], typer.Option("--sampler", help="Spread evenly, or learn from the trials before.")
    ] = "qmc",
    device: Device = "auto",
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
    from kdbench.specs import local as paths
    from kdbench.specs import registry
    from kdbench.specs.config import engine_options
    from kdbench.sweep import devices as where
    from kdbench.sweep import names
    from kdbench.sweep.plan import Asked
    from kdbench.tune import report
    from kdbench.tune.points import require
    from kdbench.tune.search import Search

    require()
    checkpoint_seconds()
    home = home_of(out)
    take_local(local)
    name = registry.task(paths.task(task)).name
    asked = Asked(
        methods=(), tasks=(name,), home=home, overrides=tuple(overrides or ()), smoke=smoke,
        seeds=tuple(parse_seeds(seeds)) if seeds is not None else None, data=data_folder(data),
    )  # fmt: skip
    place = where.find("basic", device, None, None, engine_options(asked.overrides))
    found = [Search(asked, one, name, trials, sampler, place, say=warn) for one in names.method_names(method)]
    for search in found:
        if dry_run or not as_json:
            show(*report.plan(search))
        if not dry_run:
            home.require_writable()
            search.run()
            if not as_json:
                show(*report.answer(search))
    if as_json and not dry_run:
        print(json.dumps([search.as_json() for search in found], indent=1))
