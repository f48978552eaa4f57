"""Data parallel: several gloo processes on the CPU equal one process with the joined batch.

Methods are compared in float64: in float32 the rounding of another order of summation grows past 1e-6 within a few
steps, as it does between two thread counts of one process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from gloo_ranks import on_ranks
from tinies import own_scenes
from torch import nn

from kdbench.base.errors import UserError
from kdbench.checks.tiny import Tiny, declared, tiny
from kdbench.contract import Batch, NotApplicable
from kdbench.data.feed.dataset import Transform
from kdbench.engine.assemble import hyper_parameters
from kdbench.engine.trainer import Trainer
from kdbench.parallel.norm import join_norms
from kdbench.parallel.ranks import Ranks
from kdbench.specs import registry
from kdbench.specs.protocol import Optimizer

CLOSE = 1e-6
SGD = Optimizer(name="sgd", lr=0.05, momentum=0.9, weight_decay=5e-4)
NAMED = ["kd", "reviewkd", "crd", "hkd", "ffsd"]


@dataclass(frozen=True)
class Double(Transform):
    """Inputs in float64."""

    def __call__(self, raw):
        return super().__call__(raw).double()


def tiny_of(name: str, kind: str, epochs: int) -> Tiny:
    """A method on a tiny task; its last batch of an epoch has 12 rows where the others have 16."""
    ref = registry.method(name)
    config = dict(declared(ref))[kind]
    found = tiny(ref, config, ref.adapter().needs(hyper_parameters(config)), kind)
    task = found.config.task
    # Adam would divide gradients that are rounding alone, as of a bias before batch norm, by their own size.
    train = task.train.model_copy(update={"epochs": epochs, "optimizer": SGD})
    task = task.model_copy(update={"train": train})
    return replace(found, config=replace(found.config, task=task))


def trained(cell: Tiny, folder: Path, ranks: Ranks) -> dict[str, Any]:
    """Weights, buffers, losses and curve of a run, in float64."""
    prepared = cell.prepare(folder / str(ranks.size), ranks=ranks)
    task = prepared.task
    transforms = {name: Double(t.mean, t.std) for name, t in task.data.transforms.items()}
    task.data = replace(task.data, transforms=transforms)
    for net in (prepared.method, *prepared.method.teachers.values()):
        net.double()
    done = Trainer(prepared.method, task).run()
    state = {name: value.clone() for name, value in prepared.method.state_dict().items()}
    return {"state": state, "digest": done.digest, "losses": [point["losses"] for point in done.curve]}


def apart(a: Any, b: Any) -> float:
    """Largest difference of two results, relative where values exceed 1."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        return max((apart(a[key], b[key]) for key in a), default=0.0)
    if isinstance(a, list):
        assert len(a) == len(b)
        return max((apart(x, y) for x, y in zip(a, b, strict=True)), default=0.0)
    if isinstance(a, str):
        return 0.0 if a == b else float("inf")
    x, y = (torch.as_tensor(value).double() for value in (a, b))
    worst = ((x - y).abs() / x.abs().clamp_min(1.0)).max()
    return float("inf") if worst.isnan() else float(worst)


def compared(cell: Tiny, folder: Path) -> tuple[float, float]:
    """How far two ranks are from one process, and the ranks from one another."""
    one = trained(cell, folder / "one", Ranks())
    first, second = on_ranks(2, folder / "two", partial(trained, cell, folder))
    return apart(one, first), apart(first["state"], second["state"])


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """Five methods, each in one process and on two ranks that are started once."""
    folder = tmp_path_factory.mktemp("ranks")
    tasks = {name: tiny_of(name, "classification", epochs=2) for name in NAMED}

    def all_of_them(ranks: Ranks) -> dict[str, Any]:
        return {name: trained(cell, folder / name, ranks) for name, cell in tasks.items()}

    return all_of_them(Ranks()), on_ranks(2, folder / "two", all_of_them)


@pytest.mark.parametrize("name", NAMED)
def test_two_ranks_equal_one_process_with_the_joined_batch(named, name):
    one, (first, second) = named
    assert apart(one[name], first[name]) < CLOSE
    assert apart(first[name]["state"], second[name]["state"]) == 0.0, "the ranks have parted"


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.methods())
def test_every_method_is_equal_on_two_ranks_or_says_why_not(tmp_path, name):
    ref, kind = registry.method(name), own_scenes(name)[0]
    try:
        cell = tiny_of(name, kind, epochs=2)
    except NotApplicable as reason:
        pytest.skip(f"no tiny {kind} task: {reason}")
    needs = ref.adapter().needs(hyper_parameters(cell.config.method))
    reason = needs.one_process or cell.config.task.of_kind.one_process
    if reason is not None:
        with pytest.raises(UserError, match="runs in one process"):
            cell.prepare(tmp_path, ranks=Ranks(0, 2))
        return
    off, parted = compared(cell, tmp_path)
    assert off < CLOSE
    assert parted == 0.0


def test_collectives(tmp_path):
    """Uneven shares, views, gradients of what is gathered, of what a rank does not use, batch norm, what is told."""

    def work(ranks: Ranks) -> dict[str, Any]:
        rows = torch.arange(10.0)
        joined = Batch({"x": rows}, rows.long(), rows.long(), views=2, present={"x": rows > 4})
        own = ranks.split(joined)
        x = own.x["x"].clone().requires_grad_()
        gathered = ranks.gather(x)
        (ranks.share * (gathered * rows).sum()).backward()
        everywhere, once, nowhere = (nn.Parameter(torch.ones(2)) for _ in range(3))
        (everywhere.sum() + (once.sum() if ranks.rank else 0)).backward()
        ranks.sum_gradients([everywhere, once, nowhere])
        with pytest.raises(ValueError, match="gather takes the rows"):
            ranks.gather(torch.ones(1 + len(own)))
        with pytest.raises(UserError, match="a batch of 1 rows cannot be shared by 2 processes"):
            ranks.require_rows(1)
        return {
            "own": own.x["x"], "present": ranks.gather(own.present["x"]), "gathered": gathered.detach(),
            "grad": x.grad, "everywhere": everywhere.grad, "once": once.grad, "nowhere": nowhere.grad is None,
            "told": ranks.tell(["ü", 1.5] if ranks.first else None), "terms": ranks.sum_terms({"a": x.detach().mean()}),
        }  # fmt: skip

    first, second = on_ranks(2, tmp_path, work)
    assert first["own"].tolist() == [0, 1, 2, 5, 6, 7]
    assert second["own"].tolist() == [3, 4, 8, 9]
    assert first["grad"].tolist() == pytest.approx([0, 1, 2, 5, 6, 7])
    assert second["grad"].tolist() == pytest.approx([3, 4, 8, 9])
    assert second["present"].tolist() == [False] * 5 + [True] * 5
    for found in (first, second):
        assert found["gathered"].tolist() == list(range(10))
        assert found["everywhere"].tolist() == [2, 2]
        assert found["once"].tolist() == [1, 1]
        assert found["nowhere"]
        assert found["told"] == ["ü", 1.5]
        assert float(found["terms"]["a"]) == pytest.approx(4.5)


NORMS = {
    "1d": (lambda: nn.BatchNorm1d(3), (7, 3)),
    "series": (lambda: nn.BatchNorm1d(3, momentum=None), (7, 3, 5)),
    "2d": (lambda: nn.BatchNorm2d(3), (7, 3, 2, 4)),
    "bare": (lambda: nn.BatchNorm2d(3, affine=False), (7, 3, 2, 4)),
    "untracked": (lambda: nn.BatchNorm2d(3, track_running_stats=False), (7, 3, 2, 4)),
    "3d": (lambda: nn.BatchNorm3d(3), (7, 3, 2, 2, 2)),
}


def normalised(ranks: Ranks) -> dict[str, Any]:
    """Outputs in both modes, gradients and buffers of each batch norm after two batches, this rank's rows."""
    found = {}
    for name, (make, shape) in NORMS.items():
        rng = torch.Generator().manual_seed(0)
        norm = make().double()
        if ranks.several:
            join_norms(norm)
        results = []
        for _ in range(2):
            x, weight = (100 + torch.randn(shape, generator=rng, dtype=torch.float64) for _ in range(2))
            batch = ranks.split(Batch({"x": x, "w": weight}, torch.zeros(7), torch.zeros(7)))
            own = batch.x["x"].clone().requires_grad_()
            y = norm(own)
            (y.square() * batch.x["w"]).sum().backward()
            results += [y.detach(), own.grad]
        ranks.sum_gradients(list(norm.parameters()))
        state = {**norm.state_dict(), **{f"grad {n}": p.grad for n, p in norm.named_parameters()}}
        found[name] = {"rows": results, "state": state, "eval": norm.eval()(own.detach()).detach()}
    return found


def test_joined_batch_norm_is_torchs_of_the_joined_batch(tmp_path):
    one, (first, second) = normalised(Ranks()), on_ranks(2, tmp_path, normalised)
    for name in NORMS:
        assert first[name]["state"].keys() == one[name]["state"].keys()
        for key, value in one[name]["state"].items():
            assert torch.allclose(value, first[name]["state"][key], rtol=1e-9, atol=1e-9), (name, key)
        for whole, *parts in zip(one[name]["rows"], first[name]["rows"], second[name]["rows"], strict=True):
            assert torch.allclose(whole, torch.cat(parts), rtol=1e-9, atol=1e-8), name
        if name != "untracked":  # in eval mode its statistics are of the rows it sees, so that a rank may score alone
            parts = [first[name]["eval"], second[name]["eval"]]
            assert torch.allclose(one[name]["eval"], torch.cat(parts), rtol=1e-9, atol=1e-9), name


def test_joined_batch_norm_refuses_a_single_value(tmp_path):
    def work(ranks: Ranks) -> dict[str, Any]:
        norm = nn.BatchNorm1d(3)
        join_norms(norm)
        rows = torch.ones(0 if ranks.rank else 1, 3)
        with pytest.raises(ValueError, match="more than one value"):
            norm(rows)
        return {}

    on_ranks(2, tmp_path, work)


def test_another_ranks_failure_is_told(tmp_path):
    def work(ranks: Ranks) -> dict[str, Any]:
        if ranks.rank:
            ranks.tell()
            ranks.report("oom", MemoryError("no room"))
            ranks.tell()
            return {}
        assert ranks.reported() is None
        ranks.tell()
        ranks.tell()
        return ranks.reported()

    first, _ = on_ranks(2, tmp_path, work)
    assert first == {"rank": 1, "status": "oom", "kind": "MemoryError", "message": "process 1: no room"}
    assert Ranks().reported() is None


PATIENCE_S = 1.0


def _left_waiting(rank: int, folder: Path, how: signal.Signals) -> None:
    """Rank 0 waits for an exchange in which rank 1 takes no part, after it has let that one wait for longer."""
    torch.set_num_threads(1)
    place = f"file://{folder}/meeting?rank={rank}&world_size=2"
    ranks = Ranks.join("gloo", place, timedelta(seconds=PATIENCE_S))
    if ranks.first:
        time.sleep(2 * PATIENCE_S)
    ranks.tell()
    if not ranks.first:
        os.kill(os.getpid(), how)
    try:
        ranks.sum_terms({"a": torch.ones(())})
    except Exception as error:
        (folder / "told").write_text(str(ranks.is_break(error)))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hangs"])
def test_a_rank_that_answers_no_more_is_not_waited_for(tmp_path, how):
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_left_waiting, args=(rank, tmp_path, how)) for rank in range(2)]
    for process in processes:
        process.start()
    try:
        processes[0].join(30)
        assert processes[0].exitcode == 0
        assert (tmp_path / "told").read_text() == "True"
    finally:
        for process in processes:
            process.kill()
            process.join()
