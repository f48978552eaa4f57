"""What is said of data before they are read: sources state their own facts, and one bad file spoils no list."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from kdbench import cli
from kdbench.base import plugins
from kdbench.base.errors import UserError
from kdbench.data import Place, sources, status
from kdbench.data.decode import specification
from kdbench.data.feed import described
from kdbench.specs import registry
from kdbench.specs.data import Data


@pytest.fixture
def samples(load):
    return load("support/data_samples.py")


def of(source: str, **options: object) -> registry.TaskSpec:
    return registry.task("digits").model_copy(update={"data": Data(source=source, options=options)})


def test_every_source_states_its_facts_and_they_are_true(tmp_path: Path) -> None:
    for name in sources.names():
        facts = sources.module(name).FACTS
        if facts.made_of:
            assert set(facts.made_of) <= set(specification.set_names())
            continue
        assert facts.licence
        assert facts.about
        if not facts.rows or hasattr(sources.module(name), "CORPUS"):  # it has what it is given, or reads files
            continue
        if name == "phrases":
            pytest.importorskip("tokenizers", reason="text is an extra: pip install 'kdbench[text]'")
        options = {"inputs": list(facts.shapes)} if len(facts.shapes) > 1 else {}
        data = sources.module(name).load(options, Place(None, tmp_path))
        assert (len(data.train.y), data.classes) == (facts.rows, facts.classes)
        assert {given: data.shape(given) for given in facts.shapes} == facts.shapes


def test_asking_what_a_source_is_imports_no_torch() -> None:
    code = (
        "import sys; from kdbench.data import sources, status; [sources.module(n) for n in sources.names()]; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_new_source_is_what_it_says_and_an_unknown_one_is_not_another(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = status.status(of("digitz"), None)
    assert (unknown.state, unknown.licence, unknown.megabytes, unknown.minutes) == ("absent", "", None, None)
    assert "unknown source 'digitz' (did you mean 'digits'" in unknown.about
    assert not unknown.present
    monkeypatch.setattr(sources, "module", lambda name: SimpleNamespace(__name__="sources.mine"))
    silent = status.status(of("mine"), None)
    assert (silent.state, silent.about) == ("built in", "made by sources.mine, which states no FACTS")


@pytest.fixture
def bad_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder of task files and one of data set files, beside those of the tree."""
    own = tmp_path / "tasks"
    own.mkdir()
    found = plugins.folders
    monkeypatch.setattr(plugins, "folders", lambda group: [*found(group), *([own] if group == plugins.TASKS else [])])
    for cached in (registry.task_files, registry.task):
        cached.cache_clear()
    yield own
    for cached in (registry.task_files, registry.task):
        cached.cache_clear()


def test_task_files_that_cannot_be_read_leave_the_list_whole(
    bad_files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (bad_files / "broken.yaml").write_text("title: [")
    (bad_files / "wrong.yaml").write_text("titel: x\n")
    (bad_files / "My Task.yaml").write_text("title: x\n")
    (bad_files / "mnist.yaml").write_text("title: x\n")
    (bad_files / "noise.yaml").write_bytes(b"\xff\xfe\x00")
    (bad_files / "._digits.yaml").write_bytes(b"\0\5\x16\7")
    monkeypatch.setattr(sys, "argv", ["kdbench", "list", "tasks", "--json"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr()
    assert not stop.value.code
    listed = json.loads(said.out)
    assert "digits" in listed
    assert not {"broken", "wrong", "My Task", "mnist", "noise"} & set(listed)
    lines = said.err.splitlines()
    assert len(lines) == 5
    assert all(line.startswith("kdbench: not listed: ") for line in lines)
    assert registry.task("digits").name == "digits"
    for name, line in (
        ("My Task", "rename the file"),
        ("mnist", "is there already"),
        ("wrong", "key 'title' is missing"),
    ):
        with pytest.raises(UserError, match=line):
            registry.task(name)


def test_a_data_set_file_that_cannot_be_read_leaves_the_list_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = specification.set_spec

    def broken(name: str) -> specification.SetSpec:
        if name == "mnist":
            raise UserError("mnist.yaml:3: unknown key 'part'")
        return real(name)

    monkeypatch.setattr(status, "set_spec", broken)
    monkeypatch.setattr(sys, "argv", ["kdbench", "list", "tasks", "--json"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr()
    assert not stop.value.code
    assert "cifar10/resnet56-resnet20" in json.loads(said.out)
    assert said.err == "kdbench: not listed: mnist.yaml:3: unknown key 'part'\n"


@pytest.mark.slow
def test_a_folder_of_many_files_is_looked_at_at_once(samples, tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label in range(3):
            folder = tmp_path / "data" / "toy" / part / f"c{label}"
            folder.mkdir(parents=True)
            for number in range(3000 if part == "train" else 300):
                (folder / f"{number}.png").write_bytes(samples.encoded(samples.picture()))
    place = Place(tmp_path / "data", tmp_path / "cache")
    described.load(samples.spec(), {}, place)
    begin = time.process_time()
    state, _ = status._state(samples.spec(), None, place.folder, place.cache)
    assert state == "here"
    assert time.process_time() - begin < 1
