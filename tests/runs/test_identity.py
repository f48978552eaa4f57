"""A run is known by everything that decides its result: code, weights and data, by content."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from plugged import CACHES, kdbench
from safetensors.torch import load_file, save_file
from said import Said

from kdbench import identity
from kdbench.base import plugins
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.identity import sourcecode
from kdbench.index.store import Store
from kdbench.records import files as records
from kdbench.records import provenance, recorded
from kdbench.records.files import Record
from kdbench.runs import run
from kdbench.runs.request import Request
from kdbench.specs import registry
from kdbench.specs.config import run_config
from kdbench.sweep.known import Known
from kdbench.sweep.plan import RECORDED, Asked, plan

TASK = "digits/few-shot"
CPU = torch.device("cpu")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def said() -> Said:
    return Said()


def evaluate(
    home: Home, said: Said, method: str, *overrides: str, seed: int = 0, task: str = TASK, **more: Any
) -> Record:
    config = run_config(method, task, overrides, smoke=True)
    return run.run_seed(Request(config, seed, CPU, home, overhead="off", progress=said, **more))


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """From then on a method's code has another digest."""

    def edit(name: str) -> None:
        before = sourcecode.method_digest
        monkeypatch.setattr(
            sourcecode, "method_digest", lambda asked: "f" * 64 if asked == name else before(asked)
        )  # fmt: skip

    return edit


# --- weights


def test_weights_are_known_by_content_not_by_name(home: Home, said: Said, tmp_path: Path) -> None:
    evaluate(home, said, "kd")
    (trained,) = [path for path in home.teachers.iterdir() if path.is_dir()]
    state = load_file(trained / "weights.safetensors")
    for name, factor in (("good", 1.0), ("bad", -1.0)):
        (tmp_path / name).mkdir()
        save_file({key: value * factor if key.startswith("fc") else value for key, value in state.items()},
                  tmp_path / name / "teacher.safetensors")  # fmt: skip

    def of(name: str) -> Record:
        words = f"pair.teachers.image.weights={tmp_path / name / 'teacher.safetensors'}"
        return evaluate(home, said, "kd", words, "pair.teachers.image.min_score=0")

    good, bad = of("good"), of("bad")
    assert good.models.teachers[0].weights_sha256 != bad.models.teachers[0].weights_sha256
    assert good.spec_hash == bad.spec_hash
    assert good.run_id != bad.run_id
    assert any("the file of pair.teachers.image.weights changed; running it again" in line for line in said.lines)
    assert (of("good").run_id, of("bad").run_id) == (good.run_id, bad.run_id)  # each answers for itself
    (tmp_path / "good" / "teacher.safetensors").write_bytes((tmp_path / "bad" / "teacher.safetensors").read_bytes())
    assert of("good").run_id == bad.run_id  # it is the same teacher now
    with Store.memory(home.records) as store:
        assert [cell["n"] for cell in store.cells(custom=True)] == [1, 1]
    with pytest.raises(UserError, match=r"no weights at .*gone\.safetensors"):
        evaluate(home, said, "kd", f"pair.teachers.image.weights={tmp_path / 'gone.safetensors'}")


# --- code


def test_an_edited_method_runs_again_and_says_why(home: Home, said: Said, edited: Callable[[str], None]) -> None:
    first = evaluate(home, said, "kd")
    plain = evaluate(home, said, "plain")
    assert said.lines == []
    assert evaluate(home, said, "kd") == first
    assert "from a record of" in said.lines[-1]
    assert "--force runs it again" in said.lines[-1]
    edited("kd")
    second = evaluate(home, said, "kd")
    assert second.run_id != first.run_id
    assert "the code of kd changed; running it again" in said.lines[-1]
    assert second.identity is not None
    assert second.identity.code == {"kd": "1.0.0+ffffffffffffffff"}
    assert evaluate(home, said, "kd") == second
    assert evaluate(home, said, "plain") == plain  # other methods are as they were
    assert evaluate(home, said, "kd", seed=1).run_id not in {first.run_id, second.run_id}
    with Store.memory(home.records) as store:
        cells = {tuple(cell["seeds"]): cell["current"] for cell in store.cells(method="kd")}
    assert cells == {(0,): False, (0, 1): True}  # the edited method's seeds are a cell of their own, and the newer one


def test_an_edited_inner_method_is_an_edited_method(home: Home, said: Said, edited: Callable[[str], None]) -> None:
    config = run_config("cgan_kd+kd", TASK, smoke=True)
    before = identity.of(config)
    edited("kd")
    assert before.code == {"cgan_kd": "1.0.0", "kd": "1.0.0"}
    assert identity.of(config).code == {"cgan_kd": "1.0.0", "kd": "1.0.0+ffffffffffffffff"}


def test_a_mended_bug_is_no_longer_not_applicable(
    home: Home, said: Said, monkeypatch: pytest.MonkeyPatch, edited: Callable[[str], None]
) -> None:
    from kdbench.contract import NotApplicable
    from kdbench.methods.kd.adapter import KD

    def never(self: Any, *_: Any) -> None:
        raise NotApplicable("my bug")

    with monkeypatch.context() as patch:
        patch.setattr(KD, "__init__", never)
        assert evaluate(home, said, "kd").status == "not_applicable"
    asked = Asked(("kd",), (TASK,), home, seeds=(0,), smoke=True)

    def planned() -> tuple[Any, ...]:
        (cell,) = plan(asked, Known.read(home, True, lambda name: True), ["kd"])
        return cell.seeds, [skip.why for skip in cell.skipped]

    assert planned() == ((), ["does not apply: my bug"])
    edited("kd")
    assert planned() == ((0,), [])
    assert evaluate(home, said, "kd").status == "ok"
    assert planned() == ((), [RECORDED])


def test_a_raised_version_runs_again(home: Home, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluate(home, said, "kd")
    card = registry.card("kd").model_copy(update={"version": "1.1.0"})
    monkeypatch.setattr(registry, "methods", lambda: {"kd": registry.MethodRef("kd", card, "kdbench.methods.kd")})
    second = evaluate(home, said, "kd")
    assert second.run_id != first.run_id
    assert second.method.adapter_version == "1.1.0"
    assert "the version of kd (1.0.0, now 1.1.0) changed" in said.lines[-1]


def test_a_killed_run_of_other_code_starts_anew(
    home: Home, said: Said, monkeypatch: pytest.MonkeyPatch, edited: Callable[[str], None]
) -> None:
    from kdbench.engine.trainer import Trainer

    class Killed(BaseException):
        pass

    def killed(self: Any, *_: Any) -> None:
        raise Killed

    def left() -> str:
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_point", killed)
            with pytest.raises(Killed):
                evaluate(home, said, "kd", checkpoint_seconds=0.0)
        (facts,) = home.runs.glob("*/run.json")
        return str(json.loads(facts.read_text())["run_id"])

    first = left()
    assert left() == first  # the same code goes on
    edited("kd")
    second = left()
    assert second != first
    assert "starting it anew" in said.lines[-1]
    assert evaluate(home, said, "kd").run_id == second


def test_a_repeat_that_was_forced_does_not_count_and_says_so(home: Home, said: Said) -> None:
    first = evaluate(home, said, "kd")
    again = evaluate(home, said, "kd", force=True)
    assert again.run_id != first.run_id
    assert f"({first.run_id[:8]}) counts, a repeat never replaces it" in said.lines[-1]
    assert evaluate(home, said, "kd") == first


def test_records_of_another_machine_count_and_withdrawn_ones_do_not(home: Home, said: Said, tmp_path: Path) -> None:
    first = evaluate(home, said, "plain")
    other = Home(tmp_path / "other")
    shutil.copytree(home.records, other.records / "copied" / "deep")
    assert evaluate(other, said, "plain") == first
    records.withdraw(other.records / "copied" / "deep" / f"{first.run_id}.json", "a mistake")
    recorded._seen.clear()
    assert evaluate(other, said, "plain").run_id != first.run_id


# --- data


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of pictures, and a task ``own`` on them, known as a plug-in's would be."""
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", 12), ("test", 6)):
        for label, name in enumerate(("ant", "cat")):
            folder = tmp_path / "data" / "own" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise = torch.randint(0, 80, (8, 8), generator=generator, dtype=torch.uint8)
                Image.fromarray((noise + 150 * label).to(torch.uint8).numpy()).save(folder / f"{number}.png")
    (tmp_path / "plug" / "own_sets").mkdir(parents=True)
    (tmp_path / "plug" / "own_tasks").mkdir()
    described = {
        "title": "Own", "folders": ["own"], "licence": "none", "megabytes": 0.1,
        "inputs": {
            "image": {"kind": "image", "column": "image", "size": 8, "channels": 1, "mean": [0.4], "std": [0.3]}
        },
        "label": {"column": "label", "classes": 2},
    }  # fmt: skip
    (tmp_path / "plug" / "own_sets" / "own.yaml").write_text(yaml.safe_dump(described))
    task = yaml.safe_load(registry.task_files()[TASK].read_text())
    task |= {"title": "Own", "suite": "own", "ranked": False, "unranked_because": "it is a test"}
    task["data"] = {"source": "own", "augment": []}
    task["train"]["epochs"], task["train"]["batch"] = 2, 8
    task["pair"]["teachers"]["image"].pop("min_score", None)
    task["pair"]["teachers"]["image"]["train"] = {"epochs": 2}
    (tmp_path / "plug" / "own_tasks" / "own.yaml").write_text(yaml.safe_dump(task))
    folders = {plugins.SETS: (tmp_path / "plug" / "own_sets",), plugins.TASKS: (tmp_path / "plug" / "own_tasks",)}
    monkeypatch.setattr(plugins, "folders", lambda group: folders.get(group, ()))
    forget()
    return tmp_path


def forget() -> None:
    """The registry looks again."""
    for cached in CACHES:
        if hasattr(cached, "cache_clear"):  # else it is patched
            cached.cache_clear()


@pytest.fixture(autouse=True)
def _own_registry() -> Any:
    yield
    forget()


def describe(pictures: Path, **changed: Any) -> None:
    path = pictures / "plug" / "own_sets" / "own.yaml"
    spec = yaml.safe_load(path.read_text())
    spec["inputs"]["image"] |= changed
    path.write_text(yaml.safe_dump(spec))
    forget()


def on_own(pictures: Path, home: Home, said: Said, method: str = "kd", seed: int = 0) -> Record:
    config = run_config(method, "own")
    return run.run_seed(Request(config, seed, CPU, home, pictures / "data", overhead="off", progress=said))


def test_other_rows_are_another_run_another_teacher_and_another_cell(pictures: Path, home: Home, said: Said) -> None:
    first = on_own(pictures, home, said)
    assert on_own(pictures, home, said) == first
    for path in sorted((pictures / "data" / "own" / "train" / "ant").iterdir())[:5]:
        path.rename(path.parent.parent / "cat" / f"moved-{path.name}")
    second = on_own(pictures, home, said)
    assert second.run_id != first.run_id
    assert any("the data changed; running it again" in line for line in said.lines)
    other = on_own(pictures, home, said, seed=1)
    assert first.models.teachers[0].weights_sha256 != second.models.teachers[0].weights_sha256
    assert second.models.teachers[0].weights_sha256 == other.models.teachers[0].weights_sha256
    with Store.memory(home.records) as store:
        cells = {tuple(cell["seeds"]): cell["current"] for cell in store.cells(method="kd")}
    assert cells == {(0,): False, (0, 1): True}


@pytest.mark.parametrize("changed", [{"mean": [0.0]}, {"std": [0.05]}], ids=["mean", "std"])
def test_other_normalisation_is_another_run_and_another_teacher(
    pictures: Path, home: Home, said: Said, changed: dict[str, Any]
) -> None:
    first = on_own(pictures, home, said)
    describe(pictures, **changed)
    second = on_own(pictures, home, said)
    assert second.run_id != first.run_id
    assert first.models.teachers[0].weights_sha256 != second.models.teachers[0].weights_sha256
    assert [used.sha256 for used in first.task.data] == [used.sha256 for used in second.task.data]
    plain = on_own(pictures, home, said, "plain")
    with Store.memory(home.records) as store:
        pairs = {(d["run_id"], d["reference_run_id"]) for d in store.deltas() if d["reference"] == "plain"}
    assert (second.run_id, plain.run_id) in pairs
    assert (first.run_id, plain.run_id) not in pairs


def test_a_record_of_other_data_gets_no_verdict(pictures: Path, home: Home, said: Said) -> None:
    from kdbench.runs import verify

    record = on_own(pictures, home, said, "plain")
    assert verify.replay(record, home, pictures / "data", said).passed
    describe(pictures, std=[0.05])
    for check in (
        lambda: verify.replay(record, home, pictures / "data", said),
        lambda: verify.rerun(record, None, [], home, pictures / "data", said),
        lambda: verify.rescore(record, home.students / f"{record.run_id}.safetensors", home, pictures / "data", said),
    ):
        with pytest.raises(UserError, match=r"no verdict, for the data here .* are not the record's"):
            check()


# --- provenance


def test_a_file_that_no_commit_holds_makes_the_tree_dirty(tmp_path: Path) -> None:
    import subprocess

    def git(*words: str) -> None:
        own = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
        subprocess.run(["git", "-C", str(tmp_path), *own, *words], check=True, capture_output=True)

    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "kd.py").write_text("x = 1\n")
    (tmp_path / ".gitignore").write_text("*.log\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "all")
    state = lambda: provenance._state(tmp_path, ("methods",)).dirty  # noqa: E731
    assert not state()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "methods" / "a.log").touch()
    assert not state()
    (tmp_path / "methods" / "mine.py").touch()
    assert state()
    (tmp_path / "methods" / "mine.py").unlink()
    (tmp_path / "methods" / "kd.py").write_text("x = 2\n")
    assert state()


@pytest.mark.slow
def test_a_plugins_method_is_named_and_an_edit_of_it_is_seen(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert kdbench(home, "new", "method", "mine", "--standalone", "--to", str(tmp_path / "pk")).returncode == 0
    from plugged import metadata

    folder = metadata(tmp_path / "pk")
    words = ("evaluate", "-m", "mine", "-t", TASK, "--seed", "0", "--smoke", "--overhead", "off", "--json")
    first = kdbench(home, *words, folders=(folder,))
    assert first.returncode == 0, first.stderr
    (one,) = (home / "records").glob("*.json")
    used = json.loads(one.read_text())["provenance"]["plugins"]
    assert [(entry["version"], entry["dirty"]) for entry in used] == [("1.0.0", True)]
    assert len(list((home / "records").glob("*.json"))) == 1
    again = kdbench(home, *words, folders=(folder,))
    assert "from a record of" in again.stderr
    (adapter,) = folder.rglob("adapter.py")
    adapter.write_text(adapter.read_text().replace("T^2", "T^2, weighted").replace("hp.weight *", "2 * hp.weight *"))
    third = kdbench(home, *words, folders=(folder,))
    assert "the code of mine changed; running it again" in third.stderr
    assert len(list((home / "records").glob("*.json"))) == 2
