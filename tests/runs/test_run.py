"""Whole runs: teacher, student, score, overhead, record; and what a second process makes of a first one's remains."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from said import Said

from kdbench.base import leftovers
from kdbench.base.cache import clear
from kdbench.base.errors import UserError
from kdbench.base.files import sha256_file
from kdbench.base.home import Home
from kdbench.base.leftovers import tidy
from kdbench.base.progress import Progress
from kdbench.devices.backends.cpu import Cpu
from kdbench.engine import teachers
from kdbench.overhead import measure, worker
from kdbench.overhead.timing import QUICK
from kdbench.records.files import Record, load
from kdbench.runs import evaluate as command_line
from kdbench.runs import run
from kdbench.runs.earlier import Begun
from kdbench.runs.evaluate import Command
from kdbench.runs.request import Request
from kdbench.specs.config import run_config
from kdbench.specs.order import ConfigOrder
from kdbench.watch.lines import Silence

CPU = torch.device("cpu")
TASK = "digits/few-shot"


@pytest.fixture
def home(tmp_path) -> Home:
    return Home(tmp_path)


def evaluate(
    home: Home, method: str, *overrides: str, seed: int = 0, task: str = TASK, smoke: bool = True, **more
) -> Record:
    config = run_config(method, task, overrides, smoke=smoke)
    return run.run_seed(Request(config, seed, CPU, home, overhead=more.pop("overhead", "off"), **more))


@pytest.mark.parametrize(
    ("method", "task"), [("kd", TASK), ("reviewkd", TASK), ("plain", "digits/angle"), ("reviewkd", "digits/angle")]
)
def test_a_run_leaves_a_record_and_the_students_weights(home, method, task):
    record = evaluate(home, method, task=task)
    assert record.status == "ok"
    assert record == load(home.records / f"{record.run_id}.json")
    weights = home.students / f"{record.run_id}.safetensors"
    assert sha256_file(weights) == record.deploy.export_sha256
    assert record.deploy.equals_plain
    assert (
        sum(t.numel() for n, t in load_file(weights).items() if "running" not in n and "num_batches" not in n)
        == record.deploy.params
    )
    assert record.digest.steps > 0
    assert record.curve[-1].val[record.task.metric_primary] == record.metrics.last[record.task.metric_primary]
    assert not (home.runs / "x").exists()
    assert [p for p in home.runs.iterdir() if p.is_dir()] == []  # checkpoints go when the record is there


def test_the_teacher_is_trained_once_and_named_by_its_hash(home):
    first, second = evaluate(home, "kd"), evaluate(home, "reviewkd", seed=1)
    assert first.models.teachers[0].weights_sha256 == second.models.teachers[0].weights_sha256
    assert len([p for p in home.teachers.iterdir() if p.is_dir()]) == 1
    assert first.models.teachers[0].training.device_h > 0


def test_a_damaged_teacher_is_set_aside_and_made_again(home):
    first = evaluate(home, "kd")
    (folder,) = [p for p in home.teachers.iterdir() if p.is_dir()]
    (folder / teachers.WEIGHTS).write_bytes(b"rotten")
    said = Said()
    second = evaluate(home, "kd", seed=1, progress=said)
    assert any("set aside" in line for line in said.lines)
    assert second.models.teachers[0].weights_sha256 == first.models.teachers[0].weights_sha256


def test_a_weak_teacher_is_refused(home):
    with pytest.raises(UserError, match=r"scores .* asks for 97.*min_score"):
        evaluate(home, "kd", "pair.teachers.image.train.epochs=1", smoke=False)
    assert not home.records.exists()


def test_a_diverged_run_is_recorded_as_such(home):
    record = evaluate(home, "kd", "train.optimizer.lr=1e30", "train.optimizer.weight_decay=0")
    assert record.status == "diverged"
    assert "not finite" in record.error.message
    assert record.metrics is None


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1125899906842624 bytes"),
    ],
)
def test_a_run_without_enough_memory_is_recorded_as_such(home, monkeypatch, error):
    def greedy(self, batch, at):
        raise error

    monkeypatch.setattr("kdbench.methods.kd.adapter.KD.losses", greedy)
    record = evaluate(home, "kd")
    assert (record.status, record.error.type) == ("oom", type(error).__name__)


def test_a_full_disk_is_no_failure_of_the_method(home, monkeypatch):
    def full(self, batch, at):
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr("kdbench.methods.kd.adapter.KD.losses", full)
    with pytest.raises(OSError, match="No space left"):
        evaluate(home, "kd")
    assert not home.records.exists()
    monkeypatch.undo()
    assert evaluate(home, "kd").status == "ok"


def test_a_failure_is_recorded_without_paths(home, monkeypatch):
    def broken(self, batch, at):
        raise RuntimeError(f"cannot read {Path.home()}/secret")

    monkeypatch.setattr("kdbench.methods.kd.adapter.KD.losses", broken)
    record = evaluate(home, "kd")
    assert record.status == "failed"
    assert record.error.type == "RuntimeError"
    assert str(Path.home()) not in record.error.message
    monkeypatch.undo()
    assert evaluate(home, "kd").status == "ok"  # a failed run may be tried again


@pytest.fixture
def in_process(monkeypatch):
    """Measures in this process and for a moment only: what is tested is what is put together, not how exact it is."""
    monkeypatch.setattr(worker, "QUICK", dataclasses.replace(QUICK, block_s=0.01, warmup_s=0.1, limit_s=0.5))
    monkeypatch.setattr(measure, "_ask", lambda order, answers: answers.read(worker.run(order).text()))


@pytest.mark.usefixtures("in_process")
def test_overhead_is_measured_once_a_cell_and_copied_to_other_seeds(home):
    first = evaluate(home, "reviewkd", overhead="quick")
    block = first.measured
    assert block.measured_by == first.run_id
    assert block.step_ratio > 1.2  # ReviewKD runs the teacher and its fusion modules, far more than plain
    assert block.ci95[0] <= block.step_ratio <= block.ci95[1]
    assert len(block.builds) == 3
    assert block.peak_alloc_mib > block.plain_peak_alloc_mib > 0
    assert block.flops_fwd_bwd > block.plain_flops_fwd_bwd > 0
    assert block.train_only_params > 0
    assert block.frozen_params_loaded == first.models.teachers[0].params
    assert first.deploy.gflops > 0
    assert first.deploy.latency_ms_b1 > 0
    second = evaluate(home, "reviewkd", seed=1, overhead="quick")
    assert second.measured == block
    assert [stage.flops for stage in second.stages] == [stage.flops for stage in first.stages]


@pytest.mark.usefixtures("in_process")
def test_plain_costs_what_plain_costs(home):
    block = evaluate(home, "plain", overhead="quick").measured
    assert block.train_only_params == 0
    assert block.frozen_params_loaded == 0
    assert block.flops_fwd_bwd == block.plain_flops_fwd_bwd
    assert block.peak_alloc_mib == pytest.approx(block.plain_peak_alloc_mib, rel=0.01)


def test_same_seed_same_bits_other_seed_other_bits(tmp_path):
    records = [evaluate(Home(tmp_path / str(i)), "kd", seed=seed) for i, seed in enumerate((0, 0, 1))]
    weights = [record.deploy.export_sha256 for record in records]
    assert weights[0] == weights[1] != weights[2]
    assert records[0].digest == records[1].digest


def test_all_methods_start_from_plains_weights():
    from kdbench.engine.assemble import prepare
    from kdbench.engine.place import RunPlace

    start = {}
    for method in ("plain", "kd", "reviewkd"):
        folder = Path(os.environ["KDBENCH_HOME"])
        prepared = prepare(run_config(method, TASK, smoke=True), 3, RunPlace(CPU, Home(folder), None, folder / "run"))
        start[method] = prepared.method.students[0].state_dict()
    for method in ("kd", "reviewkd"):
        assert all(torch.equal(start["plain"][name], start[method][name]) for name in start["plain"])


CLI = [sys.executable, "-m", "kdbench", "evaluate", "-m", "reviewkd", "-t", TASK, "--seed", "0", "--overhead", "off"]


@pytest.mark.slow
def test_kill_9_loses_nothing_and_changes_no_bit(tmp_path):
    """Killed at several moments, teacher training included, the last start ends as an undisturbed run."""
    calm, stormy = Home(tmp_path / "calm"), Home(tmp_path / "stormy")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "KDBENCH_CHECKPOINT_SECONDS": "0.2"}
    subprocess.run([*CLI, "--out", str(calm.root)], env=env, check=True, capture_output=True, timeout=1500)
    for seconds in (4.0, 6.0, 7.5, 9.0):
        process = subprocess.Popen([*CLI, "--out", str(stormy.root)], env=env, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([*CLI, "--out", str(stormy.root)], env=env, check=True, capture_output=True, timeout=1500)
    (a,), (b,) = calm.records.glob("*.json"), stormy.records.glob("*.json")
    first, second = load(a), load(b)
    assert first.deploy.export_sha256 == second.deploy.export_sha256
    assert first.metrics == second.metrics
    assert first.digest == second.digest


def left_behind(home: Home, name: str, run_id: str, created_at: str) -> Path:
    """The folder of a run that was killed."""
    folder = home.runs / name
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"run_id": run_id, "created_at": created_at}))
    return folder


@pytest.mark.slow
def test_what_a_run_left_that_was_killed_after_its_record_is_tidied_up(home):
    record = evaluate(home, "plain")
    left = left_behind(home, "f" * 32, record.run_id, record.created_at)
    unfinished = left_behind(home, "0" * 32, "1" * 32, record.created_at)
    half_gone = home.runs / ("e" * 32)  # killed while it was removed
    half_gone.mkdir()
    (half_gone / "stage-0.pt").write_bytes(b"x")
    loading = home.runs / "load-1"  # another process has opened a network's file there
    loading.mkdir()
    with FileLock(home.runs / f"{left.name}.lock"):
        tidy(home)
    assert left.is_dir(), "its own process lives"
    tidy(home)
    assert not left.exists()
    assert not half_gone.exists()
    assert unfinished.is_dir(), "it has no record yet"
    assert loading.is_dir(), "it is no run's"


def test_a_runs_folder_goes_with_its_facts_last(tmp_path, monkeypatch):
    left = left_behind(Home(tmp_path), "f" * 32, "1" * 32, "2026-01-01")
    for name in ("a.pt", "z.pt"):
        (left / name).write_bytes(b"x")
    (left / "finetune").mkdir()
    (left / "finetune" / "current.pt").write_bytes(b"x")

    def killed(folder: Path) -> None:
        if folder == left:
            raise KeyboardInterrupt
        clear(folder)

    monkeypatch.setattr(leftovers, "clear", killed)
    with pytest.raises(KeyboardInterrupt):
        leftovers.clear_run(left)
    assert [path.name for path in left.iterdir()] == ["run.json"]


def test_checkpoints_that_nothing_names_are_no_runs(tmp_path):
    home = Home(tmp_path)
    folder = home.runs / ("e" * 32)
    folder.mkdir(parents=True)
    (folder / "current.pt").write_bytes(b"of whom?")
    begun = Begun.of(SimpleNamespace(folder=folder, home=home))
    assert [path.name for path in folder.iterdir()] == ["run.json"]
    assert Begun.of(SimpleNamespace(folder=folder, home=home)) == begun


@pytest.mark.slow
def test_the_same_command_tidies_up_what_a_killed_one_left(home):
    record = evaluate(home, "plain")
    left = left_behind(home, "f" * 32, record.run_id, record.created_at)
    command = Command(ConfigOrder(method="plain", task=TASK, smoke=True), "cpu", home.root)
    command_line.evaluate_seeds(command, seeds=[0], overhead="off", force=False, announce=lambda record: None)
    assert not left.exists()


@pytest.mark.slow
def test_two_processes_train_a_teacher_once(tmp_path):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = ["--out", str(tmp_path), "--overhead", "off", "--smoke", "-t", TASK, "--seed"]
    asked = [
        subprocess.Popen([sys.executable, "-m", "kdbench", "evaluate", "-m", "kd", *words, str(seed)], env=env)
        for seed in range(2)
    ]
    assert [process.wait(timeout=1500) for process in asked] == [0, 0]
    hashes = {
        json.loads(p.read_text())["models"]["teachers"][0]["weights_sha256"]
        for p in Home(tmp_path).records.glob("*.json")
    }
    assert len(hashes) == 1
    assert len([p for p in Home(tmp_path).teachers.iterdir() if p.is_dir()]) == 1


@pytest.mark.slow
def test_a_fresh_process_measures(home):
    block = evaluate(home, "kd", overhead="quick").measured
    assert block.mode == "quick"
    assert 1.2 < block.step_ratio < 6
    assert block.first_step_ms > 0


def command(*words: str, home: Home) -> str:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "kdbench", *words, "--out", str(home.root)],
        env=env, check=True, capture_output=True, text=True, timeout=1500,
    )  # fmt: skip
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compute_matched_plain_trains_as_long_as_the_method_costs(home):
    command("evaluate", "-m", "kd", "-t", TASK, "--seed", "0", "--overhead", "quick", home=home)
    for method in ("plain", "plain@kd"):
        command("evaluate", "-m", method, "-t", TASK, "--seed", "0", "--overhead", "quick", home=home)
    found = {record.method_name: record for record in map(load, home.records.glob("*.json"))}
    plain, matched, kd = found["plain"], found["plain@kd"], found["kd"]
    assert matched.measured.measured_by == plain.run_id  # the same step, only more of them
    assert matched.compute_match.method == "kd"
    assert matched.compute_match.spec_hash == kd.spec_hash
    (stage,) = matched.stages
    assert stage.steps == round(kd.stages[0].steps * matched.compute_match.ratio)
    assert stage.steps > kd.stages[0].steps


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_overhead_alone_trains_no_student_and_writes_no_record(home):
    block = json.loads(command("overhead", "-m", "kd", "-t", TASK, "--overhead", "quick", "--json", home=home))
    assert 1.2 < block["step_ratio"] < 6
    assert not home.records.exists()
    assert [path for path in home.runs.iterdir() if path.is_dir()] == []


def test_a_teacher_of_another_class_count_is_refused(home, tmp_path):
    from safetensors.torch import save_file

    from kdbench import models

    net = models.build("convnet_w32", (1, 8, 8), 7)
    save_file(net.state_dict(), tmp_path / "seven.safetensors")
    with pytest.raises(UserError, match=r"seven\.safetensors.*classifier|seven\.safetensors.*shape"):
        evaluate(home, "kd", f"pair.teachers.image.weights={tmp_path / 'seven.safetensors'}")
    assert not home.records.exists()


def test_a_teacher_from_a_file_is_used_and_its_path_is_not_recorded(home, tmp_path):
    first = evaluate(home, "kd")
    (folder,) = [p for p in home.teachers.iterdir() if p.is_dir()]
    given = tmp_path / "teacher.safetensors"
    given.write_bytes((folder / teachers.WEIGHTS).read_bytes())
    record = evaluate(home, "kd", f"pair.teachers.image.weights={given}")
    assert record.status == "ok"
    assert record.custom
    assert record.models.teachers[0].training is None  # what it cost is not known
    assert record.metrics == first.metrics
    assert str(tmp_path) not in record.model_dump_json()


def test_a_task_of_tiny_nets_has_its_own_threads_and_the_process_keeps_its_own(home):
    import torch

    from kdbench.engine.assemble import threads
    from kdbench.specs import registry

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threads(registry.task("digits/few-shot"), torch.device("cpu")):
            assert torch.get_num_threads() == 1
        with threads(registry.task("cifar100/resnet32x4-resnet8x4"), torch.device("cpu")):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 2
        config = run_config("plain", "digits/few-shot", smoke=True)
        record = run.run_seed(Request(config, 11, torch.device("cpu"), home, overhead="off"))
        assert record.environment.threads == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_command_becomes_a_request_a_seed(tmp_path, monkeypatch):
    asked = []

    def stop(request):
        asked.append(request)
        raise UserError("stop")

    monkeypatch.setattr("kdbench.runs.run.run_seed", stop)
    command = Command(ConfigOrder(method="kd", task=TASK, smoke=True), "cpu", tmp_path)
    monkeypatch.setattr(command_line, "require", tuple)  # whether it is installed here or not
    progress = Progress([Silence()])
    told = {"announce": print, "progress": progress, "track": ["wandb"]}
    with pytest.raises(UserError, match="stop"):
        command_line.evaluate_seeds(command, seeds=[3], overhead="quick", force=True, **told)
    (request,) = asked
    assert request.track == ("wandb",)
    assert (request.config, request.seed) == (run_config("kd", TASK, smoke=True), 3)
    assert (request.overhead, request.force, request.retry) == ("quick", True, True)
    assert request.progress is progress  # its bars are drawn
    assert (progress.runs.label, progress.runs.number, progress.runs.total) == (f"kd on {TASK}, seed 3", 1, 1)


@pytest.mark.parametrize("dead", [True, False])
def test_no_other_seed_is_tried_on_a_device_that_takes_no_more_work(tmp_path, monkeypatch, dead):
    monkeypatch.setattr(
        "kdbench.runs.run.run_seed", lambda request: SimpleNamespace(seed=request.seed, status="failed")
    )
    monkeypatch.setattr(command_line, "ingest", lambda home: None)
    if dead:
        monkeypatch.setattr(Cpu, "synchronize", lambda self, device: broken())
    command = Command(ConfigOrder(method="kd", task=TASK, smoke=True), "cpu", tmp_path)
    told: list[object] = []
    found = command_line.evaluate_seeds(command, seeds=[0, 1], overhead="off", force=False, announce=told.append)
    assert found is not None
    assert len(found.records) == len(told) == (1 if dead else 2)


def broken() -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")
