"""What the environment decides: kdbench's home folder, the user's data folder, how often a run is checkpointed."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from kdbench.base.errors import UserError

CHECKPOINT_SECONDS = "KDBENCH_CHECKPOINT_SECONDS"


class NoHome(UserError):
    """No folder is named, and the system knows none of this user's."""


@dataclass(frozen=True)
class Home:
    """The folder that holds records, the index, teachers, caches and unfinished runs."""

    root: Path

    @classmethod
    def find(cls, out: Path | None = None) -> Home:
        """``out``, else ``KDBENCH_HOME``, else ``~/.cache/kdbench``.

        Raises:
            NoHome: none is given and this user has no home, or one that is given lies below an unknown user's.
        """
        chosen = out or Path(os.environ.get("KDBENCH_HOME") or "~/.cache/kdbench")
        try:
            return cls(chosen.expanduser().absolute())
        except RuntimeError as error:
            raise NoHome(_no_home(chosen.parts[0])) from error

    @classmethod
    def nowhere(cls) -> Home:
        """A home that holds nothing and takes nothing, for those who only look."""
        return cls(Path(os.devnull) / "kdbench")

    def require_writable(self) -> None:
        """Make the folder.

        Raises:
            UserError: it cannot be made or written.
        """
        if self == self.nowhere():
            raise NoHome(_no_home("~"))
        probe = self.root / f".probe-{os.getpid()}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"cannot write to {self.root} ({error.strerror}); name another folder with --out"
            ) from error

    @property
    def records(self) -> Path:
        """One JSON file a run."""
        return self.root / "records"

    @property
    def index(self) -> Path:
        """The DuckDB file."""
        return self.root / "index.duckdb"

    @property
    def tuned(self) -> Path:
        """What searches for hyper-parameters found, by task and method."""
        return self.root / "tuned"

    @property
    def teachers(self) -> Path:
        """Trained teachers, by the hash of what made them."""
        return self.root / "teachers"

    @property
    def students(self) -> Path:
        """Weights of deployed students, by run."""
        return self.root / "students"

    @property
    def artefacts(self) -> Path:
        """What methods keep for other runs of a task, by hash."""
        return self.root / "artefacts"

    @property
    def answers(self) -> Path:
        """What frozen teachers answered (``engine.teacher_store``), by hash; may be removed at any time."""
        return self.root / "answers"

    @property
    def data(self) -> Path:
        """Decoded data sets, by content hash."""
        return self.root / "data"

    @property
    def objects(self) -> Path:
        """What was made of Python objects, by content."""
        return self.root / "objects"

    @property
    def gates(self) -> Path:
        """Plain measured against plain, by task and device."""
        return self.root / "gates"

    @property
    def runs(self) -> Path:
        """Unfinished runs."""
        return self.root / "runs"

    @property
    def logs(self) -> Path:
        """One folder a run, by its id, with ``log.txt`` and ``curves.csv``; kept when it has ended."""
        return self.root / "logs"

    @property
    def tracked(self) -> Path:
        """What trackers keep on disk, one folder a tracker."""
        return self.root / "tracked"

    @property
    def site(self) -> Path:
        """The rendered board."""
        return self.root / "site"


def _no_home(user: str) -> str:
    whose = "this user" if user == "~" else user.removeprefix("~")
    return f"the system knows no home folder of {whose}; name a folder with --out or KDBENCH_HOME"


def data_folder(data: Path | None = None) -> Path | None:
    """``data``, else ``KDBENCH_DATA``, else None (the hub).

    Raises:
        UserError: named but not a folder.
    """
    named = data or (Path(os.environ["KDBENCH_DATA"]) if os.environ.get("KDBENCH_DATA") else None)
    if named is not None and not named.is_dir():
        raise UserError(f"data folder {named} does not exist; name it with --data or KDBENCH_DATA")
    return named


def checkpoint_seconds() -> float:
    """Seconds between two checkpoints within a stage, what a killed run repeats at most; 0 means after every step.

    Raises:
        UserError: ``KDBENCH_CHECKPOINT_SECONDS`` is no such number.
    """
    text = os.environ.get(CHECKPOINT_SECONDS) or "60"
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise UserError(
            f"{CHECKPOINT_SECONDS} is {text!r}; give a number of seconds, 0 or more, or leave it out for 60"
        )
    return seconds
