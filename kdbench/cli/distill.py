"""The verb ``distill``: which method is worth its cost for one's own pair on one's own data."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from kdbench.cli.common import (
    EXIT_FAILED,
    DataFolder,
    Device,
    Json,
    Local,
    Out,
    Track,
    app,
    home_of,
    show,
    take_local,
    warn,
)

RECOMMENDED = "recommended"


@app.command()
def distill(
    *,
    task: Annotated[str, typer.Option("--task", "-t", help="A task by name, or a .yaml file of yours.")],
    methods: Annotated[
        str, typer.Option("--methods", "-m", help="recommended, or names, patterns and folders as for sweep.")
    ] = RECOMMENDED,
    budget: Annotated[
        str | None, typer.Option("--budget", help="Time on this machine, such as 30m or 2h [default: five methods].")
    ] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Seeds such as 0-4 [default: the task's].")] = None,
    overhead: Annotated[Literal["quick", "full"], typer.Option("--overhead", help="How cost is measured.")] = "quick",
    device: Device = "auto",
    track: Track = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say the plan and the hours, and run nothing.")] = False,
    local: Local = None,
    out: Out = None,
    data: DataFolder = None,
    as_json: Json = False,
) -> None:
    """Try a short list of methods on your task and say which is worth its cost."""
    import json

    from kdbench.base.home import checkpoint_seconds, data_folder
    from kdbench.distill import report
    from kdbench.distill.study import Study
    from kdbench.runs.evaluate import parse_seeds
    from kdbench.specs import local as paths
    from kdbench.specs import registry
    from kdbench.sweep import devices as where
    from kdbench.sweep import names
    from kdbench.sweep.plan import Asked
    from kdbench.watch.trackers import require

    trackers = require(track or ())
    checkpoint_seconds()
    home = home_of(out)
    take_local(local)
    asked = Asked(
        methods=(), tasks=(registry.task(paths.task(task)).name,), home=home, overhead=overhead, track=trackers,
        seeds=tuple(parse_seeds(seeds)) if seeds is not None else None, data=data_folder(data),
    )  # fmt: skip
    named = None if methods == RECOMMENDED else list(names.method_names(methods))
    study = Study.of(asked, named, where.find("basic", device, None, None), budget, warn)
    if dry_run or not as_json:
        show(*report.plan(study, study.plan()))
    if dry_run:
        return
    found = report.answered(study, warn)
    if as_json:
        print(json.dumps(report.as_json(found, study), indent=1))
    else:
        show(*report.answer(found, study))
        show(report.page(study))
    if any(outcome.failed for outcome in study.outcomes):
        raise typer.Exit(EXIT_FAILED)
