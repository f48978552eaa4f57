"""What the documents say is so: their commands run, their options exist, their links lead somewhere."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml
from documents import REASONS, Block, blocks, commands, documents

from kdbench.cli import app, reference
from kdbench.records.provenance import ROOT

DOCUMENTS = {path.relative_to(ROOT).as_posix(): path for path in documents()}
RUNNABLE = ("sh", "python")
FROM_NOTHING = ("own_pair.md",)
"""Documents whose commands run in an empty folder instead of a checkout."""
SHOWN = ("text",)
LINKS = re.compile(r"\]\(([^)\s]+)\)")
NAMED = re.compile(r"`((?:kdbench|methods|tasks|tests|leaderboard|docs|\.github)/[\w./-]+)`")
PIP = """#!{python}
import sys
from pathlib import Path
sys.path.insert(0, {support!r})
from plugged import metadata
folder = metadata(Path(sys.argv[-1]).absolute())
for found in folder.iterdir():
    if found.is_dir() and found.name.startswith("kdbench_"):
        (Path({site!r}) / found.name).symlink_to(found)
"""
"""Stands for ``pip install -e FOLDER``, which would fetch setuptools."""

pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")


def tracked() -> list[str]:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture
def checkout(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A copy of the tree with its first commit, and the environment in which its ``kdbench`` runs."""
    tree, site, tools = tmp_path / "tree", tmp_path / "site", tmp_path / "bin"
    for name in tracked():
        if not name.startswith("leaderboard/results/") or "/digits__masked@v1/" in name:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tree / name)
    for name in ("methods", "tasks", "leaderboard"):  # an editable install maps these, see pyproject.toml
        (tree / "kdbench" / name).symlink_to(tree / name)
    (tree / ".venv" / "bin").mkdir(parents=True)
    (tree / ".venv" / "bin" / "activate").touch()
    for folder in (site, tools):
        folder.mkdir()
    support = str(ROOT / "tests" / "support")
    scripts = {
        "python": f'#!/bin/sh\nexec "{sys.executable}" "$@"\n',
        "kdbench": f'#!/bin/sh\nexec "{sys.executable}" -m kdbench "$@"\n',
        "torchrun": f'#!/bin/sh\nexec "{sys.executable}" -m torch.distributed.run "$@"\n',
        "pytest": f'#!/bin/sh\nexec "{sys.executable}" -m pytest -p no:cacheprovider "$@"\n',
        "pip": PIP.format(python=sys.executable, support=support, site=str(site)),
    }
    for name, text in scripts.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org"}
    who |= {name.replace("AUTHOR", "COMMITTER"): value for name, value in who.items()}
    environment = (
        os.environ
        | who
        | {
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{tree}{os.pathsep}{site}",
            "KDBENCH_HOME": str(tmp_path / "home"),
            "OMP_NUM_THREADS": "1",
        }
    )
    (tree / ".git" / "info").mkdir(parents=True)
    (tree / ".git" / "info" / "exclude").write_text("/kdbench/methods\n/kdbench/tasks\n/kdbench/leaderboard\n")
    for line in ("git init -q -b main", "git add -A", "git commit -q -m tree"):
        subprocess.run(line.split(), cwd=tree, env=environment, check=True)
    return tree, environment


def run(path: Path, checkout: tuple[Path, dict[str, str]], slow: bool) -> None:
    """Runs a document's blocks in order, in the copy of the tree."""
    tree, environment = checkout
    where = tree.parent / "nothing" if path.name in FROM_NOTHING else tree
    where.mkdir(exist_ok=True)
    for block in blocks(path):
        if block.file is not None:
            (where / block.file).write_text(block.text)
        if block.file or block.unrun or block.language != "sh" or (block.slow and not slow):
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=where, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{path.name}:{block.line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


READ_FIRST = ("README.md", "CONTRIBUTING.md")
"""Documents whose commands the fast set runs, those that take seconds; the slow set runs all of every document."""


@pytest.mark.parametrize("name", READ_FIRST)
def test_commands_that_take_seconds_run(name: str, checkout: tuple[Path, dict[str, str]]) -> None:
    run(DOCUMENTS[name], checkout, slow=False)


def has_commands(path: Path) -> bool:
    return any(block.language == "sh" and block.unrun is None for block in blocks(path))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [name for name, path in DOCUMENTS.items() if has_commands(path)])
def test_all_commands_run(name: str, checkout: tuple[Path, dict[str, str]]) -> None:
    run(DOCUMENTS[name], checkout, slow=True)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_block_is_run_or_says_why_not(name: str) -> None:
    text = DOCUMENTS[name].read_text()
    found = blocks(DOCUMENTS[name])
    assert text.count("\n```") == 2 * len(found), "a fence is not closed, or stands in the middle of a line"
    for block in found:
        at = f"{name}:{block.line}"
        assert block.language in (*RUNNABLE, *SHOWN, "yaml"), f"{at}: say what it is: sh, python, yaml or text"
        assert block.unrun is None or block.unrun in REASONS, f"{at}: {block.unrun!r} is no reason of the list"
        known = not block.note or block.slow or block.file or block.unrun
        assert known, f"{at}: {block.note!r} is none of slow, file: and not run:"
        if block.language in ("python", "yaml"):
            assert block.file or block.unrun, f"{at}: name the file that it is with <!-- file: PATH -->"
        if block.language == "python":
            ast.parse(block.text, at)
        if block.language == "yaml":
            yaml.safe_load(block.text)


def test_few_blocks_stay_unrun() -> None:
    unrun = [block.unrun for path in DOCUMENTS.values() for block in blocks(path) if block.unrun]
    assert len(unrun) <= 13, unrun


def kdbench_commands() -> Iterator[tuple[str, Block, list[str]]]:
    for name, path in DOCUMENTS.items():
        for block in blocks(path):
            if block.language == "sh":
                for words in commands(block):
                    yield f"{name}:{block.line}", block, words


def test_every_command_and_option_in_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    seen = 0
    for at, _, words in kdbench_commands():
        if words[0] == "make":
            assert words[1] in targets, f"{at}: no target {words[1]}"
        if words[0] != "kdbench":
            continue
        seen += 1
        command, rest = typer.main.get_command(app), words[1:]
        while hasattr(command, "commands"):
            assert rest, at
            assert rest[0] in command.commands, f"{at}: no command {rest[0]}"
            command, rest = command.commands[rest[0]], rest[1:]
        known = {name for parameter in command.params for name in parameter.opts}
        given = {word.partition("=")[0] for word in rest if word.startswith("-")}
        assert given <= known, f"{at}: no option {', '.join(given - known)}"
    assert seen > 30


def test_the_reference_is_current() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == reference.text(), "run `make docs`"


def test_the_reference_has_every_command_and_option() -> None:
    text = reference.text()
    for path, command in reference.commands(typer.main.get_command(app)):
        section = text.split(f"## {' '.join(path)}\n")[1].split("\n## ")[0]
        for parameter in command.params:
            for name in parameter.opts if parameter.param_type_name == "option" and parameter.name != "help" else ():
                assert f"`{name}`" in section, f"{' '.join(path)} {name}"
            about = getattr(parameter, "help", None)
            assert about or parameter.name == "help", f"{' '.join(path)}: {parameter.name} has no help"


def test_every_variable_of_the_environment_is_documented() -> None:
    used = set()
    for folder in ("kdbench", "leaderboard"):
        for path in (ROOT / folder).rglob("*.py"):
            used |= set(re.findall(r'environ(?:\.get\(|\[)"(KDBENCH_\w+)"', path.read_text()))
    assert used
    assert not {name for name in used if f"| `{name}` |" not in reference.HEAD}


def anchors(path: Path) -> set[str]:
    """What a heading is linked by."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    path = DOCUMENTS[name]
    for link in LINKS.findall(path.read_text()):
        if link.startswith("https://"):
            continue
        target, _, anchor = link.partition("#")
        place = (path.parent / target).resolve() if target else path
        assert place.exists(), f"{name}: {link}"
        assert not anchor or anchor in anchors(place), f"{name}: {link}: no such heading"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_that_is_named_exists(name: str) -> None:
    written = {block.file for block in blocks(DOCUMENTS[name]) if block.file}
    for file in NAMED.findall(DOCUMENTS[name].read_text()):
        made = any(own.startswith(file.rstrip("/")) for own in written)
        there = (ROOT / file.replace("kdbench/methods/", "methods/")).exists()
        assert made or there, f"{name}: {file}"


def test_the_method_of_the_walk_through_is_fifteen_lines_of_its_own() -> None:
    (block,) = (block for block in blocks(DOCUMENTS["CONTRIBUTING.md"]) if (block.file or "").endswith("adapter.py"))
    lines: set[int] = set()
    for node in ast.walk(ast.parse(block.text)):
        said = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)  # a docstring
        if isinstance(node, ast.stmt) and not said and not isinstance(node, ast.Import | ast.ImportFrom):
            last = node.lineno if isinstance(node, ast.ClassDef | ast.FunctionDef) else node.end_lineno
            lines |= set(range(node.lineno, (last or node.lineno) + 1))
    assert len(lines) <= 15


def test_citation_and_licence_are_those_of_the_package() -> None:
    import kdbench

    about = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (about["version"], about["license"]) == (kdbench.__version__, "Apache-2.0")
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert kdbench.__version__ in (ROOT / "CHANGELOG.md").read_text()
