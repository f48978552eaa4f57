"""What the measuring process answers is read as it was written, by the types that a record states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from kdbench.overhead import measure, worker
from kdbench.overhead.energy import MeasuredEnergy, Window
from kdbench.overhead.gate import AAGate
from kdbench.overhead.memory import PeakMemory
from kdbench.overhead.order import CellCosts, MeasuredPhase, MeasureOrder, PhaseFacts, Times
from kdbench.records.schema.overhead import BoardState, Measured
from kdbench.specs.config import run_config
from kdbench.specs.options import EngineOptions
from kdbench.specs.order import ConfigOrder


def facts(steps: int, **quantities: Any) -> PhaseFacts:
    energy = MeasuredEnergy(0.1, (0.09, 0.11), 70.0, (Window(30.0, 30.1, 300),), "nvml", True, "")
    return PhaseFacts(
        name="distill", steps=steps, rows=64, views=1, flops=10**15, flop_counter="counter", uncounted_ops=("add",),
        peak=PeakMemory(2.5, None), energy=energy, quantities=quantities,
    )  # fmt: skip


def answer(**quantities: Any) -> Times:
    builds = (((1.0, 2.0), (1.1, 2.1)), ((1.0, 2.2), (1.2, 2.0)))
    return Times(
        phases=(MeasuredPhase(facts=facts(10), first_step_ms=5.0, builds=builds, converged=True),),
        board=(BoardState(sm_clock_mhz=1980, temperature_c=None),), gate=AAGate(1.0, 0.99, 1.01, True),
        costs=CellCosts(plain_peak=PeakMemory(1.5, None), quantities=quantities, deploy={"gflops": 0.5}),
    )  # fmt: skip


def test_an_answer_is_read_as_it_was_written() -> None:
    written = answer(rss_mib=700.5, train_only_params=3)
    read = Times.read(written.text())
    assert read == written
    assert isinstance(read.phases[0].facts.energy, MeasuredEnergy)
    assert read.phases[0].facts.energy.windows == (Window(30.0, 30.1, 300),)


@pytest.mark.parametrize("option", ["teacher_ahead=4", "teacher_store=true"])
def test_every_step_that_is_measured_computes_its_teacher(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run_config("kd", "digits/few-shot", [f"engine.{option}", "engine.fused=true"])
    order = MeasureOrder(
        config=ConfigOrder.of(config), seed=0, device="cpu", home=tmp_path, data=None, folder=tmp_path, mode="quick",
        stages=1, gate=False,
    )  # fmt: skip
    monkeypatch.setattr(worker, "times", lambda config, order: config.engine)
    assert worker.run(order) == EngineOptions(fused=True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rss_gib": 1.0}, "rss_gib"),
        ({"train_only_params": -1}, "train_only_params"),
        ({"train_only_params": 0.5}, "train_only_params"),
        ({"rss_mib": float("nan")}, "rss_mib"),
        ({"data_wait_frac": 1.5}, "data_wait_frac"),
    ],
)
def test_a_quantity_is_what_the_record_states(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        answer(**given)
    text = json.loads(answer().text())
    text["costs"]["quantities"] = given
    with pytest.raises(ValueError, match=said):
        Times.read(json.dumps(text))


def test_quantities_of_a_step_are_averaged_by_steps_and_null_where_one_phase_has_none() -> None:
    found = measure._averaged(
        [facts(1, flops_fwd=8.0, flops_fwd_bwd=16.0), facts(3, flops_fwd=None, flops_fwd_bwd=4.0)]
    )
    assert found == {"flops_fwd": None, "flops_fwd_bwd": 7.0}
    assert found.keys() <= Measured.model_fields.keys()
