"""What frozen teachers answered, on disk: rows of numbers by the number of the picture that they were asked about.

Needs no torch. A shelf is a file of places of one size, memory-mapped to be read. A place holds a picture's number, a
check sum over number and values, and the values; the rest of the file is holes. A picture has one place, its number
modulo the places, and whoever comes first keeps it: nothing is ever replaced, and a file that is full stays as it is.
So any number of processes read and write without a lock. What was half written when one was killed, or when two wrote
at once, does not fit its check sum: it is not there.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from kdbench.base.cache import clear
from kdbench.base.errors import UserError
from kdbench.base.files import write_atomic

FACTS = "facts.json"
MIB = 2**20
Numbers = NDArray[np.int64]
Values = NDArray[np.float32]


@dataclass
class Filling:
    """What was read of kept answers in this process, and what was kept.

    Attributes:
        read, computed, kept: rows whose answers were read, computed, and computed and kept.
        seconds: that went into computing and keeping them.
    """

    read: int = 0
    computed: int = 0
    kept: int = 0
    seconds: float = 0.0
    _told: float = 0.0

    def taken(self) -> float:
        """Seconds since it was asked last."""
        took, self._told = self.seconds - self._told, self.seconds
        return took

    @property
    def line(self) -> str:
        """For the user."""
        return (
            f"engine.teacher_store: {self.read} answers of teachers were read, {self.computed} computed, "
            f"{self.kept} of them kept for other runs ({self.seconds:.1f} s)"
        )


class Shelf:
    """One file of places.

    Args:
        path: made where it is not there; one that was cut short is lengthened, what it lost is not there.
        places: of the file.
        width: numbers of an answer.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path, places: int, width: int) -> None:
        self.places = places
        self._type = place_of(width)
        self._size = places * self._type.itemsize
        self._factors = _mixed(np.arange(1, width + 2, dtype=np.uint64)) | np.uint64(1)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._lengthen()
        self._map = np.frombuffer(mmap.mmap(self._file, self._size, access=mmap.ACCESS_READ), dtype=self._type)

    def read(self, numbers: Numbers) -> tuple[Values, NDArray[np.bool_]]:
        """(N, width) values of (N,) pictures, and which of them are there; the others are anything."""
        self._lengthen()
        rows = self._map[numbers % self.places]
        there = (rows["number"] == _tags(numbers)) & self._fits(rows)
        return np.ascontiguousarray(rows["values"]).view(np.float32), there

    def write(self, numbers: Numbers, values: Values) -> int:
        """Keeps (N, width) values of (N,) pictures; returns how many had a place.

        Raises:
            OSError: there is no room on the disk.
        """
        rows = np.zeros(len(numbers), self._type)
        rows["number"] = _tags(numbers)
        rows["values"] = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
        rows["check"] = self._check(rows)
        places = numbers % self.places
        first = np.sort(np.unique(places, return_index=True)[1])
        free = first[~self._fits(self._map[places[first]])]
        for number in free:  # not through the map: a write that finds no room on the disk raises, a map's kills
            os.pwrite(self._file, rows[number].tobytes(), int(places[number]) * self._type.itemsize)
        return len(free)

    def _fits(self, rows: NDArray[Any]) -> NDArray[np.bool_]:
        there: NDArray[np.bool_] = rows["check"] == self._check(rows)
        return there

    def _check(self, rows: NDArray[Any]) -> NDArray[np.uint64]:
        """(N,) sums over number and values, never 0."""
        sums: NDArray[np.uint64] = rows["values"].astype(np.uint64) @ self._factors[1:]
        return sums + rows["number"] * self._factors[0] | np.uint64(1)

    def _lengthen(self) -> None:
        if os.fstat(self._file).st_size < self._size:
            os.ftruncate(self._file, self._size)


def place_of(width: int) -> np.dtype[Any]:
    """A place that holds so many numbers."""
    return np.dtype([("number", "<u8"), ("check", "<u8"), ("values", "<u4", (width,))])


def _tags(numbers: Numbers) -> NDArray[np.uint64]:
    """Numbers as places hold them: 0 is an empty one's."""
    return numbers.astype(np.uint64) + np.uint64(1)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each bit depends on all (Steele et al., OOPSLA 2014: SplitMix)."""
    values = values * np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return values ^ (values >> np.uint64(27))


@dataclass(frozen=True)
class Field:
    """What is kept of one field of a teacher's answers: the shelf, and the shape of one row."""

    shelf: Shelf
    shape: tuple[int, ...]


class TeacherStore:
    """The shelves of one teacher, as it computes on one kind of device.

    Args:
        folder: where they lie; made when there is something to keep.
        key: all that decides the answers.
        most_mib: size of all its files together, holes among them.
        say: told in one line what is out of order.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], most_mib: int, say: Callable[[str], None]) -> None:
        self.folder, self._key, self._most, self._say = folder, dict(key), most_mib * MIB, say
        self._fields: dict[str, Field] = {}
        self._said: set[str] = set()

    def field(self, name: str) -> Field | None:
        """What is kept of a field; None as long as nothing is.

        Raises:
            OSError: its file cannot be opened.
        """
        if name not in self._fields and (facts := self._facts()) is not None and name in facts["shelves"]:
            self._fields[name] = self._opened(name, facts["shelves"][name])
        return self._fields.get(name)

    def make(self, name: str, shape: tuple[int, ...], numbers: int) -> Field | None:
        """The same, made if nothing was kept yet; None where it would not fit.

        Args:
            shape: of an answer; numbers: pictures there are.

        Raises:
            OSError: it cannot be made.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder.with_suffix(".lock")):
            facts = self._facts()
            if facts is None:
                facts = self._anew()
            if name not in facts["shelves"]:
                size = place_of(math.prod(shape)).itemsize
                used = sum(shelf["places"] * place_of(math.prod(shelf["shape"])).itemsize
                           for shelf in facts["shelves"].values())  # fmt: skip
                places = min(numbers, (self._most - used) // size)
                if places < 1:
                    self.say_full()
                    return None
                facts["shelves"][name] = {"places": places, "shape": list(shape)}
                try:
                    write_atomic(self.folder / FACTS, json.dumps(facts, indent=1))
                except UserError as error:
                    raise OSError(str(error)) from error
        return self.field(name)

    def say_full(self) -> None:
        """Says that not all can be kept."""
        self.say_once(
            f"engine.teacher_store: {self.folder} is full ({self._most // MIB} MiB, engine.teacher_store_mib); what it "
            "does not hold is computed"
        )

    def say_once(self, line: str) -> None:
        """Says a line, the first time."""
        if line not in self._said:
            self._said.add(line)
            self._say(line)

    def _opened(self, name: str, facts: Mapping[str, Any]) -> Field:
        shape = tuple(facts["shape"])
        return Field(Shelf(self.folder / f"{name}.rows", facts["places"], math.prod(shape)), shape)

    def _facts(self) -> dict[str, Any] | None:
        """What is written of the folder; None where nothing is, or nothing that can be read."""
        try:
            facts: dict[str, Any] = json.loads((self.folder / FACTS).read_text())
            for shelf in facts["shelves"].values():
                _ = int(shelf["places"]), [int(size) for size in shelf["shape"]]
            return facts
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _anew(self) -> dict[str, Any]:
        if (self.folder / FACTS).exists():
            self._say(f"{self.folder / FACTS} cannot be read; what teachers answered is kept anew")
        clear(self.folder)  # who has its files open goes on with them
        self.folder.mkdir()
        return {"key": self._key, "shelves": {}}
