"""``log.txt`` and ``curves.csv``: whole, in order, each row once."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from watched import point

from kdbench.base.home import Home
from kdbench.engine.stage import StageRun
from kdbench.runs import run
from kdbench.runs.request import Request
from kdbench.specs.config import run_config
from kdbench.watch.files import Curves


class Killed(BaseException):
    """Stands for a signal: no handler may swallow it."""


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_appended_and_a_further_stage_brings_its_terms(tmp_path: Path) -> None:
    curves = Curves(tmp_path / "run" / "curves.csv")
    curves.point(0, point(stage="first", terms={"ce": 0.25}, scores={}))
    curves.point(1, point(stage="second", terms={"kd": 0.5}, loss=0.1 + 0.2))
    assert (tmp_path / "run" / "curves.csv").read_text() == (
        "stage,epoch,step,seconds,lr,loss,loss/ce,loss/kd,score/top1\n"
        "first,3,60,1.500,0.1,0.5,0.25,,\n"
        "second,3,60,1.500,0.1,0.30000000000000004,,0.5,83.1\n"
    )


@pytest.mark.parametrize("torn", ["", "distill,3,60,1.5", "distill,3,60,1.500,0.1,0.5,0.3,0.2,83.1,more\n"])
def test_what_a_killed_run_wrote_too_much_goes(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "curves.csv"
    curves = Curves(path)
    for number in range(3):
        curves.point(number, point(step=number))
    whole = path.read_text()
    path.write_text(whole + torn)
    again = Curves(path)
    assert again.rows == 3 + torn.endswith("\n")
    again.point(3, point(step=3))
    assert [row["step"] for row in rows(path)] == ["0", "1", "2", "3"]
    again = Curves(path)
    again.point(1, point(step=1))  # its checkpoint was older than its rows
    assert [row["step"] for row in rows(path)] == ["0", "1"]


def request(home: Home, **changes: object) -> Request:
    config = run_config("kd", "digits/few-shot", ["smoke.epochs=6"], smoke=True)
    return Request(config, 0, torch.device("cpu"), home, overhead="off", **changes)


def test_curves_are_those_of_the_record_and_a_killed_run_doubles_no_row(tmp_path: Path, monkeypatch) -> None:
    home = Home(tmp_path)
    record = run.run_seed(request(home))
    folder = home.logs / record.run_id
    whole = rows(folder / "curves.csv")
    curve = [(str(p.epoch), str(p.step), repr(p.train_loss), repr(p.val["top1"])) for p in record.curve]
    assert [(r["epoch"], r["step"], r["loss"], r["score/top1"]) for r in whole] == curve
    assert len(whole) == 6
    log = (folder / "log.txt").read_text()
    assert f"run {record.run_id} on cpu" in log
    assert log.count("distill, epoch") == 12  # the teacher's and its own
    assert f"ended: ok: top1 {record.score:.2f} %" in log

    step, left = StageRun.step, [8]

    def counted(self):
        if self.stage.losses.__self__.__class__.__module__.endswith("kd.adapter"):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
        return step(self)

    monkeypatch.setattr(StageRun, "step", counted)
    for steps, every in ((7, 0.0), (2, 0.0), (3, 1e9), (100, 0.0)):  # mid-epoch, at an end, rows without a checkpoint
        left[0] = steps
        try:
            again = run.run_seed(request(home, force=True, checkpoint_seconds=every))
            break
        except Killed:
            (unfinished,) = set(home.logs.iterdir()) - {folder}
            assert len(rows(unfinished / "curves.csv")) in (3, 4, 5)
    assert again.run_id == unfinished.name

    def timeless(found):
        return [{name: value for name, value in row.items() if name != "seconds"} for row in found]

    assert timeless(rows(home.logs / again.run_id / "curves.csv")) == timeless(whole)
    assert "goes on; " in (home.logs / again.run_id / "log.txt").read_text()
