"""A net that an installed package brings by an entry point: found by its name, trained, and refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from as_new import forget
from plugged import kdbench, metadata, plugged

from kdbench import models
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.records.files import load
from kdbench.specs import nets

NET = """
import kdbench
from torch import nn


@kdbench.net("lab_net", maps=["0"])
def make(shape, classes):
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(nn.Conv2d(shape[0], 4, 3), nn.ReLU(), pool, nn.Flatten(), nn.Linear(4, classes))
"""
PROJECT = """
[project]
name = "lab-nets"
version = "1.0"

[project.entry-points."kdbench.nets"]
{name} = "{module}"
"""


def package(folder: Path, module: str, code: str = NET, name: str = "lab_net") -> Path:
    """What ``pip install`` would find: a module and its entry point."""
    folder.mkdir()
    (folder / f"{module}.py").write_text(code)
    (folder / "pyproject.toml").write_text(PROJECT.format(name=name, module=module))
    return folder


def test_an_installed_package_brings_a_net(tmp_path: Path) -> None:
    with plugged(package(tmp_path / "lab", "lab_one")):
        assert "lab_net" in nets.names()
        net = models.build("lab_net", (1, 8, 8), 10)
        assert sum(p.numel() for p in net.parameters()) == 4 * 9 + 4 + 4 * 10 + 10
        forget()
    assert "lab_net" not in nets.names()


@pytest.mark.parametrize(
    ("code", "name", "line"),
    [
        (
            NET,
            "lab_nett",
            "plug-in 'of_lab_nett' registers the net 'lab_nett' and declares lab_net; decorate its factory",
        ),
        ("import not_there", "lab_net", "the net 'lab_net' of of_lab_net cannot be imported: ModuleNotFoundError"),
    ],
)
def test_a_package_that_does_not_declare_it_is_refused(tmp_path: Path, code: str, name: str, line: str) -> None:
    with plugged(package(tmp_path / "lab", f"of_{name}", code, name)):
        with pytest.raises(UserError, match=line):
            nets.find(name)
        forget()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_net_of_a_package_is_a_student_of_a_run(tmp_path: Path) -> None:
    folder = metadata(package(tmp_path / "lab", "lab_three"))
    words = ["-m", "kd", "-t", "digits/few-shot", "--seed", "0", "--smoke", "--overhead", "off", "--device", "cpu"]
    done = kdbench(tmp_path / "home", "evaluate", *words, "pair.student.net=lab_net", folders=(folder,))
    assert done.returncode == 0, done.stderr
    (path,) = Home(tmp_path / "home").records.glob("*.json")
    record = load(path)
    assert record.status == "ok"
    again = kdbench(tmp_path / "home", "evaluate", *words, "pair.student.net=lab_net")
    assert again.returncode == 2
    assert "lab_net" in again.stderr.splitlines()[-1]
