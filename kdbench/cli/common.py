"""What the verbs share: the app, options, and how things are printed."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand, TyperGroup

from kdbench.base.errors import UserError
from kdbench.parallel.torchrun import speaks

if TYPE_CHECKING:
    from kdbench.base.home import Home

EXIT_FAILED, EXIT_NOTHING_RAN, EXIT_INTERRUPTED = 1, 3, 130

ORDER = (
    "doctor", "list", "show", "distill", "evaluate", "results", "compare", "export", "score", "predict", "overhead",
    "sweep", "tune", "new", "check", "records", "verify", "submit", "site",
)  # fmt: skip
"""Commands as people meet them: look, run, compare, take away, contribute, publish."""


class Ordered(TyperGroup):
    """Lists the commands in the order of ``ORDER``."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER.index)


class Once(TyperCommand):
    """A command that refuses an option given again where the last alone would count."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given: Any = self.make_parser(ctx).parse_args(args=list(args))[2]  # a parameter each time that it is named
        for option, times in Counter(given).items():
            if times > 1 and option.param_type_name == "option" and not (option.multiple or option.is_flag):
                name = max(option.opts, key=len)
                raise UserError(
                    f"{name} is given {times} times, of which the last alone would count; give it once, "
                    "with commas where it takes several"
                )
        return super().parse_args(ctx, args)


class Verbs(typer.Typer):
    """Commands, each of which takes an option once."""

    def command(self, *args: Any, **options: Any) -> Any:
        return super().command(*args, **{"cls": Once, **options})


app = Verbs(
    name="kdbench",
    cls=Ordered,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Benchmark knowledge-distillation methods: quality and training cost, under one protocol.",
)
Out = Annotated[
    Path | None,
    typer.Option("--out", help="Home folder for records and caches [default: KDBENCH_HOME, ~/.cache/kdbench]."),
]
DataFolder = Annotated[
    Path | None, typer.Option("--data", help="Folder with data sets [default: KDBENCH_DATA, the hub].")
]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:<i>, or another backend that is installed.")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="A line an epoch on stderr, with each term of the loss.")
]
Track = Annotated[
    list[str] | None,
    typer.Option("--track", help="tensorboard, wandb or mlflow: is told of each run; may be repeated."),
]
Teachers = Annotated[
    Literal["own", "published"],
    typer.Option("--teachers", help="Train teachers here, or take those beside the published records."),
]
Local = Annotated[
    list[str] | None,
    typer.Option(
        "--local", help="A Python file with nets, a method's folder or a task file of yours; may be repeated."
    ),
]
Ruleset = Annotated[
    str,
    typer.Option("--ruleset", help="published, tuned (the values that `kdbench tune` found), or such as tuned-8."),
]
RulesetOf = Annotated[
    str | None,
    typer.Option(
        "--ruleset",
        help="Those of published or tuned hyper-parameters, or of such as tuned-8 [default: all].",
    ),
]
Devices = Annotated[str, typer.Option("--device", help="As for evaluate; without a number, all of a kind.")]
Launcher = Annotated[str, typer.Option("--launcher", help="basic, joblib, submitit_local, submitit_slurm or ray.")]
LauncherArg = Annotated[
    list[str] | None, typer.Option("--launcher-arg", help="KEY=VALUE, e.g. partition=gpu; may be repeated.")
]
Jobs = Annotated[int | None, typer.Option("--jobs", min=1, help="Runs at once [default: one a device].")]
JobsPerDevice = Annotated[
    int | None, typer.Option("--jobs-per-device", min=1, help="Runs at once on each device, instead of --jobs.")
]
Timeout = Annotated[
    float | None, typer.Option("--timeout", min=1.0, help="Seconds a run may take, teacher and measurement included.")
]
SeedsTogether = Annotated[
    int,
    typer.Option("--seeds-together", min=1, help="Seeds of a cell that take turns in one process, a step each."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def home_of(out: Path | None, *, needed: bool = True) -> Any:
    """The home folder; for a verb that answers without one, an empty one where this user has none."""
    from kdbench.base.home import Home, NoHome

    try:
        return Home.find(out)
    except NoHome:
        if needed or out is not None:
            raise
        return Home.nowhere()


def progress(label: str = "", *, verbose: bool = False) -> Any:
    """Shows on stderr how far long work is; of torchrun's processes the first does."""
    from kdbench.base.progress import Progress
    from kdbench.watch.screen import terminal

    return terminal(label, verbose=verbose) if speaks() else Progress.silent()


def take_local(paths: list[str] | None) -> None:
    """Makes what lies at paths of one's own known by its name.

    Raises:
        UserError: nothing of the kind lies there, or its name is taken.
    """
    from kdbench.specs import local

    for path in paths or ():
        local.add(path)


def show(*things: Any) -> None:
    """Prints to standard output."""
    from kdbench.terminal.tables import console

    screen = console()
    for thing in things:
        # A path longer than a line is left to the terminal: broken by a line's end it could not be copied.
        long = isinstance(thing, str) and any(len(word) > screen.width for word in thing.split())
        screen.print(thing, soft_wrap=long)


def warn(line: str) -> None:
    """One line on standard error; of torchrun's processes the first speaks for all."""
    if speaks():
        print(f"kdbench: {line}", file=sys.stderr)


def require_records(home: Any) -> None:
    """Raises: UserError: a home folder without records."""
    if not home.records.is_dir():
        raise UserError(f"no records in {home.root}; run `kdbench evaluate` first, or name the folder with --out")


def rows_of(home: Any, **where: Any) -> list[Any]:
    """Rows of the home folder (:func:`kdbench.results.cells.rows`), its index brought up to date first."""
    from kdbench.index import home as index
    from kdbench.results import cells

    require_records(home)
    return index.use(home, lambda store: cells.rows(store, **where))


def take_teachers(home: Home) -> None:
    """What ``--teachers published`` asks for."""
    from kdbench.runs import published_teachers

    home.require_writable()
    published_teachers.take(home)
