"""The command line: verbs only. What they do lies in the modules they call."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kdbench import __version__
from kdbench.base import interrupt
from kdbench.base.errors import UserError
from kdbench.base.files import cannot_write, no_room, wrong_place
from kdbench.cli import deploy, distill, new, publish, run, show, sweep, tune
from kdbench.cli.common import EXIT_INTERRUPTED, app, warn
from kdbench.parallel.torchrun import require_alone
from kdbench.terminal import streams

__all__ = ["app", "deploy", "distill", "main", "new", "publish", "run", "show", "sweep", "tune"]

# Some versions of typer bring a click of their own, so its base error is found through typer.
UsageProblem: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"kdbench {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())
    elif context.invoked_subcommand != "evaluate":
        require_alone(context.invoked_subcommand)


def _misused(problem: Any) -> str:
    """What typer says; where a command is missing or wrong and none is near, also which there are."""
    said = str(problem.format_message())
    context: Any = getattr(problem, "ctx", None)
    of_group = context is not None and hasattr(context.command, "list_commands") and not hasattr(problem, "option_name")
    if not of_group or "Did you mean" in said:
        return said
    return f"{said.rstrip('.')}; {context.command_path} takes {', '.join(context.command.list_commands(context))}"


def main() -> None:
    """Entry point: user errors are one line on stderr and exit code 2."""
    streams.say_anything()
    interrupt.listen()
    try:
        code = app(standalone_mode=False)
        if code == EXIT_INTERRUPTED:  # typer takes a keyboard interrupt itself
            raise KeyboardInterrupt
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except UsageProblem as error:
        warn(" ".join(_misused(error).split()))
        code = error.exit_code
    except UserError as error:
        warn(" ".join(str(error).split()))
        code = error.exit_code
    except OSError as error:
        if no_room(error):
            line = cannot_write(Path(error.filename or "the output folder"), error)
        elif wrong_place(error):
            line = UserError(f"{error.filename}: {error.strerror}; name another place")
        else:
            raise
        warn(str(line))
        code = line.exit_code
    except (KeyboardInterrupt, typer.Abort):
        warn("interrupted; the same command goes on where it stopped")
        code = EXIT_INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)
