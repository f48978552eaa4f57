"""A disk that is full from some write on, a folder that can only be read, a clock that jumps back."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import Ended, Warm
from sweeps import check_equal, tiny_pictures

from kdbench.base.home import Home

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
RUN = ("-m", "cgan_kd", "--smoke", "--overhead", "off", "--device", "cpu")


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    with Warm(tmp_path_factory.mktemp("warm")) as process:
        yield process


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pictures(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def undisturbed(warm: Warm, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("undisturbed"))
    assert evaluate(warm, home, data).code == 0
    return home


def evaluate(warm: Warm, home: Home, data: Path, **how: object) -> Ended:
    return warm.run("evaluate", *RUN, "-t", "mnist", "--seed", 0, "--data", data, "--out", home.root, **how)


def refused(done: Ended) -> None:
    """It ended as an error of the user's does: exit code 2, and the last line says what to do."""
    assert done.code == 2, done
    assert "Traceback" not in done.err + done.out, done.err
    assert re.match("kdbench: .*(No space left on device|Read-only file system|requested and)", done.line), done.err


def test_a_disk_that_is_full_from_any_write_on(warm: Warm, data: Path, undisturbed: Home, tmp_path: Path) -> None:
    """Every kind of file and folder that a run makes is once the first for which there is no room."""
    home, listed = Home(tmp_path / "home"), tmp_path / "written"
    everything = {"do": "list", "path": re.escape(str(home.root)), "mark": str(listed)}
    assert evaluate(warm, home, data, fault=everything).code == 0
    kinds: dict[str, int] = {}
    for number, path in enumerate(listed.read_text().splitlines(), 1):
        kind = re.sub(r"[0-9a-f]{32}|\.json\.\w+|\.pt\.\w+|-\d+|\.\w{8}\.part", "#", path.removeprefix(str(home.root)))
        kind = re.sub(r".*\.lock$", ".lock", re.sub(r"/(train|test)\.\w+\.\w+$", "/column", kind))  # written alike
        kinds.setdefault(kind, number)
    assert len(kinds) > 20, kinds
    for number in kinds.values():
        home = Home(tmp_path / str(number))
        done = evaluate(warm, home, data, fault={"do": "full", "path": re.escape(str(home.root)), "nth": number})
        refused(done)
        again = evaluate(warm, home, data)
        assert again.code == 0, again.err
        check_equal(home, undisturbed)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    if mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)):
        pytest.skip("this user may not mount a file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def mount(*words: str) -> int:
    return subprocess.run(["mount", *words], capture_output=True, check=False).returncode


def resize(place: Path, kib: int) -> None:
    assert mount("-o", f"remount,size={kib}k", str(place)) == 0


def test_a_small_disk_that_fills_up_at_any_byte(warm: Warm, data: Path, undisturbed: Home, disk: Path) -> None:
    """The kernel itself says that the disk is full, in the middle of arrays, weights, checkpoints, the index."""
    sizes, full = [16], 0
    while sizes[-1] < 30_000:
        sizes.append(int(sizes[-1] * 1.6))
    for kib in sizes:
        resize(disk, kib)
        home = Home(disk / "home")
        done = evaluate(warm, home, data)
        if done.code == 0:
            break
        refused(done)
        full += 1
        resize(disk, 65536)
        again = evaluate(warm, home, data)
        assert again.code == 0, again.err
        check_equal(home, undisturbed)
        subprocess.run(["rm", "-rf", str(home.root)], check=True)
    assert full > 5
    check_equal(home, undisturbed)


def test_a_folder_that_can_only_be_read(warm: Warm, data: Path, undisturbed: Home, disk: Path) -> None:
    resize(disk, 65536)
    home = Home(disk / "home")
    assert evaluate(warm, home, data).code == 0
    assert mount("-o", "remount,ro", str(disk)) == 0
    refused(warm.run("evaluate", *RUN, "-t", "mnist", "--seed", 1, "--data", data, "--out", home.root))
    refused(warm.run("sweep", *RUN, "-t", "mnist", "--seeds", "0-1", "--data", data, "--out", home.root))
    refused(warm.run("records", "rebuild", "--out", home.root))
    shown = warm.run("results", "--out", home.root)
    assert shown.code == 0, shown.err
    assert "cgan_kd" in shown.out
    assert mount("-o", "remount,rw", str(disk)) == 0
    check_equal(home, undisturbed)


def test_a_folder_without_permission(warm: Warm, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root writes anywhere; a file system mounted read-only stands in above")
    tmp_path.chmod(0o500)
    done = warm.run("evaluate", *RUN, "-t", "digits", "--out", tmp_path / "home")
    assert (done.code, "cannot write" in done.line) == (2, True)


@pytest.mark.parametrize("shift", [[0, -3600], [-86400, 0], [0, -1, -86400 * 400], [86400 * 365]])
def test_a_clock_that_jumps(warm: Warm, data: Path, undisturbed: Home, tmp_path: Path, shift: list[float]) -> None:
    home = Home(tmp_path)
    done = evaluate(warm, home, data, shift=shift)
    assert done.code == 0, done.err
    check_equal(home, undisturbed)
    assert warm.run("records", "validate", home.records).code == 0
