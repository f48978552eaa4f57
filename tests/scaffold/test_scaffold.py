"""``kdbench new method``: what it writes is found, shown, trains and passes the contract checks."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from plugged import kdbench, metadata

from kdbench import scaffold
from kdbench.base.errors import UserError
from kdbench.records.files import load


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A standalone package, registered as an installed one is."""
    return metadata(scaffold.new_method("my_own", standalone=True, to=tmp_path / "kdbench-my_own").folder)


def run(package: Path, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return kdbench(home, *words, folders=(package,))


def test_a_standalone_package_appears_where_built_in_methods_do(package: Path, tmp_path: Path) -> None:
    told = run(package, tmp_path / "home", "list", "methods")
    assert "my_own" in told.stdout, told.stderr
    assert "drawn to the teacher's" in run(package, tmp_path / "home", "show", "method", "my_own").stdout
    names = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert {"pyproject.toml", "README.md", "kdbench_my_own/card.yaml", "kdbench_my_own/adapter.py"} <= names
    assert (package / "kdbench_my_own" / "__init__.py").read_text() == ""


@pytest.mark.slow
def test_a_plugin_goes_everywhere_a_built_in_method_goes(package: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    checked = run(package, home, "check", "my_own")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert " 0 broken" in checked.stdout
    words = ("--task", "digits/few-shot", "--overhead", "off")
    for command in (
        ("evaluate", "--method", "my_own", "--seed", "0", *words),
        ("sweep", "--methods", "my_*,plain", "--tasks", "digits/few-shot", "--seeds", "0-1", *words[2:]),
        ("overhead", "--method", "my_own", *words[:2], "--overhead", "quick"),
    ):
        done = run(package, home, *command)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "my_own" in run(package, home, "results").stdout
    assert run(package, home, "compare", "plain", "my_own").returncode == 0
    built = run(package, home, "site", "build", "--records", str(home / "records"))
    assert built.returncode == 0, built.stderr
    assert "The student&#39;s logits" in (home / "site" / "methods" / "my_own.html").read_text()
    records = [load(path) for path in (home / "records").glob("*.json")]
    own = [record for record in records if record.method_name == "my_own"]
    assert [record.environment.packages.get("kdbench-my-own") for record in own] == ["1.0.0", "1.0.0"]
    sent = run(package, home, "submit", "--to", str(tmp_path / "results"))
    assert "my_own" in sent.stdout or "not committed" in sent.stdout, sent.stdout + sent.stderr
    own_tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(package / "tests")]
    environment = os.environ | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    tested = subprocess.run(own_tests, capture_output=True, text=True, env=environment, cwd=package, check=False)
    assert tested.returncode == 0, tested.stdout[-2000:]
    assert "passed" in tested.stdout


def test_in_a_checkout_it_writes_a_folder_and_a_parity_skeleton(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "methods").mkdir()
    monkeypatch.setattr(scaffold.method, "ROOT", tmp_path)
    made = scaffold.new_method("my_own")
    assert sorted(path.as_posix() for path in made.files) == [
        "methods/my_own/__init__.py",
        "methods/my_own/adapter.py",
        "methods/my_own/card.yaml",
        "tests/parity/my_own/mapping.py",
    ]
    for path in made.files:
        if path.suffix == ".py":
            compile((tmp_path / path).read_text(), path.name, "exec")
    with pytest.raises(UserError, match="is there already"):
        scaffold.new_method("my_own")


def test_printed_commands_hold_in_a_folder_with_spaces(tmp_path: Path) -> None:
    made = scaffold.new_method("my_own", standalone=True, to=tmp_path / "my methods (1)" / "kdbench-my_own")
    install, check, run_tests = (shlex.split(line) for line in made.next)
    assert install == ["pip", "install", "-e", str(made.folder)]
    assert check == ["kdbench", "check", "my_own"]
    assert run_tests == ["pytest", str(made.folder / "tests")]


@pytest.mark.parametrize("name", ["kd", "crd", "shared"])
def test_a_name_that_is_taken_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="already"):
        scaffold.new_method(name, standalone=True, to=tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["", "My", "1st", "a-b", "../x", "a" * 41, "a b"])
def test_a_name_that_is_no_package_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no name for a method"):
        scaffold.new_method(name, standalone=True, to=tmp_path / "x")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    first = scaffold.new_method("my_own", standalone=True, to=tmp_path / "x")
    shutil.rmtree(first.folder / "tests")
    with pytest.raises(UserError, match=r"pyproject.toml is there already"):
        scaffold.new_method("my_own", standalone=True, to=tmp_path / "x")
    assert not (first.folder / "tests").exists(), "some files were written although another was in the way"
