"""Trackers of other people: told of a run, never part of it."""

from __future__ import annotations

import importlib
import importlib.util
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from said import Said
from watched import point

from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.records.files import Record
from kdbench.runs import run
from kdbench.runs.request import Request
from kdbench.specs.config import run_config
from kdbench.watch import trackers
from kdbench.watch.libraries import About
from kdbench.watch.trackers import TRACKERS, Library, Tracking, require

TOLD: list[tuple[str, int, dict[str, float]]] = []


class Nosy:
    """Hears everything, and draws from every generator that training could share."""

    def __init__(self, about: About) -> None:
        self.about = about

    def log(self, values: Mapping[str, float], step: int) -> None:
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(0)
        TOLD.append((self.about.key, step, dict(values)))

    def close(self, ok: bool) -> None:
        TOLD.append((self.about.key, -int(ok), {}))


class Broken(Nosy):
    """Fails at its second point."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        super().log(values, step)
        if len(TOLD) == 2:
            raise ConnectionError("no server here")


@pytest.fixture(autouse=True)
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    TOLD.clear()
    monkeypatch.setitem(TRACKERS, "nosy", Library(Nosy, ()))
    monkeypatch.setitem(TRACKERS, "broken", Library(Broken, ()))


def about(folder: Path, key: str = "abc123") -> About:
    return About("kd_digits_seed0", key, {"method": "kd", "seed": 0, "params.T": 4.0, "params.none": None}, folder)


def trained(home: Home, *track: str, said: Said | None = None) -> Record:
    config = run_config("kd", "digits/few-shot", ["smoke.epochs=3"], smoke=True)
    return run.run_seed(
        Request(
            config, 0, torch.device("cpu"), home, overhead="off", force=True, track=track, progress=said or Said()
        )
    )  # fmt: skip


def decided(record: Record) -> tuple[object, ...]:
    """All of a record that a tracker must not change."""
    assert record.deploy is not None
    curve = [point.model_dump(exclude={"elapsed_s"}) for point in record.curve]
    return record.spec_hash, record.identity, record.metrics, record.digest, record.deploy, curve


def test_no_tracker_changes_a_record_and_a_failing_one_loses_no_run(tmp_path: Path) -> None:
    home = Home(tmp_path)
    alone = decided(trained(home))
    nosy = trained(home, "nosy")
    assert decided(nosy) == alone
    assert nosy.provenance.command == trained(home).provenance.command
    (first, *_, last, closed) = TOLD
    assert first[:2] == (nosy.run_id, 2)
    assert {"distill/loss", "distill/loss/ce", "distill/loss/kd", "distill/lr", "distill/epoch"} <= set(first[2])
    assert first[2]["distill/score/top1"] == nosy.curve[0].val["top1"]
    assert last == (nosy.run_id, 6, {f"final/{name}": value for name, value in nosy.metrics.last.items()})
    assert closed == (nosy.run_id, -1, {})
    TOLD.clear()
    said = Said()
    assert decided(trained(home, "broken", said=said)) == alone
    (line,) = [line for line in said.lines if "tracking" in line]
    assert line.startswith("tracking with broken failed: no server here")
    assert len(TOLD) == 2


def test_a_run_that_goes_on_tells_no_point_twice(tmp_path: Path) -> None:
    tracking = Tracking(["nosy"], about(tmp_path), heard=2, say=print)
    for number in range(4):
        tracking.point(number, point(run_step=number))
    tracking.close()
    assert [step for _, step, _ in TOLD] == [2, 3, 0]


def test_a_tracker_that_is_not_known_or_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"--track 'tensorbord' is not known \(did you mean 'tensorboard'\?\); use"):
        require(["tensorbord"])
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--track wandb needs wandb: pip install 'kdbench\[track\]'"):
        require(["wandb"])
    assert require(["nosy", "nosy"]) == ("nosy",)


@pytest.mark.parametrize("verb", ["evaluate", "sweep"])
def test_the_command_ends_before_it_trains(tmp_path: Path, verb: str) -> None:
    words = [
        sys.executable,
        "-m",
        "kdbench",
        verb,
        "-m",
        "kd",
        "-t",
        "digits/few-shot",
        "--track",
        "wndb",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "kdbench: --track 'wndb' is not known (did you mean 'wandb'?); use tensorboard, wandb, mlflow"
    ]
    assert not list(tmp_path.iterdir())


def library(name: str) -> pytest.MarkDecorator:
    missing = [one for one in TRACKERS[name].modules if importlib.util.find_spec(one) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed (extra 'track')")


def tell(name: str, folder: Path) -> None:
    """A run of two points that was killed after the first."""
    failed: list[str] = []
    first = Tracking([name], about(folder), 0, failed.append)
    first.point(0, point(run_step=20, loss=0.75))
    first.close()
    second = Tracking([name], about(folder), 1, failed.append)
    second.point(0, point(run_step=20, loss=0.75))
    second.point(1, point(run_step=40, loss=0.5))
    second.end({"top1": 83.1}, 40)
    assert failed == []


@library("tensorboard")
def test_tensorboard_reads_the_events_back(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tell("tensorboard", tmp_path)
    read = EventAccumulator(str(tmp_path / "tensorboard" / "kd_digits_seed0"))
    read.Reload()
    assert [(e.step, e.value) for e in read.Scalars("distill/loss")] == [(20, 0.75), (40, 0.5)]
    assert read.Scalars("final/top1")[0].value == pytest.approx(83.1)


@library("wandb")
@pytest.mark.slow
def test_wandb_writes_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    tell("wandb", tmp_path)
    import wandb

    wandb.teardown()  # its service writes when it ends
    written = list((tmp_path / "wandb").glob("wandb/offline-run-*/run-abc123.wandb"))
    assert written
    assert any(b"distill/loss" in path.read_bytes() for path in written)
    assert any(b"final/top1" in path.read_bytes() for path in written)


@library("mlflow")
@pytest.mark.slow
def test_mlflow_reads_its_file_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tell("mlflow", tmp_path)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("kdbench").experiment_id])
    history = client.get_metric_history(found.info.run_id, "distill/loss")
    assert [(m.step, m.value) for m in history] == [(20, 0.75), (40, 0.5)]
    assert found.info.status == "FINISHED"
    assert found.data.params["params.T"] == "4.0"
    assert found.data.metrics["final/top1"] == 83.1
