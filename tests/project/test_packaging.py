"""The wheel is what the checkout is: built from ``git archive``, installed elsewhere, used elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from kdbench.records.provenance import ROOT

PACKAGES = {"kdbench": "kdbench", "kdbench/methods": "methods", "kdbench/tasks": "tasks"}

pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")


def tracked(folder: str) -> set[str]:
    """Tracked Python, YAML and typing files below a folder, relative to it."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", folder], capture_output=True, text=True, check=True)
    names = [Path(line).relative_to(folder).as_posix() for line in listed.stdout.splitlines()]
    return {name for name in names if name.endswith((".py", ".yaml", "py.typed"))}


def test_every_package_of_kdbench_is_listed():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    on_disk = {
        f"kdbench.{p.parent.relative_to(ROOT / 'kdbench').as_posix()}" for p in (ROOT / "kdbench").rglob("__init__.py")
    }
    on_disk = {name.replace("/", ".").removesuffix("..").removesuffix(".") for name in on_disk}
    assert on_disk <= listed | {"kdbench"}
    assert {"kdbench.methods", "kdbench.tasks", "kdbench.leaderboard"} <= listed


def test_the_readme_names_every_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    told = (ROOT / "README.md").read_text().split("Extras of the package:")[1].split("\n\n")[0]
    assert not [extra for extra in extras if f"`{extra}`" not in told]


def test_nobody_imports_the_mapped_folders_by_their_other_name():
    """``import methods.x`` works in a checkout and gives a second, different class."""
    for folder in ("kdbench", "methods", "leaderboard", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            for line in path.read_text().splitlines():
                assert not line.startswith(("import methods", "from methods", "from tasks", "from leaderboard")), path


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_wheel_holds_the_tree_and_works_outside_it(tmp_path):
    source, wheels, venv = tmp_path / "source", tmp_path / "wheels", tmp_path / "a venv"
    source.mkdir()
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", "HEAD"], capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(source)], input=archive, check=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(wheels), str(source)], check=True)
    (wheel,) = wheels.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for package, folder in PACKAGES.items():
        missing = {f"{package}/{name}" for name in tracked(folder)} - names
        assert not missing
    assert not [name for name in names if name.startswith(("kdbench/leaderboard/results", "tests"))]

    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", str(venv)], check=True)
    subprocess.run([str(venv / "bin/pip"), "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    # The fresh environment borrows this one's dependencies, which are large, but not its kdbench.
    site = next(Path(p) for p in sys.path if p.endswith("site-packages"))
    borrow = f"import sys; sys.path.append({str(site)!r})"
    (next((venv / "lib").glob("python*")) / "site-packages" / "borrow.pth").write_text(borrow + "\n")
    run = [str(venv / "bin/kdbench")]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"KDBENCH_HOME": str(tmp_path / "home")}
    where = [str(venv / "bin/python"), "-c", "import kdbench.methods; print(kdbench.methods.__file__)"]
    found = subprocess.run(where, capture_output=True, text=True, check=True, cwd=tmp_path, env=env).stdout
    assert str(venv) in found
    words = ["evaluate", "-m", "reviewkd", "-t", "digits/few-shot", "--smoke", "--seed", "0", "--overhead", "off"]
    subprocess.run([*run, *words], check=True, cwd=tmp_path, env=env, timeout=300)
    assert len(list((tmp_path / "home" / "records").glob("*.json"))) == 1
    subprocess.run([*run, "site", "build"], check=True, cwd=tmp_path, env=env, timeout=120)
    assert (tmp_path / "home" / "site" / "index.html").is_file()
