"""Verbs on records and the board."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from kdbench.base.errors import UserError
from kdbench.cli.common import EXIT_FAILED, Out, RulesetOf, Verbs, app, home_of, progress, warn

records_app = Verbs(help="Check, index and export result records.", rich_markup_mode=None)
site_app = Verbs(help="Build and look at the board.", rich_markup_mode=None)
app.add_typer(records_app, name="records")
app.add_typer(site_app, name="site")
INDEX_WAIT_S = 10.0
"""How long a command that is about the index waits for another program to close it."""


@app.command()
def submit(
    sources: Annotated[
        list[Path] | None, typer.Argument(help="Records or folders of them [default: the home folder's].")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="Published results [default: leaderboard/results in a checkout].")
    ] = None,
    teachers: Annotated[
        bool, typer.Option("--teachers", help="Add their small teachers too, for others to take; in a request apart.")
    ] = False,
    students: Annotated[
        bool,
        typer.Option("--students", help="Add small students that published records name, for others to score again."),
    ] = False,
    out: Out = None,
) -> None:
    """Bundle records as a pull request to the board has them, and validate them as CI will."""
    from kdbench.records import students as published_students
    from kdbench.records.files import load
    from kdbench.records.provenance import PUBLISHED
    from kdbench.records.submit import bundle
    from kdbench.runs.published_teachers import publish

    if to is None and not PUBLISHED.is_dir():
        raise UserError("kdbench runs outside a checkout; name a folder with --to, e.g. leaderboard/results of a clone")
    folder = to or PUBLISHED
    done = bundle(sources or [home_of(out).records], folder)
    for path in done.added:
        print(f"added: {folder / path}")
    if teachers:
        added = (load(folder / path) for path in done.added)
        for path in publish(home_of(out), added, folder.parent / "teachers"):
            print(f"added: {path}")
    if students:
        for path in published_students.publish(home_of(out), folder):
            print(f"added: {path}")
    for file, reason in done.left_out:
        print(f"left out: {file}: {reason}")
    _tell(done.problems)
    print(f"{len(done.added)} records added to {folder}, {done.known} were there, {len(done.left_out)} left out")
    if any(problem.level == "error" for problem in done.problems) or (done.left_out and not done.added):
        raise typer.Exit(EXIT_FAILED)
    if done.added:
        print("now commit them on a branch of your fork and open a pull request; CI checks them as was done here")


def _tell(problems: Iterable[Any]) -> int:
    """Prints problems; the number of errors among them."""
    errors = 0
    for problem in problems:
        print(f"{problem.level}: {problem}")
        errors += problem.level == "error"
    return errors


@records_app.command("validate")
def records_validate(
    folder: Annotated[Path, typer.Argument(help="A folder of records, a shard, or one record.")],
    since: Annotated[
        str | None, typer.Option("--since", help="Also refuse whatever git changed since this commit but new records.")
    ] = None,
) -> None:
    """Check records as CI does: a line for each problem."""
    from kdbench.records import shards
    from kdbench.records.folder import is_record
    from kdbench.records.submit import changes
    from kdbench.records.validate import check_file, check_folder

    if not folder.exists() and not is_record(folder):
        raise UserError(f"{folder} does not exist")
    many = folder.is_dir() or folder.suffix == shards.SUFFIX
    problems = check_folder(folder) if many else check_file(folder)
    if since is not None:
        problems += changes(folder, since)
    errors = _tell(problems)
    print(f"{errors} errors, {len(problems) - errors} warnings")
    if errors:
        raise typer.Exit(EXIT_FAILED)


@records_app.command("accept")
def records_accept(
    folder: Annotated[Path, typer.Argument(help="A folder of published records.")],
    by: Annotated[str, typer.Option("--by", help="Who accepts, for the side files.")],
) -> None:
    """Give level 1, validated, to every record that passes the validator and was made from a clean commit."""
    from kdbench.runs.verify import accept

    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; name a folder of records")
    accepted, refused = accept(folder, by, progress())
    errors = _tell(refused)
    print(f"{accepted} records accepted, {errors} problems")
    if errors:
        raise typer.Exit(EXIT_FAILED)


@records_app.command("withdraw")
def records_withdraw(
    run: Annotated[str, typer.Argument(help="A record's file, or its run id or the beginning of it.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is shown beside the record.")],
    folder: Annotated[
        Path | None, typer.Option("--records", help="Where the run id is looked for [default: the home folder's].")
    ] = None,
    out: Out = None,
) -> None:
    """Take a record back, with a reason: it stays where it is, and counts no more."""
    from kdbench.records.files import withdraw
    from kdbench.records.folder import is_record, records_of

    path = Path(run)
    if not is_record(path):
        source = folder or home_of(out).records
        found = [file for file in records_of(source) if file.stem.startswith(run)] if source.is_dir() else []
        if len(found) != 1:
            raise UserError(f"{len(found) or 'no'} records in {source} begin with {run!r}; give a whole run id")
        path = found[0]
    print(f"withdrawn: {path}, as {withdraw(path, reason)} says")


@records_app.command("pack")
def records_pack(
    folder: Annotated[Path, typer.Argument(help="A folder of published records.")],
    at_least: Annotated[
        int, typer.Option("--at-least", min=0, help="Do nothing where there are fewer records.")
    ] = 3000,
) -> None:
    """Put published records into Parquet files by task, text for text: one file for many where they are too many."""
    from kdbench.records.pack import pack

    done = pack(folder, at_least)
    if done.all < at_least:
        print(f"{done.all} records in {folder} stay as they are; from {at_least} on they are packed (--at-least)")
        return
    for shard in done.shards:
        print(f"written: {shard}")
    print(f"{done.records} of {done.all} records packed, into {len(done.shards)} new shards")


@records_app.command("unpack")
def records_unpack(folder: Annotated[Path, typer.Argument(help="A folder of published records.")]) -> None:
    """Make packed records files of their own again."""
    from kdbench.records.pack import unpack

    print(f"{unpack(folder)} records are files again")


@records_app.command("ingest")
def records_ingest(
    folder: Annotated[Path | None, typer.Argument(help="Records to take in [default: the home folder's].")] = None,
    out: Out = None,
) -> None:
    """Copy records from a folder into the home folder, and take all of its own into the DuckDB index."""
    from kdbench.index.store import Store
    from kdbench.records.intake import take_in

    home = home_of(out)
    home.require_writable()
    home.records.mkdir(exist_ok=True)
    taken = take_in(folder or home.records, home)
    if folder is not None:
        print(f"{taken.copied} records copied from {folder} to {home.records}")
    with Store(home.index, wait_s=INDEX_WAIT_S) as store:
        _report(store.ingest(home.records), home.index, taken.bad)


@records_app.command("rebuild")
def records_rebuild(out: Out = None) -> None:
    """Make the DuckDB index anew from the records."""
    from kdbench.index.store import Store

    home = home_of(out)
    home.require_writable()
    home.records.mkdir(exist_ok=True)
    _report(Store.rebuild(home.index, home.records, wait_s=INDEX_WAIT_S), home.index)


def _report(report: Any, index: Path, more: Iterable[Any] = ()) -> None:
    bad = [*more, *report.bad]
    for problem in bad:
        warn(str(problem))
    print(f"{report.new} new, {report.unchanged} unchanged, {len(bad)} bad; index {index}")
    if bad:
        raise typer.Exit(EXIT_FAILED)


@records_app.command("export")
def records_export(
    folder: Annotated[Path, typer.Argument(help="Where runs.parquet and runs.csv go.")],
    ruleset: RulesetOf = None,
    out: Out = None,
) -> None:
    """Write all runs as Parquet and CSV."""
    from kdbench.index.store import Store
    from kdbench.results import rulesets

    home = home_of(out)
    if not home.records.is_dir():
        raise UserError(f"no records in {home.root}; run `kdbench evaluate` first, or name the folder with --out")
    with Store.memory(home.records) as store:
        of = {} if ruleset is None else {"ruleset": rulesets.chosen(store, ruleset)}
        for path in store.export(folder, **of):
            print(path)


Records = Annotated[
    Path | None,
    typer.Option("--records", help="Folder of records [default: the home's, else a checkout's published ones]."),
]


@site_app.command("build")
def site_build(
    records: Records = None,
    snapshot: Annotated[str | None, typer.Option("--snapshot", help="Also freeze the board under v/YYYY.MM.")] = None,
    repository: Annotated[
        str, typer.Option("--repository", help="Address of the repository, for links to it and to commits.")
    ] = "",
    out: Out = None,
) -> None:
    """Render the board as static HTML under the home folder."""
    from kdbench.records.folder import names
    from kdbench.records.provenance import PUBLISHED

    home = home_of(out)
    home.require_writable()
    own = home.records.is_dir() and next(names(home.records), None) is not None
    source = records or (PUBLISHED if PUBLISHED.is_dir() and not own else home.records)
    if not source.is_dir():
        raise UserError(f"no records in {source}; run `kdbench evaluate` first, or name a folder with --records")
    from kdbench.leaderboard import build

    own_home = home if source == home.records else None
    done = build(source, home.site, snapshot=snapshot, repository=repository, home=own_home)
    for problem in done.skipped:
        warn(str(problem))
    print(f"{done.pages} pages from the {done.records} records in {source}: {home.site / 'index.html'}")
    if records is None and own and PUBLISHED.is_dir():
        print(f"these are the home folder's; the published ones: --records {PUBLISHED}")


@site_app.command("serve")
def site_serve(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Where it listens.")] = 8000, out: Out = None
) -> None:
    """Serve the built board on this machine."""
    from kdbench.leaderboard import serve

    home = home_of(out)
    if not (home.site / "index.html").is_file():
        raise UserError(f"no board in {home.site}; run `kdbench site build` first")
    serve(home.site, port)
