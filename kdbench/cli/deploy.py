"""Verbs that take a trained network away: export, score, predict."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kdbench.base.errors import UserError
from kdbench.cli.common import DataFolder, Json, Local, Out, app, home_of, show, take_local

if TYPE_CHECKING:
    from kdbench.base.progress import Progress
    from kdbench.contract import Rows
    from kdbench.deploy.module import Deployed

Run = Annotated[
    str, typer.Argument(help="Run id or the beginning of one, a record's file, or a safetensors file of `export`.")
]
Net = Annotated[str, typer.Option("--net", help="student, teacher, or teacher:ROLE where there are several.")]


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="Run id or the beginning of one, or a record's file.")],
    form: Annotated[
        Literal["safetensors", "onnx", "torch-export"],
        typer.Option("--format", help="Weights, or weights and graph; onnx needs the extra `export`."),
    ] = "safetensors",
    net: Net = "student",
    to: Annotated[Path | None, typer.Option("--to", help="The file [default: named after the run, here].")] = None,
    local: Local = None,
    out: Out = None,
    data: DataFolder = None,
    as_json: Json = False,
) -> None:
    """Write a run's student or teacher as a file, and read it again: unless it scores as the record says, it goes."""
    from kdbench.base.home import data_folder
    from kdbench.deploy.export import export as write
    from kdbench.watch.screen import terminal

    take_local(local)
    made = write(run, form, net, to, home_of(out), data_folder(data), terminal("export:"))
    if as_json:
        facts = {"file": str(made.path), "score": made.score, "allowed": made.allowed, "apart": made.apart}
        print(json.dumps({**facts, "about": made.about.model_dump(mode="json")}, indent=1))
        return
    scored = made.about.scored
    print(
        f"{made.path}: {made.about.words}; read again it scores {scored.primary} {made.score:.6g} {scored.unit} on "
        f"{scored.rows} test rows, its record says {scored.value:.6g} (allowed ± {made.allowed:.2g}); answers within "
        f"{made.apart:.1g} of the network's"
    )


@app.command()
def score(
    run: Run,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="Class folders, metadata.csv with files, or tables: as the task's own data."),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", help="A result file of the run's test pictures, as of `predict --test`."),
    ] = None,
    net: Net = "student",
    local: Local = None,
    out: Out = None,
    data: DataFolder = None,
    as_json: Json = False,
) -> None:
    """Score a run's student or teacher on a labelled folder, or a result file of boxes, masks or maps as COCO's are."""
    if (folder is None) == (predictions is None):
        raise UserError("give --folder, a labelled folder, or --predictions, a result file")
    if predictions is not None:
        _score_file(run, predictions, local, out, data, as_json)
        return
    assert folder is not None
    module, searched, progress = _network("score", run, net, local, out, data)

    from kdbench.deploy.score import score_folder
    from kdbench.terminal import answers

    found = score_folder(module, folder, progress, searched)
    if as_json:
        print(json.dumps(answers.score_json(module.about, found), indent=1))
    else:
        show(*answers.score(module.about, found, str(folder)))


@app.command()
def predict(
    run: Run,
    files: Annotated[
        list[Path] | None, typer.Argument(help="Pictures, videos, or .npy of features: what the network reads.")
    ] = None,
    test: Annotated[
        bool, typer.Option("--test", help="The run's test pictures instead: a result file of COCO's form.")
    ] = False,
    net: Net = "student",
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, as in a pipe, instead of a table.")] = False,
    local: Local = None,
    out: Out = None,
    data: DataFolder = None,
    as_json: Json = False,
) -> None:
    """Say what a run's student or teacher makes of files: class, value, embedding, code, or what lies where."""
    if bool(files) == test:
        raise UserError("name files, or give --test for the run's test pictures, one of both")
    if files is None or test:
        _predict_test(run, net, local, out, data)
        return
    module, _, progress = _network("predict", run, net, local, out, data)

    from kdbench.deploy.predict import predict as ask
    from kdbench.terminal import answers

    found = ask(module, files, progress)
    if as_json:
        print(json.dumps(answers.predictions_json(module.about, found), indent=1))
    elif as_csv or not sys.stdout.isatty():
        print(answers.predictions_csv(module.about, found), end="")
    else:
        show(answers.predictions(module.about, found))


def _score_file(
    run: str, file: Path, local: list[str] | None, out: Path | None, data: Path | None, as_json: bool
) -> None:
    """Scores a result file by the task of a run."""
    from kdbench.base.home import data_folder
    from kdbench.deploy.find import find
    from kdbench.watch.screen import terminal

    take_local(local)
    home = home_of(out)
    record = find(run, home)

    from kdbench.deploy.results import score_file
    from kdbench.terminal import answers

    found = score_file(record, file, home, data_folder(data), terminal("score:"))
    if as_json:
        print(json.dumps(answers.file_json(record, found), indent=1))
    else:
        show(*answers.of_file(record, found, str(file)))


def _predict_test(run: str, net: str, local: list[str] | None, out: Path | None, data: Path | None) -> None:
    """Prints what a network finds on the test pictures of its run."""
    from kdbench.base.home import data_folder
    from kdbench.deploy.find import find
    from kdbench.watch.screen import terminal

    take_local(local)
    home, progress = home_of(out), terminal("predict:")
    record = find(run, home)

    from kdbench.deploy.load import load
    from kdbench.deploy.results import on_test

    print(json.dumps(on_test(load(record, net, home, data_folder(data), progress), progress)))


def _network(
    verb: str, run: str, net: str, local: list[str] | None, out: Path | None, data: Path | None
) -> tuple[Deployed, Rows | None, Progress]:
    """The network that a verb asks, the training rows that its score searches, and where it shows how far it is."""
    from kdbench.base.home import data_folder
    from kdbench.deploy.find import source
    from kdbench.watch.screen import terminal

    take_local(local)
    home, folder, progress = home_of(out), data_folder(data), terminal(f"{verb}:")
    found = source(run, home)

    from kdbench.deploy.load import network  # imports torch: only once the run is known to be there

    return *network(found, net, home, folder, progress), progress
