"""Hostile inputs for the fuzz tests, and the walls they are read within: memory, and files outside a folder."""

from __future__ import annotations

import copy
import os
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kdbench.base.errors import UserError

SPARE_BYTES = 1 << 30
"""What reading one hostile input may add to the memory of a process that holds torch already."""

HOSTILE_TEXT = [
    "", " ", "\0", "\n", "\r\n", "\t", "../../../etc/passwd", "..", "/etc/passwd", "~", "a/../../b", "con\\..\\x",
    "file:///etc/passwd", "http://example.org", "javascript:alert(1)", "https://a b", "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>", "=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", "'; DROP TABLE runs; --",
    "\u202egnp.exe", "\u2066x\u2069", "\x1b[31m", "\ud800", "\ufeff", "é", "K", "٣", "²", "x" * 5000, "9" * 5000,
    "1e999", "NaN", "${oc.env:HOME}", "???", "{{7*7}}", "%s%n", "!!python/object/apply:os.system ['true']", "null",
    "true", "on", "0x10", "1_000", "all", "*", "kd", "plain@kd", "plain@plain@kd", "cpu", "cuda:99", "a__b", "a" * 65,
    "2026-13-45T99:99:99Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:60Z",
]  # fmt: skip
HOSTILE_NUMBERS = [
    0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 10**30, 10**400, 0.0, -0.0, 1e-320, 1e308, float("inf"),
    -float("inf"), float("nan"), 0.1 + 0.2,
]  # fmt: skip


def _deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


hostile_scalars = (
    st.sampled_from(HOSTILE_TEXT)
    | st.sampled_from(HOSTILE_NUMBERS)
    | st.none()
    | st.booleans()
    | st.text(max_size=20)
    | st.integers()
    | st.floats()
)
hostile_values = (
    hostile_scalars
    | st.recursive(
        hostile_scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=6,
    )
    | st.integers(1, 150).map(_deep)
)
edits = st.lists(
    st.tuples(
        st.integers(0, 2**20), st.sampled_from(["set", "set", "set", "drop", "add", "twin", "swap"]), hostile_values
    ),
    min_size=1,
    max_size=4,
)
"""Changes of a tree of JSON, see :func:`edited`."""
cuts = st.lists(
    st.tuples(st.integers(0, 2**20), st.integers(0, 8), st.binary(max_size=8) | st.just(b"[" * 4000)), max_size=4
)
"""Changes of bytes, see :func:`cut`."""


def edited(tree: Any, changes: list[tuple[int, str, Any]]) -> Any:
    """A copy of nested JSON in which places are set, dropped, added to, doubled or exchanged."""
    tree = copy.deepcopy(tree)
    for number, what, value in changes:
        places = list(_places(tree))
        if not places:
            return value
        holder, key = places[number % len(places)]
        if what == "set":
            holder[key] = value
        elif what == "drop":
            del holder[key]
        elif what == "add" and isinstance(holder, dict):
            holder[value if isinstance(value, str) else "surplus"] = value
        elif what == "twin" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        else:
            other, place = places[(number * 31 + 7) % len(places)]
            if other.__class__ is dict or place < len(other):
                holder[key] = copy.deepcopy(other[place])
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """(holder, key) of every value below a tree."""
    stack = [tree]
    while stack:
        at = stack.pop()
        pairs = at.items() if isinstance(at, dict) else enumerate(at) if isinstance(at, list) else ()
        for key, value in pairs:
            yield at, key
            stack.append(value)


def cut(content: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    """Bytes with pieces taken out and others put in."""
    for place, count, more in changes:
        at = place % (len(content) + 1)
        content = content[:at] + more + content[at + count :]
    return content


def fuzz(count: int, within: Sequence[Path], check: Callable[..., None], *strategies: st.SearchStrategy[Any]) -> None:
    """``check`` with ``count`` drawn inputs: the same ones each time if they are few, fresh ones if they are many.

    Args:
        within: folders that reading an input may write to.
    """
    ran = 0

    def counted(drawn: tuple[Any, ...]) -> None:
        nonlocal ran
        ran += 1
        with walls(*within):
            check(*drawn)

    few = count < 1000
    phases = [Phase.explicit, Phase.generate, Phase.shrink]
    chosen = settings(
        max_examples=count, deadline=None, database=None, derandomize=few, print_blob=not few, phases=phases,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    chosen(given(st.tuples(*strategies))(counted))()
    assert ran >= count


def refused_in_one_line(action: Callable[[], Any]) -> Any:
    """What an action gives, None if it refuses its input as it should."""
    try:
        return action()
    except UserError as error:
        line = str(error)
        assert line.strip()
        assert "Traceback" not in line
        assert len(line) < 4000, line[:200]
        return None


_walls: list[Path] = []
"""Folders that may be written now; none: everything may."""
_broken: list[str] = []
_listening = False
_WRITES: dict[str, tuple[tuple[int, int | None], ...]] = {
    "os.rename": ((0, 2), (1, 3)), "os.remove": ((0, 1),), "os.mkdir": ((0, 2),), "os.rmdir": ((0, 1),),
    "os.link": ((1, 3),), "os.symlink": ((1, 2),), "os.truncate": ((0, None),), "os.chmod": ((0, 2),),
    "shutil.copyfile": ((1, None),), "shutil.move": ((0, None), (1, None)),
}  # fmt: skip
"""Audit event to the places of a path in its arguments and of the open folder that the path is relative to."""
_FORBIDDEN = {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "os.fork"}


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if not _walls:
        return
    if event in _FORBIDDEN:
        _broken.append(f"{event}{arguments!r:.200}")
    elif event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            _within(event, path)
    elif event in _WRITES:
        for place, folder in _WRITES[event]:
            _within(event, arguments[place], -1 if folder is None else arguments[folder])


def _within(event: str, path: Any, folder: int = -1) -> None:
    if not isinstance(path, str | bytes | os.PathLike):
        return  # an open file
    start = os.getcwd() if folder < 0 else f"/proc/self/fd/{folder}"
    whole = Path(os.path.realpath(os.path.join(start, os.fsdecode(path))))
    if str(whole).startswith("/dev/") or "__pycache__" in whole.parts:
        return
    if not any(whole.is_relative_to(wall) for wall in _walls):
        _broken.append(f"{event} {whole}")


@contextmanager
def walls(*folders: Path) -> Iterator[None]:
    """Within the block nothing outside of the folders is written, nothing started, and memory is bounded."""
    global _listening
    if not _listening:
        sys.addaudithook(_listen)  # for the life of the process: it answers at once while there are no walls
        _listening = True
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE_BYTES, before[1]))
    _broken.clear()
    _walls.extend(folder.resolve() for folder in folders)
    try:
        yield
    finally:
        _walls.clear()
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert not _broken, _broken[:3]
