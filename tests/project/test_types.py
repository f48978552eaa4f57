"""mypy sees all that ships, methods and board included, and the suite needs no extra to be collected."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import as_built
import pytest

from kdbench.records.provenance import ROOT

pytestmark = pytest.mark.seam

FAULT = "\n\ndef planted(x: int) -> str:\n    return x + 1\n"
CALL = "\n\nfrom kdbench.methods.kd.adapter import kd_loss\n\nkd_loss(1, 2, 3.0)\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What ``lint`` reads of a checkout, with room for faults; types learnt before are reused."""
    root = tmp_path / "checkout"
    for folder in ("kdbench", "methods", "tasks", "leaderboard"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("results", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    if (ROOT / ".mypy_cache").is_dir():
        shutil.copytree(ROOT / ".mypy_cache", root / ".mypy_cache")
    return root


def test_the_layout_is_that_of_the_package(tmp_path):
    as_built.lay_out(ROOT, tmp_path / "built")
    laid = {path.relative_to(tmp_path / "built").as_posix() for path in (tmp_path / "built").rglob("*.py")}
    folders = {"kdbench": "kdbench", "methods": "kdbench/methods", "leaderboard": "kdbench/leaderboard"}
    tracked = subprocess.run(["git", "-C", str(ROOT), "ls-files", *folders], capture_output=True, text=True, check=True)
    for line in tracked.stdout.splitlines():
        folder, _, name = line.partition("/")
        if name.endswith(".py"):
            assert f"{folders[folder]}/{name}" in laid
    assert (tmp_path / "built" / "kdbench" / "py.typed").is_file()


@pytest.mark.slow
@pytest.mark.timeout(300)  # seconds after `make lint`, half a minute where nothing is learnt yet
def test_an_error_is_seen_wherever_it_is(checkout, capfd):
    for path in ("kdbench/base/seeds.py", "methods/kd/adapter.py", "leaderboard/draw/numbers.py"):
        with (checkout / path).open("a") as file:
            file.write(FAULT)
    with (checkout / "leaderboard" / "model" / "catalogue.py").open("a") as file:
        file.write(CALL)  # its types are known across the folders too
    assert as_built.mypy(checkout) == 1
    said = capfd.readouterr().out
    for path in ("base/seeds.py", "methods/kd/adapter.py", "leaderboard/draw/numbers.py"):
        assert f"kdbench/{path}" in said
    assert said.count('Incompatible return value type (got "int", expected "str")') == 3
    assert 'Argument 1 to "kd_loss" has incompatible type "int"; expected "Tensor"' in said
    assert "Found 5 errors in 4 files" in said


def test_make_lint_is_that_check():
    assert "tests/support/as_built.py" in (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_suite_is_collected_without_extras(tmp_path):
    """As on a machine that has no launcher, and so no ``hydra_plugins`` at all, and no decoder of video."""
    (tmp_path / "without.py").write_text(WITHOUT)
    command = [sys.executable, "-m", "pytest", "-p", "without", "--collect-only", "-q", "-n0", "tests"]
    env = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    assert found.returncode == 0, found.stdout[-2000:]
    assert "tests/sweep/test_sweep_slow.py::test_ray" in found.stdout


WITHOUT = """
import sys


class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("hydra_plugins", "submitit", "ray", "av"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Missing())
"""
