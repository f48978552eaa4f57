"""Folders made once: locks, damage, and builders that died."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kdbench.base.cache import Damaged, build_once
from kdbench.base.errors import UserError
from kdbench.base.files import write_atomic


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
from kdbench.base.cache import build_once
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


CROWD = """
import os, signal, sys, time
from pathlib import Path
from kdbench.base.cache import Damaged, build_once
from kdbench.base.files import write_atomic
assert "torch" not in sys.modules
root, processes, deaths = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
begin, go = os.pipe()

def check(folder):
    for name in ("facts", "weights"):
        if not (folder / name).is_file() or (folder / name).read_text() != name * 1000:
            raise Damaged(f"no sound {name}")

def build(folder):
    with (root / "builders").open("a") as log:
        log.write("x")
    builders = len((root / "builders").read_text())
    assert (folder / "facts").exists() == (builders > 1), "the dead builder's part is there"
    write_atomic(folder / "facts", "facts" * 1000)
    if builders <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    write_atomic(folder / "weights", "weights" * 1000)

def ask():
    os.close(go)
    os.read(begin, 1)  # until the parent lets all begin
    made = build_once(root / "x", check, build, print)
    check(root / "x")
    return 1 if made else 0

children = []
for _ in range(processes):
    child = os.fork()
    if not child:
        code = 99
        try:
            code = ask()
        finally:
            os._exit(code)
    children.append(child)
os.close(begin)
os.close(go)
print(*sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


def test_fifty_processes_and_two_that_are_killed_build_it_once(tmp_path):
    crowd = subprocess.run([sys.executable, "-c", CROWD, str(tmp_path), "50", "2"], capture_output=True, text=True)
    codes = [int(code) for code in crowd.stdout.split()]
    assert codes == [-9] * 2 + [0] * 47 + [1], crowd.stderr
    assert (tmp_path / "builders").read_text() == "xxx"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["builders", "x", "x.lock"]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kdbench.base.files.os.fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_atomic(tmp_path / "record.json", "content")
    assert list(tmp_path.iterdir()) == []
