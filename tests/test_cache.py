"""Folders made once: locks, damage, and builders that died."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kdbench.cache import Damaged, build_once
from kdbench.errors import UserError
from kdbench.files import write_atomic


def check(folder: Path) -> None:
    if not (folder / "content").is_file() or (folder / "content").read_text() != "sound":
        raise Damaged("the content is not sound")


def build(folder: Path) -> None:
    (folder / "content").write_text("sound")


def test_it_is_built_once(tmp_path):
    folder = tmp_path / "x"
    assert build_once(folder, check, build, print)
    assert not build_once(folder, check, lambda path: pytest.fail("built again"), print)


def test_damage_is_set_aside_and_said(tmp_path):
    folder, said = tmp_path / "x", []
    build_once(folder, check, build, said.append)
    (folder / "content").write_text("rotten")
    assert build_once(folder, check, build, said.append)
    assert "set aside" in said[0]
    assert (folder / "content").read_text() == "sound"
    (aside,) = tmp_path.glob("x.damaged-*")
    assert (aside / "content").read_text() == "rotten"


def test_a_dead_builder_leaves_its_checkpoints_to_the_next(tmp_path):
    folder = tmp_path / "x"

    def dies(path: Path) -> None:
        (path / "half").write_text("done so far")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_once(folder, check, dies, print)
    assert not folder.exists()

    def goes_on(path: Path) -> None:
        assert (path / "half").read_text() == "done so far"
        build(path)

    assert build_once(folder, check, goes_on, print)


BUILDER = """
import sys, time
from pathlib import Path
from kdbench.cache import build_once
root = Path(sys.argv[1])
def build(folder):
    time.sleep(0.3)
    with (root / "built").open("a") as log:
        log.write("x")
    (folder / "content").write_text("sound")
print(build_once(root / "x", lambda folder: None, build, print))
"""


def test_processes_that_want_the_same_build_it_once(tmp_path):
    command = [sys.executable, "-c", BUILDER, str(tmp_path)]
    asked = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [process.communicate(timeout=60)[0].strip() for process in asked]
    assert sorted(answers) == ["False", "False", "False", "True"]
    assert (tmp_path / "built").read_text() == "x"


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kdbench.files.os.fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_atomic(tmp_path / "record.json", "content")
    assert list(tmp_path.iterdir()) == []
