"""Verbs that look: list, show, results, compare, doctor."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kdbench.base.errors import UserError
from kdbench.cli.common import (
    EXIT_FAILED,
    DataFolder,
    Json,
    Local,
    Out,
    Ruleset,
    RulesetOf,
    Verbs,
    app,
    home_of,
    require_records,
    rows_of,
    show,
    take_local,
    warn,
)

if TYPE_CHECKING:
    from kdbench.base.home import Home

list_app = Verbs(help="List methods or tasks.", rich_markup_mode=None)
show_app = Verbs(help="Show one method or task whole.", rich_markup_mode=None)
app.add_typer(list_app, name="list")
app.add_typer(show_app, name="show")


@list_app.command("methods")
def list_methods(ruleset: Ruleset = "published", as_json: Json = False, out: Out = None) -> None:
    """Every method and variant, by family, with the step time measured in the home folder; or the searches made."""
    from kdbench.specs import registry, tuned
    from kdbench.terminal import named

    found = registry.methods()
    home = home_of(out, needed=False)
    tuned.require_ruleset(ruleset)
    if ruleset != tuned.AS_PUBLISHED:
        searches = tuned.listed(ruleset, home)
        if as_json:
            made = [
                {**one.entry.model_dump(mode="json"), "ruleset": one.entry.ruleset, "file": str(one.path),
                 "changed": one.changed}
                for one in searches
            ]  # fmt: skip
            print(json.dumps(made, indent=1))
        else:
            show(*named.searches(searches, home))
        return
    ratios: dict[str, float] = {}
    if home.index.is_file():
        from kdbench.results.cells import step_ratios

        ratios = step_ratios(home.index)
    if as_json:
        facts = {
            name: {
                **ref.card.model_dump(mode="json", include={"family", "year", "parity"}),
                "kinds": ref.kinds,
                "needs": ref.needs,
                "step_ratio": ratios.get(name),
            }
            for name, ref in found.items()
        }
        print(json.dumps(facts, indent=1))
    else:
        show(*named.methods(found, ratios))


@list_app.command("tasks")
def list_tasks(as_json: Json = False, out: Out = None, data: DataFolder = None) -> None:
    """Every task, whether its data are at hand, and about how long it takes here."""
    from dataclasses import asdict

    from kdbench.base.home import data_folder
    from kdbench.data import status
    from kdbench.specs import registry
    from kdbench.terminal import named

    (found, unreadable), folder = registry.readable_tasks(), data_folder(data)
    decoded, states = home_of(out, needed=False).data, {}
    for name, spec in found.items():
        try:
            states[name] = status.status(spec, folder, decoded)
        except UserError as error:  # the data set's file
            unreadable.append(str(error))
    found = {name: found[name] for name in states}
    if as_json:
        facts = {n: spec.model_dump(mode="json") | {"at_hand": asdict(states[n])} for n, spec in found.items()}
        print(json.dumps(facts, indent=1))
    else:
        show(*named.tasks(found, states))
    for line in dict.fromkeys(unreadable):
        warn(f"not listed: {line}")


@show_app.command("method")
def show_method(name: Annotated[str, typer.Argument(help="Method or variant.")], as_json: Json = False) -> None:
    """A method's card: paper, hyper-parameters with sources, variants, quirks."""
    from kdbench.specs import local, registry
    from kdbench.terminal import named, tables

    ref = registry.method(local.method(name))
    if as_json:
        print(json.dumps(ref.card.model_dump(mode="json"), indent=1))
    else:
        from kdbench.results import claims

        home = home_of(None, needed=False)
        rows = rows_of(home, method=ref.name) if home.records.is_dir() else []
        found = claims.compare(ref.name, rows) if rows else []  # reading every task takes longer than all the rest
        lone = [claim for claim in claims.claims(ref.name) if all(item.claim != claim for item in found)]
        show(*named.method(ref), *([tables.claims(found, lone)] if found or lone else []))


@show_app.command("task")
def show_task(
    name: Annotated[str, typer.Argument(help="Task.")], as_json: Json = False, out: Out = None, data: DataFolder = None
) -> None:
    """A task's specification, and whether its data are at hand."""
    from kdbench.specs import local, registry
    from kdbench.terminal import named

    spec = registry.task(local.task(name))
    if as_json:
        print(json.dumps(spec.model_dump(mode="json"), indent=1))
    else:
        from kdbench.base.home import data_folder
        from kdbench.data import status

        folder, cache = data_folder(data), home_of(out, needed=False).data
        elsewhere = {name: one for name, one in spec.score.external.items() if one.source is not None}
        missing = {name: status.missing(str(one.source), one.options, folder, cache) for name, one in elsewhere.items()}
        show(*named.task(spec, status.status(spec, folder, cache), {k: why for k, why in missing.items() if why}))


@app.command()
def results(
    task: Annotated[str | None, typer.Option("--task", "-t", help="This task alone.")] = None,
    method: Annotated[str | None, typer.Option("--method", "-m", help="This method alone.")] = None,
    ruleset: RulesetOf = None,
    sort: Annotated[
        Literal["task", "score", "delta", "step_ratio", "peak_alloc_mib"],
        typer.Option("--sort", help="Order of the rows; best or cheapest first."),
    ] = "task",
    by_class: Annotated[
        bool,
        typer.Option("--classes", help="The primary metric of each class instead, where it is a mean over classes."),
    ] = False,
    elsewhere: Annotated[
        bool,
        typer.Option(
            "--elsewhere", help="The scores on each test set from elsewhere instead, of tasks that name some."
        ),
    ] = False,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """The table of all results in the home folder, a row a configuration."""
    from kdbench.results import cells
    from kdbench.specs import local, registry
    from kdbench.terminal import tables

    where: dict[str, str] = {}
    if task is not None:
        where["task"] = registry.task(local.task(task)).name
    if method is not None:
        where["method"] = registry.method(local.method(method)).name
    if ruleset is not None:
        where["ruleset"] = ruleset
    home = home_of(out)
    if by_class and elsewhere:
        raise UserError("--classes and --elsewhere are tables of their own; give one")
    if by_class or elsewhere:
        _results_beside(home, where, elsewhere, as_json)
        return
    rows = cells.in_order(rows_of(home, **where), sort)
    if as_json:
        print(json.dumps([tables.as_json(row) for row in rows], indent=1))
    else:
        show(*tables.results(rows))


def _results_beside(home: Home, where: dict[str, str], elsewhere: bool, as_json: bool) -> None:
    """The primary metric of each class, or on each test set from elsewhere."""
    from kdbench.index import home as index
    from kdbench.results import beside
    from kdbench.terminal import beside as tables

    require_records(home)
    found = index.use(home, lambda store: (beside.elsewhere if elsewhere else beside.by_class)(store, **where))
    if not found:
        raise UserError(
            f"no result in {home.root} was scored elsewhere: 'kdbench show task' tells which test sets a task has"
            if elsewhere
            else f"no result in {home.root} is told by class: AP and IoU are, of detection and segmentation"
        )
    what, title = ("set", "on rows from elsewhere") if elsewhere else ("class", "of each class")
    if as_json:
        print(json.dumps(tables.as_json(found, what), indent=1))
    else:
        show(*tables.results(found, what, title))


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="A method, 'METHOD KEY=VALUE ...', or a run id for its seeds.")],
    second: Annotated[str, typer.Argument(help="What to compare with it, likewise.")],
    task: Annotated[str | None, typer.Option("--task", "-t", help="This task alone.")] = None,
    own: Local = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Two methods or configurations seed by seed: difference, interval, cost of the recipes, and a verdict in words."""
    from kdbench.records import beside
    from kdbench.results.compare import pairings, side
    from kdbench.specs import local, registry
    from kdbench.terminal import tables

    take_local(own)
    first, second = (local.first_word(text) for text in (first, second))
    for text in (first, second):
        side(text)  # said before the index is read
    where = {"task": registry.task(local.task(task)).name} if task is not None else {}
    home = home_of(out)
    found = pairings(rows_of(home, older=True, **where), first, second, beside.Items(home.records).of)
    if not found:
        raise UserError(
            f"no task in {home.root} has results of both {first} and {second}; run `kdbench evaluate` first"
        )
    if as_json:
        print(json.dumps([tables.pairing_json(pairing) for pairing in found], indent=1))
    else:
        show(tables.pairings(found), *(pairing.words for pairing in found), *tables.row_by_row(found))


@app.command()
def doctor(out: Out = None, data: DataFolder = None) -> None:
    """Say what this machine has and what would keep kdbench from running."""
    from kdbench.terminal.doctor import checks

    failed = False
    for check in checks(home_of(out, needed=False), data):
        failed |= check.state == "problem"
        print(f"{check.state:8} {check.what}: {check.found}")
    if failed:
        raise typer.Exit(EXIT_FAILED)
