"""The verb ``sweep``: many methods, tasks and seeds through a launcher."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from kdbench.cli.common import (
    EXIT_FAILED,
    EXIT_NOTHING_RAN,
    DataFolder,
    Devices,
    Jobs,
    JobsPerDevice,
    Launcher,
    LauncherArg,
    Local,
    Out,
    Ruleset,
    SeedsTogether,
    Teachers,
    Timeout,
    Track,
    app,
    home_of,
    show,
    take_local,
    take_teachers,
    warn,
)


@app.command()
def sweep(
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, as for evaluate; for every run.")] = None,
    *,
    methods: Annotated[
        str, typer.Option("--methods", "-m", help="Names, patterns such as 'crd*', folders of yours, or all.")
    ],
    tasks: Annotated[
        str, typer.Option("--tasks", "-t", help="Names, patterns such as 'digits/*', .yaml files of yours, or all.")
    ],
    seeds: Annotated[str | None, typer.Option("--seeds", help="Seeds such as 0-4 [default: the task's].")] = None,
    launcher: Launcher = "basic",
    jobs: Jobs = None,
    jobs_per_device: JobsPerDevice = None,
    seeds_together: SeedsTogether = 1,
    launcher_arg: LauncherArg = None,
    device: Devices = "auto",
    timeout: Timeout = None,
    overhead: Annotated[
        Literal["quick", "full", "off"], typer.Option("--overhead", help="How training cost is measured.")
    ] = "full",
    smoke: Annotated[bool, typer.Option("--smoke", help="Cut down to see that it runs; never ranked.")] = False,
    ruleset: Ruleset = "published",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run again what failed before.")] = False,
    teachers: Teachers = "own",
    track: Track = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and run nothing.")] = False,
    out: Out = None,
    local: Local = None,
    data: DataFolder = None,
) -> None:
    """Run methods x tasks x seeds; what has a record is not run again."""
    from kdbench.base.home import checkpoint_seconds, data_folder
    from kdbench.runs.evaluate import ingest, parse_seeds, require_together
    from kdbench.specs.config import engine_options
    from kdbench.sweep import devices as where
    from kdbench.sweep import launch, names, report
    from kdbench.sweep.plan import Asked
    from kdbench.sweep.progress import SweepProgress
    from kdbench.sweep.rounds import Sweep
    from kdbench.watch.trackers import require

    take_local(local)
    launch.require(launcher)
    trackers = require(track or ())
    require_together(seeds_together, trackers)
    checkpoint_seconds()
    home = home_of(out)
    if teachers == "published" and not dry_run:
        take_teachers(home)
    asked = Asked(
        methods=tuple(names.method_names(methods)),
        tasks=tuple(names.task_names(tasks)),
        home=home,
        seeds=tuple(parse_seeds(seeds)) if seeds is not None else None,
        overrides=tuple(overrides or ()),
        smoke=smoke,
        overhead=overhead,
        retry=retry_failed,
        data=data_folder(data),
        track=trackers,
        ruleset=ruleset,
        together=seeds_together,
    )
    place = where.find(
        launcher, device, jobs, jobs_per_device, engine_options(asked.overrides), launcher_arg or (), timeout
    )
    planned = Sweep(asked, place, SweepProgress.stderr())
    if dry_run:
        show(*report.dry_run(planned))
        return
    home.require_writable()
    outcome = planned.run()
    if (warning := ingest(home)) is not None:
        warn(warning)
    show(*report.ended(outcome, home))
    if outcome.failed:
        raise typer.Exit(EXIT_FAILED)
    if outcome.statuses and set(outcome.statuses) == {"not_applicable"}:
        raise typer.Exit(EXIT_NOTHING_RAN)
