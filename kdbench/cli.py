"""The command line: verbs only. What they do lies in the modules they call."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from kdbench import __version__
from kdbench.errors import UserError

# Some versions of typer bring a click of their own, so its base error is found through typer.
UsageProblem: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
EXIT_FAILED, EXIT_NOTHING_RAN, EXIT_INTERRUPTED = 1, 3, 130

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Benchmark knowledge-distillation methods: quality and training cost, under one protocol.",
)
list_app = typer.Typer(help="List what there is.", rich_markup_mode=None)
show_app = typer.Typer(help="Show one method or task whole.", rich_markup_mode=None)
records_app = typer.Typer(help="Check, index and export result records.", rich_markup_mode=None)
site_app = typer.Typer(help="Build and look at the board.", rich_markup_mode=None)
app.add_typer(list_app, name="list")
app.add_typer(show_app, name="show")
app.add_typer(records_app, name="records")
app.add_typer(site_app, name="site")

Out = Annotated[
    Path | None,
    typer.Option("--out", help="Home folder for records and caches [default: KDBENCH_HOME, ~/.cache/kdbench]."),
]
DataFolder = Annotated[
    Path | None, typer.Option("--data", help="Folder with data sets [default: KDBENCH_DATA, the hub].")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def _home(out: Path | None) -> Any:
    from kdbench.home import Home

    return Home.find(out)


def _print(*things: Any) -> None:
    from kdbench.console import console

    screen = console()
    for thing in things:
        screen.print(thing)


def _warn(line: str) -> None:
    print(f"kdbench: {line}", file=sys.stderr)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"kdbench {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def evaluate(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value: task keys as they are, the method's under method.")
    ] = None,
    *,
    method: Annotated[str, typer.Option("--method", "-m", help="Method or variant; `kdbench list methods`.")],
    task: Annotated[str, typer.Option("--task", "-t", help="Task; `kdbench list tasks`.")],
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="One seed.")] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Seeds such as 0-4 [default: the task's].")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:<i>.")] = "auto",
    smoke: Annotated[bool, typer.Option("--smoke", help="Cut down to see that it runs; never ranked.")] = False,
    out: Out = None,
    data: DataFolder = None,
    overhead: Annotated[
        Literal["quick", "full", "off"], typer.Option("--overhead", help="How training cost is measured.")
    ] = "full",
    force: Annotated[bool, typer.Option("--force", help="Run again although a record is there.")] = False,
    as_json: Json = False,
) -> None:
    """Train, score and measure one method on one task; write records."""
    from kdbench import console, summary
    from kdbench.evaluate import evaluate as run
    from kdbench.evaluate import parse_seeds
    from kdbench.store import Store

    if seed is not None and seeds is not None:
        raise UserError("give --seed or --seeds, not both")
    wanted = [seed] if seed is not None else parse_seeds(seeds) if seeds is not None else None
    done = run(
        method, task, overrides or [], seeds=wanted, device=device, smoke=smoke, out=out, data=data, overhead=overhead,
        force=force, announce=lambda record: print(console.run_line(record), file=sys.stderr, flush=True),
    )  # fmt: skip
    if done.warning:
        _warn(done.warning)
    home = _home(out)
    last = done.records[-1]
    with Store.memory(home.records) if done.warning else Store(home.index) as store:
        keys = {"task": last.task.name, "task_version": last.task.version, "device_class": last.device_class}
        rows = [
            row for row in summary.rows(store, **keys) if last.run_id in row.run_ids or row.method == last.method_name
        ]
    paths = [str(home.records / f"{record.run_id}.json") for record in done.records]
    if as_json:
        print(json.dumps({"rows": [console.as_json(row) for row in rows], "records": paths}, indent=1))
    else:
        if rows:
            title = f"{last.task.label} ({last.task.metric_primary}, baseline {last.task.baseline})"
            _print(console.results(rows, title))
        _print(f"{len(paths)} records in {home.records}, the newest {last.run_id}.json")
    if any(record.status not in ("ok", "not_applicable") for record in done.records):
        raise typer.Exit(EXIT_FAILED)
    if all(record.status != "ok" for record in done.records):
        raise typer.Exit(EXIT_NOTHING_RAN)


@list_app.command("methods")
def list_methods(as_json: Json = False) -> None:
    """Every method and variant, by family."""
    from kdbench import console, registry

    found = registry.methods()
    if as_json:
        facts = {
            name: {"family": ref.card.family, "year": ref.card.year, "kinds": ref.card.kinds, "parity": ref.card.parity}
            for name, ref in found.items()
        }
        print(json.dumps(facts, indent=1))
    else:
        _print(*console.methods(found))


@list_app.command("tasks")
def list_tasks(as_json: Json = False) -> None:
    """Every task."""
    from kdbench import console, registry

    found = registry.tasks()
    if as_json:
        print(json.dumps({name: spec.model_dump(mode="json") for name, spec in found.items()}, indent=1))
    else:
        _print(console.tasks(found))


@show_app.command("method")
def show_method(name: str, as_json: Json = False) -> None:
    """A method's card: paper, hyper-parameters with sources, variants, quirks."""
    from kdbench import console, registry

    ref = registry.method(name)
    if as_json:
        print(json.dumps(ref.card.model_dump(mode="json"), indent=1))
    else:
        from kdbench import claims

        home = _home(None)
        rows = _rows(home, method=name) if home.records.is_dir() else []
        found = claims.compare(name, rows)
        lone = [claim for claim in claims.claims(name) if all(item.claim != claim for item in found)]
        _print(*console.method(ref), *([console.claims(found, lone)] if found or lone else []))


@show_app.command("task")
def show_task(name: str, as_json: Json = False) -> None:
    """A task's specification."""
    from kdbench import console, registry

    spec = registry.task(name)
    if as_json:
        print(json.dumps(spec.model_dump(mode="json"), indent=1))
    else:
        _print(*console.task(spec))


@app.command()
def results(
    task: Annotated[str | None, typer.Option("--task", "-t", help="This task alone.")] = None,
    method: Annotated[str | None, typer.Option("--method", "-m", help="This method alone.")] = None,
    sort: Annotated[
        Literal["task", "score", "delta", "step_ratio", "peak_alloc_mib"],
        typer.Option("--sort", help="Order of the rows; best or cheapest first."),
    ] = "task",
    out: Out = None,
    as_json: Json = False,
) -> None:
    """The table of all results in the home folder."""
    from kdbench import console, registry, summary

    where = {}
    if task is not None:
        where["task"] = registry.task(task).name
    if method is not None:
        where["method"] = registry.method(method).name
    home = _home(out)
    rows = summary.in_order(_rows(home, **where), sort)
    if as_json:
        print(json.dumps([console.as_json(row) for row in rows], indent=1))
    else:
        _print(console.results(rows, f"results in {home.root}"))


def _rows(home: Any, **where: Any) -> list[Any]:
    """Current cells of the home folder, its index brought up to date first."""
    from kdbench import summary
    from kdbench.store import Store

    if not home.records.is_dir():
        raise UserError(f"no records in {home.root}; run `kdbench evaluate` first, or name the folder with --out")
    with Store(home.index) as store:
        store.ingest(home.records)
        return summary.rows(store, **where)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="A method.")],
    second: Annotated[str, typer.Argument(help="The method to compare with it.")],
    task: Annotated[str | None, typer.Option("--task", "-t", help="This task alone.")] = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Two methods seed by seed: difference, interval, cost ratio, and a verdict in words."""
    from kdbench import console, registry
    from kdbench.compare import pairings

    names = [registry.method(name).name for name in (first, second)]
    where = {"task": registry.task(task).name} if task is not None else {}
    home = _home(out)
    found = pairings(_rows(home, method=names, **where), *names)
    if not found:
        raise UserError(
            f"no task in {home.root} has results of both {first} and {second}; run `kdbench evaluate` first"
        )
    if as_json:
        print(json.dumps([console.pairing_json(pairing) for pairing in found], indent=1))
    else:
        _print(console.pairings(found), *(pairing.words for pairing in found))


@app.command()
def overhead(
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, as for evaluate.")] = None,
    *,
    method: Annotated[str, typer.Option("--method", "-m", help="Method or variant.")],
    task: Annotated[str, typer.Option("--task", "-t", help="Task.")],
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:<i>.")] = "auto",
    mode: Annotated[Literal["quick", "full"], typer.Option("--overhead", help="How closely.")] = "full",
    out: Out = None,
    data: DataFolder = None,
    as_json: Json = False,
) -> None:
    """Measure what a method's step costs beside plain, without training the student."""
    from kdbench import console
    from kdbench.evaluate import measure_only

    block = measure_only(method, task, overrides or [], device=device, mode=mode, out=out, data=data)
    if as_json:
        print(json.dumps(block, indent=1))
    else:
        _print(console.overhead(block, f"{method} on {task} ({mode})"))


@app.command()
def verify(
    record: Annotated[Path, typer.Argument(help="A record's file.")],
    replay: Annotated[bool, typer.Option("--replay", help="Train the first 20 steps again, compare losses.")] = False,
    rescore: Annotated[Path | None, typer.Option("--rescore", help="Weights of the student to score again.")] = None,
    rerun: Annotated[bool, typer.Option("--rerun", help="Run it again and compare.")] = False,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="With --rerun: another seed.")] = None,
    by: Annotated[str, typer.Option("--by", help="Who verifies, for the side file.")] = "local",
    out: Out = None,
    data: DataFolder = None,
) -> None:
    """Is a record what it says? Findings go into a side file; the record stays as it is."""
    from kdbench import verify as checks
    from kdbench.home import data_folder
    from kdbench.progress import Progress
    from kdbench.record import load

    if seed is not None and not rerun:
        raise UserError("--seed belongs to --rerun")
    home, folder = _home(out), data_folder(data)
    home.require_writable()
    findings = [checks.validate(record)]
    if findings[0].passed:
        what, place = load(record), (home, folder, Progress.terminal("verify:"))
        if replay or rerun:
            from kdbench.machine import environment

            for line in checks.differences(what, environment()):
                _warn(line)
        if replay:
            findings.append(checks.replay(what, *place))
        if rescore is not None:
            findings.append(checks.rescore(what, rescore, *place))
        if rerun:
            cell = [load(path).score for path in record.parent.glob("*.json") if load(path).spec_hash == what.spec_hash]
            findings.append(checks.rerun(what, seed, [score for score in cell if score is not None], *place))
        checks.keep(what, findings, record.parent, by)
    for finding in findings:
        print(f"level {finding.level} {'passed' if finding.passed else 'FAILED'}: {finding.what}")
    if not all(finding.passed for finding in findings):
        raise typer.Exit(EXIT_FAILED)


@app.command()
def check(
    name: Annotated[str | None, typer.Argument(help="Method or variant.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every registered method and variant.")] = False,
) -> None:
    """Run the contract tests on an adapter and say what failed, and what to do."""
    from kdbench import console, registry
    from kdbench.checks import check_method
    from kdbench.progress import Progress

    if (name is None) != everything:
        raise UserError("name one method, or give --all")
    names = sorted(registry.methods()) if name is None else [registry.method(name).name]
    failed = False
    with Progress.terminal().bar("checking", len(names)) as advance:
        for one in names:
            found = check_method(one)
            failed |= any(result.outcome == "failed" for result in found)
            _print(*console.checks(one, found))
            advance()
    if failed:
        raise typer.Exit(EXIT_FAILED)


@records_app.command("validate")
def records_validate(folder: Annotated[Path, typer.Argument(help="A folder of records, or one record.")]) -> None:
    """Check records as CI does: a line for each problem."""
    from kdbench.validate import check_file, check_folder

    if not folder.exists():
        raise UserError(f"{folder} does not exist")
    problems = check_folder(folder) if folder.is_dir() else check_file(folder)
    for problem in problems:
        print(f"{problem.level}: {problem}")
    errors = sum(problem.level == "error" for problem in problems)
    print(f"{errors} errors, {len(problems) - errors} warnings")
    if errors:
        raise typer.Exit(EXIT_FAILED)


@records_app.command("ingest")
def records_ingest(
    folder: Annotated[Path | None, typer.Argument(help="Records to take in [default: the home folder's].")] = None,
    out: Out = None,
) -> None:
    """Take records into the DuckDB index."""
    from kdbench.store import Store

    home = _home(out)
    home.require_writable()
    home.records.mkdir(exist_ok=True)
    with Store(home.index) as store:
        _report(store.ingest(folder or home.records), home.index)


@records_app.command("rebuild")
def records_rebuild(out: Out = None) -> None:
    """Make the DuckDB index anew from the records."""
    from kdbench.store import Store

    home = _home(out)
    home.require_writable()
    home.records.mkdir(exist_ok=True)
    _report(Store.rebuild(home.index, home.records), home.index)


def _report(report: Any, index: Path) -> None:
    for problem in report.bad:
        _warn(str(problem))
    print(f"{report.new} new, {report.unchanged} unchanged, {len(report.bad)} bad; index {index}")
    if report.bad:
        raise typer.Exit(EXIT_FAILED)


@records_app.command("export")
def records_export(
    folder: Annotated[Path, typer.Argument(help="Where runs.parquet and runs.csv go.")], out: Out = None
) -> None:
    """Write all runs as Parquet and CSV."""
    from kdbench.store import Store

    home = _home(out)
    if not home.records.is_dir():
        raise UserError(f"no records in {home.root}; run `kdbench evaluate` first, or name the folder with --out")
    with Store.memory(home.records) as store:
        for path in store.export(folder):
            print(path)


Records = Annotated[
    Path | None,
    typer.Option("--records", help="Folder of records [default: leaderboard/results in a checkout, else the home's]."),
]


@site_app.command("build")
def site_build(records: Records = None, out: Out = None) -> None:
    """Render the board as static HTML under the home folder."""
    from kdbench.provenance import PUBLISHED

    home = _home(out)
    home.require_writable()
    source = records or (PUBLISHED if PUBLISHED.is_dir() else home.records)
    if not source.is_dir():
        raise UserError(f"no records in {source}; run `kdbench evaluate` first, or name a folder with --records")
    from kdbench.leaderboard import build

    done = build(source, home.site)
    for problem in done.skipped:
        _warn(str(problem))
    print(f"{done.pages} pages from {done.records} records: {home.site / 'index.html'}")


@site_app.command("serve")
def site_serve(port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 8000, out: Out = None) -> None:
    """Serve the built board on this machine."""
    from kdbench.leaderboard import serve

    home = _home(out)
    if not (home.site / "index.html").is_file():
        raise UserError(f"no board in {home.site}; run `kdbench site build` first")
    serve(home.site, port)


@app.command()
def doctor(out: Out = None, data: DataFolder = None) -> None:
    """Say what this machine has and what would keep kdbench from running."""
    from kdbench.doctor import checks

    failed = False
    for check in checks(_home(out), data):
        failed |= check.state == "problem"
        print(f"{check.state:8} {check.what}: {check.found}")
    if failed:
        raise typer.Exit(EXIT_FAILED)


def main() -> None:
    """Entry point: user errors are one line on stderr and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except UsageProblem as error:
        _warn(" ".join(error.format_message().split()))
        code = error.exit_code
    except UserError as error:
        _warn(" ".join(str(error).split()))
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _warn("interrupted; the same command goes on where it stopped")
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code if isinstance(code, int) else 0)
