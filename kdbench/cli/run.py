"""Verbs that train or measure: evaluate, overhead, verify, check."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kdbench.base.errors import UserError
from kdbench.cli.common import (
    EXIT_FAILED,
    EXIT_NOTHING_RAN,
    DataFolder,
    Device,
    Json,
    Local,
    Out,
    Ruleset,
    SeedsTogether,
    Teachers,
    Track,
    Verbose,
    app,
    home_of,
    progress,
    show,
    take_local,
    take_teachers,
    warn,
)

if TYPE_CHECKING:
    from kdbench.specs.order import ConfigOrder


@app.command()
def evaluate(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="key=value: task keys as they are, the method's under method., engine's under engine."),
    ] = None,
    *,
    method: Annotated[
        str, typer.Option("--method", "-m", help="Method or variant (`kdbench list methods`), or a folder of yours.")
    ],
    task: Annotated[str, typer.Option("--task", "-t", help="Task (`kdbench list tasks`), or a .yaml of yours.")],
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="One seed.")] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Seeds such as 0-4 [default: the task's].")] = None,
    device: Device = "auto",
    smoke: Annotated[bool, typer.Option("--smoke", help="Cut down to see that it runs; never ranked.")] = False,
    ruleset: Ruleset = "published",
    local: Local = None,
    out: Out = None,
    data: DataFolder = None,
    overhead: Annotated[
        Literal["quick", "full", "off"], typer.Option("--overhead", help="How training cost is measured.")
    ] = "full",
    seeds_together: SeedsTogether = 1,
    force: Annotated[bool, typer.Option("--force", help="Run again although a record is there.")] = False,
    teachers: Teachers = "own",
    track: Track = None,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Train, score and measure one method on one task; write records."""
    from kdbench.watch.trackers import require

    trackers = require(track or ())
    screen = progress(verbose=verbose)
    with screen.bar("loading and scoring", None):  # stands there at once: torch takes seconds to load
        from kdbench.index import home as index
        from kdbench.index.store import Store
        from kdbench.results import cells, taught
        from kdbench.runs.evaluate import Command, evaluate_seeds, parse_seeds
        from kdbench.terminal import tables

        if seed is not None and seeds is not None:
            raise UserError("give --seed or --seeds, not both")
        if teachers == "published":
            take_teachers(home_of(out))
        wanted = [seed] if seed is not None else parse_seeds(seeds) if seeds is not None else None
        done = evaluate_seeds(
            Command(_order(method, task, overrides, local, smoke), device, out, data, ruleset),
            seeds=wanted, overhead=overhead, force=force, progress=screen, track=trackers,
            seeds_together=seeds_together,
            announce=lambda record: print(tables.run_line(record), file=sys.stderr, flush=True),
        )  # fmt: skip
    if done is None:
        return
    if done.warning:
        warn(done.warning)
    if (weak := taught.warning(done.records)) is not None:
        warn(weak)
    home = home_of(out)
    last = done.records[-1]
    if done.warning:
        with Store.memory(home.records) as store:
            rows = cells.rows_of_runs(store, done.records)
    else:
        rows = index.use(home, lambda store: cells.rows_of_runs(store, done.records))
    for row in rows:
        if row.repeats:
            warn(
                f"{row.run_ids[0]} repeats {row.repeats}, and the first run of a seed counts; "
                f"`kdbench records withdraw {row.repeats[:12]} --reason WHY` lets the repeat count"
            )
    paths = [str(home.records / f"{record.run_id}.json") for record in done.records]
    if as_json:
        print(json.dumps({"rows": [tables.as_json(row) for row in rows], "records": paths}, indent=1))
    else:
        show(*tables.results(rows), f"{len(paths)} records in {home.records}, the newest {last.run_id}.json")
    if any(record.status not in ("ok", "not_applicable") for record in done.records):
        raise typer.Exit(EXIT_FAILED)
    if all(record.status != "ok" for record in done.records):
        raise typer.Exit(EXIT_NOTHING_RAN)


@app.command()
def overhead(
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, as for evaluate.")] = None,
    *,
    method: Annotated[str, typer.Option("--method", "-m", help="Method or variant, or a folder of yours.")],
    task: Annotated[str, typer.Option("--task", "-t", help="Task, or a .yaml of yours.")],
    device: Device = "auto",
    mode: Annotated[Literal["quick", "full"], typer.Option("--overhead", help="How closely.")] = "full",
    ruleset: Ruleset = "published",
    local: Local = None,
    out: Out = None,
    data: DataFolder = None,
    as_json: Json = False,
) -> None:
    """Measure what a method's step costs beside plain, without training the student."""
    from kdbench.runs.evaluate import Command, measure_only
    from kdbench.terminal import tables

    command = Command(_order(method, task, overrides, local), device, out, data, ruleset)
    screen = progress(f"{command.said}:")
    with screen.bar("loading and scoring", None):
        block = measure_only(command, mode, screen)
    if as_json:
        print(json.dumps(block, indent=1))
    else:
        show(tables.overhead(block, f"{command.said} ({mode})"))


def _order(
    method: str, task: str, overrides: list[str] | None, own: list[str] | None, smoke: bool = False
) -> ConfigOrder:
    """The configuration that was typed, with names for paths."""
    from kdbench.specs import local
    from kdbench.specs.order import ConfigOrder

    take_local(own)
    return ConfigOrder(
        method=local.method(method), task=local.task(task), overrides=tuple(overrides or ()), smoke=smoke
    )


@app.command()
def verify(
    run: Annotated[
        str,
        typer.Argument(
            help="Run id or its beginning, in the home or published, or a record's file or SHARD.parquet/RUN_ID.json."
        ),
    ],
    replay: Annotated[bool, typer.Option("--replay", help="Train the first 20 steps again, compare losses.")] = False,
    rescore: Annotated[
        Path | None,
        typer.Option("--rescore", help="Weights of the student to score again; `published`, those beside the board's."),
    ] = None,
    rerun: Annotated[bool, typer.Option("--rerun", help="Run it again and compare.")] = False,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="With --rerun: another seed.")] = None,
    device: Annotated[
        str, typer.Option("--device", help="With --rerun: where, as for evaluate [default: its own kind].")
    ] = "auto",
    by: Annotated[str, typer.Option("--by", help="Who verifies, for the side file.")] = "local",
    local: Local = None,
    out: Out = None,
    data: DataFolder = None,
) -> None:
    """Is a record what it says? Findings go into a side file; the record stays as it is."""
    from kdbench.base.home import data_folder
    from kdbench.records import shards, students
    from kdbench.records.files import load
    from kdbench.records.folder import one_of
    from kdbench.records.provenance import PUBLISHED
    from kdbench.runs import verify as checks

    if seed is not None and not rerun:
        raise UserError("--seed belongs to --rerun")
    if device != "auto" and not rerun:
        raise UserError("--device belongs to --rerun; the other checks take the record's own")
    take_local(local)
    home, folder = home_of(out), data_folder(data)
    record = one_of(run, home.records, PUBLISHED)
    home.require_writable()
    findings = [checks.validate(record)]
    if findings[0].passed:
        what, place = load(record), (home, folder, progress("verify:"))
        if replay or rerun:
            from kdbench import identity
            from kdbench.devices.machine import environment

            for line in (*identity.differences(what, environment()), *checks.changes(what)):
                warn(line)
        if replay:
            findings.append(checks.replay(what, *place))
        if rescore is not None:
            weights = students.of(what, PUBLISHED) if rescore == Path("published") else rescore
            findings.append(checks.rescore(what, weights, *place))
        if rerun:
            findings.append(checks.rerun(what, seed, checks.cell_of(what, shards.beside(record)), *place, device))
        checks.keep(what, findings, shards.beside(record), by)
    for finding in findings:
        print(f"level {finding.level} {'passed' if finding.passed else 'FAILED'}: {finding.what}")
    if not all(finding.passed for finding in findings):
        raise typer.Exit(EXIT_FAILED)


def _is_net(name: str) -> bool:
    """Whether a word names a net, and neither a method nor a task."""
    from kdbench import models
    from kdbench.specs import registry

    if name in registry.methods() or name in registry.task_files() or name.startswith((".", "/", "~")):
        return False
    try:
        models.recipe(name)
    except UserError:
        return False
    return True


@app.command()
def check(
    name: Annotated[
        str | None, typer.Argument(help="Method, variant, task or net, or the path of a method or task of yours.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every registered method and variant.")] = False,
    shape: Annotated[
        str, typer.Option("--shape", help="Of a net: the shape of its inputs, channels first.")
    ] = "3,32,32",
    classes: Annotated[int, typer.Option("--classes", min=1, help="Of a net: how many classes it is asked for.")] = 10,
    own: Local = None,
    out: Out = None,
    data: DataFolder = None,
) -> None:
    """Run the contract tests on a method, a task's own checks, or say what a net offers to which methods."""
    from kdbench.base.errors import nearest
    from kdbench.base.home import data_folder
    from kdbench.base.progress import Progress
    from kdbench.specs import local, registry
    from kdbench.terminal import nets, tables

    if (name is None) != everything:
        raise UserError("name one method, task or net, or give --all")
    take_local(own)
    if name is not None and _is_net(name):
        from kdbench.checks.nets import check_net, parse_shape

        show(*nets.checked(check_net(name, parse_shape(shape), classes)))
        return
    of_tasks = name is not None and (name.endswith(local.TASK) or name in registry.task_files())
    if name is not None:
        name = local.task(name) if of_tasks else local.method(name)
    names = [name] if name is not None else sorted(registry.methods())
    if not of_tasks and name is not None and name not in registry.methods() and "@" not in name:
        known = [*registry.methods(), *registry.task_files()]
        raise UserError(f"no method, task or net is called {name!r}{nearest(name, known)}; `kdbench list` shows all")
    look_up = registry.task if of_tasks else registry.method
    names = [look_up(one).name for one in names]  # a malformed file is said before torch is loaded
    home, folder, screen = home_of(out), data_folder(data), progress()
    if of_tasks:
        home.require_writable()
    from kdbench.checks import check_method, check_task

    failed = False
    bars = Progress.silent() if of_tasks else screen  # a task draws its own
    with bars.bar("checking", len(names)) as advance:
        for one in names:
            found = check_task(one, home, folder, screen) if of_tasks else check_method(one)
            failed |= any(result.outcome == "failed" for result in found)
            show(*tables.checks(one, found))
            advance()
    if failed:
        raise typer.Exit(EXIT_FAILED)
