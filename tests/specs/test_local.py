"""Methods and tasks that are named by a path: found, refused, known in another process, and stated in records."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from as_new import forget
from plugged import kdbench
from sweeps import records

from kdbench import identity
from kdbench.base import plugins
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.records import provenance
from kdbench.records.submit import bundle
from kdbench.scaffold.method import new_method
from kdbench.specs import local, registry
from kdbench.specs.config import run_config
from kdbench.specs.order import ConfigOrder
from kdbench.sweep import names

VARIANT = "\nvariants:\n  mine+twice:\n    about: twice the weight\n    params: {weight: 2.0}\n"
TASK = plugins.package_folder("kdbench.tasks") / "digits" / "few-shot.yaml"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder one stands in, with a method ``mine/`` and a task ``mytask.yaml``."""
    made = new_method("mine", standalone=True, to=tmp_path / "made").folder / "kdbench_mine"
    folder = tmp_path / "a folder"
    shutil.copytree(made, folder / "mine")
    (folder / "mine" / "__init__.py").unlink()
    shutil.copy(TASK, folder / "mytask.yaml")
    monkeypatch.chdir(folder)
    return folder


def test_a_folder_and_a_file_are_a_method_and_a_task(here: Path) -> None:
    assert (local.method("./mine/"), local.task("./mytask.yaml")) == ("mine", "mytask")
    assert local.method(str(here / "mine")) == local.method("mine/") == "mine"
    config = run_config("mine", "mytask")
    assert config.method.ref.adapter().__name__ == "Mine"
    assert config.spec()["task"] == {"name": "mytask", "version": 1}
    assert local.typed(config) == ("./mine/", "./mytask.yaml")


@pytest.mark.parametrize("overrides", [[], ["train.epochs=2", "train.optimizer.lr=0.2"]])
def test_words_of_a_task_may_hold_what_an_override_may_not(here: Path, overrides: list[str]) -> None:
    file = here / "mytask.yaml"
    file.write_text(file.read_text().replace("title: ", "title: of ${none and ??? of ", 1))
    config = run_config("plain", local.task("./mytask.yaml"), overrides)
    assert config.task.title.startswith("of ${none and ???")
    assert bool(config.custom) == bool(overrides)


def test_names_stay_names(here: Path) -> None:
    assert (local.method("kd"), local.task("digits/few-shot")) == ("kd", "digits/few-shot")
    assert (local.method("mine"), local.task("mytask")) == ("mine", "mytask")
    with pytest.raises(UserError, match="unknown method 'mine'"):
        run_config("mine", "digits")
    assert local.used(run_config("kd", "digits")) == ()


def test_what_is_registered_is_known_by_its_path_as_itself(here: Path) -> None:
    assert local.method(f"{plugins.package_folder('kdbench.methods.kd')}/") == "kd"
    assert local.task(str(TASK)) == "digits/few-shot"
    assert local._given == {}


def test_a_variant_lies_in_its_methods_folder(here: Path) -> None:
    with (here / "mine" / "card.yaml").open("a") as card:
        card.write(VARIANT)
    assert local.method("./mine/mine+twice") == "mine+twice"
    config = run_config("mine+twice", "digits")
    assert [one.name for one in local.used(config)] == ["mine"]
    assert local.typed(config) == ("./mine/mine+twice", "digits")
    assert [one.name for one in local.used(run_config("plain@mine", "digits"))] == ["mine"]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("./none/", r"\./none/: no folder"),
        ("./mytask.yaml", "no folder"),
        (".", r"\.: no card\.yaml in it"),
        ("./mine/thrice", "no variant 'thrice'; it has none"),
        ("./half/", r"no adapter\.py in it"),
        ("./kd/", "there is a method 'kd' already; rename the folder"),
        ("./Mine/", "not 'Mine'; rename the folder"),
        ("./other/mine", "there is a method 'mine' already"),
        ("~nobody-of-that-name/mine", "is no path"),
        ("./\0/", "is no path|no folder"),
    ],
)
def test_bad_paths_of_methods_are_one_line(here: Path, path: str, line: str) -> None:
    for name in ("kd", "Mine", "other/mine"):
        shutil.copytree(here / "mine", here / name)
    (here / "half").mkdir()
    shutil.copy(here / "mine" / "card.yaml", here / "half")
    local.method("./mine/")
    with pytest.raises(UserError, match=line) as refused:
        local.method(path)
    assert "\n" not in str(refused.value)
    assert list(registry._added_methods) == ["mine"]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("./none.yaml", "no task file"),
        ("./mine/", "no task file"),
        ("./digits.yaml", "there is a task 'digits' already; rename the file"),
        ("./My Task.yaml", "not 'My Task'; rename the file"),
        ("./a__b.yaml", "without '__'"),
    ],
)
def test_bad_paths_of_tasks_are_one_line(here: Path, path: str, line: str) -> None:
    for name in ("digits", "My Task", "a__b"):
        shutil.copy(TASK, here / f"{name}.yaml")
    with pytest.raises(UserError, match=line):
        local.task(path)
    assert registry._added_tasks == {}


def test_a_card_that_cannot_be_read_leaves_nothing_behind(here: Path) -> None:
    (here / "mine" / "card.yaml").write_text("title: [")
    with pytest.raises(UserError, match=r"card\.yaml"):
        local.method("./mine/")
    assert "mine" not in registry.method_packages()
    assert local._given == {}


def test_no_record_card_or_task_can_name_a_path(here: Path) -> None:
    for text in ("./mine/", str(here / "mine")):
        with pytest.raises(UserError, match="unknown method"):
            run_config(text, "digits")
    with pytest.raises(UserError, match="unknown task"):
        run_config("kd", "./mytask.yaml")


def test_another_process_finds_the_same_and_refuses_what_has_changed(here: Path) -> None:
    local.method("./mine/")
    local.task("./mytask.yaml")
    config = run_config("mine", "mytask")
    order = ConfigOrder.read(ConfigOrder.of(config).text())
    assert [one.said for one in order.given] == ["./mine/", "./mytask.yaml"]
    forget()
    assert order.config() == config
    (here / "mine" / "README.md").write_text("what I think of it")
    assert order.config() == config
    adapter = here / "mine" / "adapter.py"
    was = adapter.read_text()
    adapter.write_text(was + "\n")
    for _ in ("the process that knows it", "a fresh one"):
        with pytest.raises(UserError, match=r"\./mine/ has changed since this was begun"):
            order.config()
        forget()
    local.method("./mine/")  # what this process has imported is not it, whatever lies there now
    adapter.write_text(was)
    with pytest.raises(UserError, match=r"\./mine/ has changed"):
        order.config()
    forget()
    shutil.rmtree(here / "mine")
    with pytest.raises(UserError, match="no folder"):
        order.config()


def test_its_code_is_part_of_a_runs_identity(here: Path) -> None:
    def code() -> str:
        forget()
        return identity.of(run_config(local.method("./mine/"), "digits")).code["mine"]

    first = code()
    assert first.startswith("1.0.0+")
    assert code() == first
    adapter = here / "mine" / "adapter.py"
    adapter.write_text(adapter.read_text() + "# a remark\n")
    assert code() == first
    adapter.write_text(adapter.read_text() + "from .beside import FACTOR\n")
    second = code()
    (here / "mine" / "beside.py").write_text("FACTOR = 2\n")
    third = code()
    assert len({first, second, third}) == 3


def test_a_record_says_whether_a_commit_holds_it(here: Path) -> None:
    def states() -> list[tuple[str, str, bool]]:
        forget()
        config = run_config(local.method("./mine/"), local.task("./mytask.yaml"))
        return [(one.name, one.version, one.code.dirty) for one in provenance.used(config)]

    def git(*words: str) -> None:
        own = ("-c", "user.name=me", "-c", "user.email=me@example.com")
        subprocess.run(["git", *own, *words], check=True, capture_output=True)

    loose = [("./mine/", "1.0.0", True), ("./mytask.yaml", "1", True)]
    assert states() == loose
    git("init")
    git("add", "mytask.yaml")
    git("commit", "-m", "the task")
    assert states() == [("./mine/", "1.0.0", True), ("./mytask.yaml", "1", False)]
    Path(".git/info/exclude").write_text("mine/\n")
    assert states()[0] == loose[0]  # git says nothing of files it ignores
    git("add", "-f", "mine")
    git("commit", "-m", "the method")
    assert [dirty for *_, dirty in states()] == [False, False]
    (here / "mine" / "adapter.py").open("a").write("\n")
    assert states()[0] == loose[0]


def test_a_sweeps_list_takes_paths_in_any_order(here: Path) -> None:
    assert names.method_names("plain@mine, ./mine/, k?") == ["plain@mine", "mine", "kd"]
    assert names.task_names("./mytask.yaml,digits") == ["mytask", "digits"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_local_method_is_run_measured_and_swept_on_a_local_task(here: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    given = ("./mine/", "./mytask.yaml")
    more = ("--smoke", "--overhead", "quick")
    done = kdbench(home.root, "evaluate", "-m", given[0], "-t", given[1], "--seed", "0", *more)
    assert done.returncode == 0, done.stderr
    (record,) = records(home)
    assert (record.method_name, record.task.name, record.status, record.overhead.mode) == (
        "mine", "mytask", "ok", "quick",
    )  # fmt: skip
    assert [used.name for used in record.provenance.plugins] == list(given)
    assert "--method ./mine/ --task ./mytask.yaml" in record.provenance.command
    assert str(here) not in record.model_dump_json()
    assert "not committed" in (record.provenance.unclean or "")
    assert bundle([home.records], tmp_path / "published").added == ()

    joblib = ("--launcher", "joblib", "--jobs", "2", "--device", "cpu")
    words = ("sweep", "-m", f"{given[0]},plain", "-t", given[1], "--seeds", "0-1", *more, *joblib)
    done = kdbench(home.root, *words)
    assert done.returncode == 0, done.stderr
    assert sorted((r.method_name, r.seed, r.status) for r in records(home)) == [
        (method, seed, "ok") for method in ("mine", "plain") for seed in (0, 1)
    ]


@pytest.mark.slow
def test_a_measuring_process_refuses_changed_code_in_one_line(here: Path, tmp_path: Path) -> None:
    from kdbench.overhead import measure
    from kdbench.overhead.order import MeasureOrder, Times

    order = MeasureOrder(
        config=ConfigOrder.of(run_config(local.method("./mine/"), "digits")), seed=0, device="cpu", home=tmp_path,
        data=None, folder=tmp_path / "own", mode="quick", stages=1, gate=False,
    )  # fmt: skip
    (here / "mine" / "more.py").write_text("")
    with pytest.raises(measure.MeasurementFailed) as failed:
        measure._ask(order, Times)
    assert str(failed.value) == (
        "the overhead of mine could not be measured: ./mine/ has changed since this was begun; "
        "give the same command again"
    )
