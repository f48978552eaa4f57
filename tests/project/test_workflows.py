"""The workflows call only what a person can run: make targets, and commands of kdbench with their options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from kdbench.cli import app

TOP = Path(__file__).parents[2]
WORKFLOWS = sorted((TOP / ".github" / "workflows").glob("*.yml"))
OTHERS = {"sudo", "gh", "tar", "mkdir", "if", "fi"}
"""Of the runner, git's host and the shell."""


def jobs(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())["jobs"]


def lines(path: Path) -> list[str]:
    """Shell lines of a workflow."""
    scripts = [step["run"] for job in jobs(path).values() for step in job["steps"] if "run" in step]
    return [line.strip() for script in scripts for line in script.splitlines() if line.strip()]


def test_the_four_workflows_are_there():
    assert [path.stem for path in WORKFLOWS] == ["board", "nightly", "submission", "test"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_line_is_a_command_that_exists(path):
    targets = set(re.findall(r"^([-\w$()./]+):", (TOP / "Makefile").read_text(), re.M)) | {".venv/.ready"}
    root = typer.main.get_command(app)
    for line in lines(path):
        words = shlex.split(re.sub(r"\$\{TAG:\+(.*)\}$", r"\1", line))
        if words[0] == "make":
            assert words[1] in targets, line
        elif words[0].endswith("kdbench"):
            command, rest = root, words[1:]
            while rest and hasattr(command, "commands"):
                assert rest[0] in command.commands, line
                command, rest = command.commands[rest[0]], rest[1:]
            known = {name for parameter in command.params for name in parameter.opts}
            assert {word for word in rest if word.startswith("--")} <= known, line
        else:
            assert words[0].split("=")[0] in OTHERS | {"last"}, line


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_permissions_are_named_and_requests_get_no_write(path):
    whole = yaml.safe_load(path.read_text())
    for name, job in jobs(path).items():
        given = job.get("permissions", whole.get("permissions"))
        assert given is not None, name
        if "pull_request" in whole[True]:  # YAML reads the key `on` as true
            assert set(given.values()) == {"read"}, name
    assert "pull_request_target" not in whole[True], "a request from a fork would run with our secrets"


def test_a_submission_is_validated_against_its_base():
    assert any(
        "records validate" in line and "--since" in line for line in lines(TOP / ".github/workflows/submission.yml")
    )
