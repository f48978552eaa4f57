"""The command line as a person uses it: names, tables, exit codes, and one line for whatever is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdbench import cli

SMOKE = ("evaluate", "--task", "digits/few-shot", "--smoke", "--overhead", "off", "--device", "cpu")


class Ran:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def line(self) -> str:
        """The one line on stderr."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        return lines[0]


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command line in this process."""

    def call(*words: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["kdbench", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return Ran(stop.value.code or 0, captured.out, captured.err)

    return call


@pytest.mark.parametrize(
    "words",
    [
        ("records", "export", "{file}", "--out", "{home}"),
        ("records", "export", "{file}/tables", "--out", "{home}"),
        ("submit", "{home}/records", "--to", "{file}", "--out", "{home}"),
        ("new", "net", "mine", "--to", "{file}"),
        ("new", "net", "mine", "--to", "{file}/below"),
        ("new", "method", "mine", "--standalone", "--to", "{file}"),
        ("new", "method", "mine", "--standalone", "--to", "{file}/below"),
        ("site", "build", "--out", "{file}"),
        ("results", "--out", "{file}"),
    ],
)
def test_a_file_in_the_place_of_a_folder_is_one_line(words, run, tmp_path):
    """Whatever tries to make a folder of it."""
    taken, home = tmp_path / "taken", tmp_path / "home"
    taken.write_text("mine")
    (home / "records").mkdir(parents=True)
    found = run(*(word.format(file=taken, home=home) for word in words))
    assert (found.code, taken.read_text()) == (2, "mine")
    assert str(taken) in found.line or "no record" in found.line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("evaluate", "-m", "reviwkd", "-t", "digits"), "did you mean 'reviewkd'"),
        (("evaluate", "-m", "kd", "-t", "digits/fewshot"), "did you mean 'digits/few-shot'"),
        (("evaluate", "-m", "kd", "-t", "digits", "train.epoch=3"), "did you mean 'train.epochs'"),
        (("evaluate", "-m", "kd", "-t", "digits", "method.temprature=3"), "did you mean 'method.temperature'"),
        (("evaluate", "-m", "kd", "-t", "digits", "method.temperature=0"), "must be above 0"),
        (("evaluate", "-m", "kd", "-t", "digits", "train.epochs=-3"), "train.epochs"),
        (("evaluate", "-m", "kd", "-t", "digits", "train.epochs=many"), "train.epochs"),
        (("evaluate", "-m", "kd", "-t", "digits", "+train.x=1"), "only key=value"),
        (("evaluate", "-m", "kd", "-t", "digits", "~train"), "only key=value"),
        (("evaluate", "-m", "kd", "-t", "digits", "train.optimizer.lr@x=1"), "moved (@)"),
        (("evaluate", "-m", "kd", "-t", "digits", "train.epochs=1,2"), "--seeds"),
        (("evaluate", "-m", "kd", "-t", "digits", "train.epochs=range(1,3)"), "--seeds"),
        (("evaluate", "-m", "kd", "-t", "digits", "method=reviewkd"), "is a group"),
        (("evaluate", "-m", "kd", "-t", "digits", "train={epochs:1}"), "one by one"),
        (("evaluate", "-m", "kd", "-t", "digits", "hydra.run.dir=/tmp/x"), "no key 'hydra.run.dir'"),
        (("evaluate", "-m", "kd", "-t", "digits", "method.temperature=${oc.env:HOME}"), "environment"),
        (("evaluate", "-m", "kd", "-t", "digits", "nonsense"), "key=value"),
        (("evaluate", "-m", "kd", "-t", "digits", "--seeds", "a-b"), "not a number"),
        (("evaluate", "-m", "kd", "-t", "digits", "--seeds", "4-0"), "backwards"),
        (("evaluate", "-m", "kd", "-t", "digits", "--seeds", "1,1"), "twice"),
        (("evaluate", "-m", "kd", "-t", "digits", "--seed", "-1"), "--seed"),
        (("evaluate", "-m", "kd", "-t", "digits", "--seed", "1", "--seeds", "1-2"), "not both"),
        (("evaluate", "-m", "kd", "-t", "digits", "--device", "gpu"), "auto, cpu, cuda"),
        (("evaluate", "-m", "kd", "-t", "digits", "--overhead", "all"), "--overhead"),
        (("evaluate", "-m", "kd", "-t", "digits", "--data", "/nowhere/at/all"), "does not exist"),
        (("evaluate", "-m", "kd", "-t", "digits", "--out", "/proc/kdbench"), "cannot write to /proc/kdbench"),
        (("evaluate", "-m", "kd"), "--task"),
        (("evaluate", "-m", "kd", "--method", "dkd", "-t", "digits"), "--method is given 2 times"),
        (("evaluate", "-m", "kd", "-t", "digits", "--seed", "0", "--seed", "0"), "--seed is given 2 times"),
        (("sweep", "-m", "kd", "-m", "dkd", "-t", "digits"), "--methods is given 2 times"),
        (("tune", "-m", "kd", "-t", "digits", "-t", "digits/angle"), "is given 2 times"),
        (("list", "tasks", "--data", "/a", "--data", "/b"), "--data is given 2 times"),
        (("evalute",), "evaluate"),
        (("show",), "kdbench show takes method, task"),
        (("show", "digits/few-shot"), "kdbench show takes method, task"),
        (("show", "methd", "kd"), "Did you mean 'method'?"),
        (("show", "--methd"), "No such option"),
        (("show", "method", "kdd"), "did you mean 'kd'"),
        (("show", "task", "digit"), "did you mean 'digits'"),
        (("results", "--task", "digit"), "did you mean 'digits'"),
        (("results",), "no records"),
        (("records", "validate", "/nowhere"), "does not exist"),
        (("verify", "/nowhere.json"), "no such file"),
        (("verify", "zzz"), "no runs in"),
        (("compare", "kd", "kdd"), "did you mean 'kd'"),
        (("check", "kdd"), "did you mean 'kd'"),
        (("check",), "--all"),
        (("overhead", "-m", "kd", "-t", "digits/angle"), "regression"),
        (("site", "build", "--records", "/nowhere"), "no records"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, words, said):
    ran = run(*words)
    assert ran.code == 2
    assert ran.line.startswith("kdbench: ")
    assert said in ran.line


def test_an_option_that_holds_several_may_be_repeated(run):
    ran = run(*SMOKE, "--method", "kd", "--local", "/nowhere/a", "--local", "/nowhere/b", "-v", "-v")
    assert "/nowhere/a" in ran.line


def test_cuda_absent_is_said(run):
    import torch

    if torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    ran = run("evaluate", "-m", "kd", "-t", "digits", "--device", "cuda")
    assert ran.code == 2
    assert "no CUDA device" in ran.line


def test_read_only_home_is_refused_before_any_work(run, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root writes anywhere; /proc stands in above")
    tmp_path.chmod(0o500)
    ran = run("evaluate", "-m", "kd", "-t", "digits", "--out", str(tmp_path / "home"))
    assert ran.code == 2
    assert "cannot write" in ran.line


def test_evaluate_prints_score_and_record(run, tmp_path):
    ran = run(*SMOKE, "-m", "kd", "--seeds", "0-1", "--out", str(tmp_path))
    assert ran.code == 0
    assert "kd" in ran.out
    assert "top1" in ran.out
    assert "2 records in" in ran.out
    assert len(list((tmp_path / "records").glob("*.json"))) == 2
    again = run(*SMOKE, "-m", "kd", "--seeds", "0-1", "--out", str(tmp_path))
    assert again.code == 0
    assert len(list((tmp_path / "records").glob("*.json"))) == 2  # nothing runs twice
    forced = run(*SMOKE, "-m", "kd", "--seed", "0", "--force", "--out", str(tmp_path))
    assert forced.code == 0
    assert len(list((tmp_path / "records").glob("*.json"))) == 3


def test_evaluate_as_json(run, tmp_path):
    ran = run(*SMOKE, "-m", "plain", "--seed", "0", "--out", str(tmp_path), "--json")
    found = json.loads(ran.out)
    assert found["rows"][0]["method"] == "plain"
    assert found["rows"][0]["marks"] == ["smoke"]
    assert Path(found["records"][0]).is_file()


def test_not_applicable_is_recorded_with_its_reason_and_exits_3(run, tmp_path):
    words = ("evaluate", "-m", "kd", "-t", "digits/angle", "--overhead", "off", "--out", str(tmp_path))
    ran = run(*words, "--device", "cpu")
    assert ran.code == 3
    assert "regression" in ran.err
    (path,) = (tmp_path / "records").glob("*.json")
    record = json.loads(path.read_text())
    assert record["status"] == "not_applicable"
    assert "regression" in record["error"]["message"]


def test_overrides_mark_the_record_custom(run, tmp_path):
    ran = run(*SMOKE, "-m", "kd", "--seed", "0", "--out", str(tmp_path), "method.temperature=2")
    assert ran.code == 0
    (path,) = (tmp_path / "records").glob("*.json")
    record = json.loads(path.read_text())
    assert record["custom"] is True
    assert record["method"]["params"]["temperature"] == 2.0


def test_locked_index_costs_a_warning_and_nothing_else(run, tmp_path):
    import duckdb

    holder = "import duckdb, sys, time; c = duckdb.connect(sys.argv[1]); print('held', flush=True); time.sleep(60)"
    index = tmp_path / "index.duckdb"
    duckdb.connect(str(index)).close()
    index.unlink()
    process = subprocess.Popen([sys.executable, "-c", holder, str(index)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "held"
        ran = run(*SMOKE, "-m", "plain", "--seed", "0", "--out", str(tmp_path))
        began = time.monotonic()
        looked = run("results", "--out", str(tmp_path))
    finally:
        process.kill()
        process.wait()
    assert ran.code == 0
    assert "records ingest" in ran.err
    assert "plain" in ran.out
    assert looked.code == 0
    assert "plain" in looked.out
    assert f"process {process.pid}): the records themselves are read" in looked.err
    assert time.monotonic() - began < 20
    assert len(list((tmp_path / "records").glob("*.json"))) == 1
    assert run("records", "ingest", "--out", str(tmp_path)).code == 0


def test_index_that_is_no_duckdb_file_is_set_aside_and_made_again(run, tmp_path):
    content = "not a database, whatever its name says" * 200
    (tmp_path / "index.duckdb").write_text(content)
    ran = run(*SMOKE, "-m", "plain", "--seed", "0", "--out", str(tmp_path))
    assert ran.code == 0
    (said,) = [line for line in ran.err.splitlines() if "index.duckdb" in line]
    assert "damaged, set aside as index.duckdb.damaged-" in said
    assert "made again from the records" in said
    (aside,) = tmp_path.glob("index.duckdb.damaged-*")
    assert aside.read_text() == content
    assert "plain" in run("results", "--out", str(tmp_path)).out


def test_broken_records_are_named(run, tmp_path):
    assert run(*SMOKE, "-m", "plain", "--seed", "0", "--out", str(tmp_path)).code == 0
    (path,) = (tmp_path / "records").glob("*.json")
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    ran = run("records", "validate", str(tmp_path / "records"))
    assert ran.code == 1
    assert path.name in ran.out
    path.write_text(text.replace('"schema_version": 1', '"schema_version": 99'))
    assert "newer" in run("records", "validate", str(path)).out


def listed_and_shown(run, what, every):
    table, names = run("list", f"{what}s").out, json.loads(run("list", f"{what}s", "--json").out)
    assert [name for name in names if name not in table] == []
    assert [name for name in list(names)[::every] if run("show", what, name).code != 0] == []


@pytest.mark.parametrize("what", ["method", "task"])
def test_list_prints_all_and_show_some(run, what):
    listed_and_shown(run, what, every=10)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["method", "task"])
def test_show_prints_all(run, what):
    listed_and_shown(run, what, every=1)


def test_a_task_names_its_test_sets_from_elsewhere_and_those_left_out(run, tmp_path, monkeypatch):
    monkeypatch.delenv("KDBENCH_DATA", raising=False)
    shown = run("show", "task", "digits/few-shot", "--out", str(tmp_path)).out
    assert "scored elsewhere too, turned: rotate 20" in shown
    assert "left out: mnist is not at hand (ylecun/mnist on the hub)" in " ".join(shown.split())
    assert "score.external" not in shown, "no key of a run"
    (tmp_path / "mnist").mkdir()
    for part in ("train", "test"):
        (tmp_path / "mnist" / f"{part}.parquet").touch()
    assert "left out" not in run("show", "task", "digits/few-shot", "--data", str(tmp_path)).out


@pytest.mark.parametrize(
    "words", [("--help",), ("--version",), ("list", "methods"), ("list", "tasks"), ("show", "method", "kd")]
)
def test_quick_commands_import_no_torch(words):
    code = (
        f"import sys; sys.argv = ['kdbench', *{words!r}]\n"
        "from kdbench import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'timm', 'datasets', 'scipy.stats', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_pipe_gets_no_bars_and_no_escape_codes(run, tmp_path):
    ran = run(*SMOKE, "-m", "plain", "--seed", "0", "--out", str(tmp_path))
    assert ran.code == 0, ran.err
    assert "\x1b" not in ran.out + ran.err
    assert ran.line  # of the finished run


def test_doctor_finds_this_machine_fit(run, tmp_path):
    ran = run("doctor", "--out", str(tmp_path))
    assert ran.code == 0
    assert "torch" in ran.out
    assert "registry" in ran.out


def test_export_writes_tables(run, tmp_path):
    assert run(*SMOKE, "-m", "plain", "--seed", "0", "--out", str(tmp_path)).code == 0
    ran = run("records", "export", str(tmp_path / "tables"), "--out", str(tmp_path))
    assert ran.code == 0
    assert sorted(p.name for p in (tmp_path / "tables").iterdir()) == ["runs.csv", "runs.parquet"]


def test_a_disk_that_fills_up_is_one_line_and_loses_nothing(run, tmp_path, monkeypatch):
    assert run(*SMOKE, "-m", "plain", "--seed", "0", "--out", str(tmp_path)).code == 0

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kdbench.base.files.os.fsync", full)
    ran = run(*SMOKE, "-m", "plain", "--seed", "1", "--out", str(tmp_path))
    assert ran.code == 2
    assert "No space left on device" in ran.err
    assert "Traceback" not in ran.err
    monkeypatch.undo()
    assert run(*SMOKE, "-m", "plain", "--seeds", "0-1", "--out", str(tmp_path)).code == 0
    assert len(list((tmp_path / "records").glob("*.json"))) == 2


def test_an_interrupt_is_one_line_and_exit_code_130(run, monkeypatch):
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kdbench.specs.registry.method", interrupted)
    ran = run("show", "method", "kd")
    assert ran.code == 130
    assert "interrupted" in ran.line
