"""Orders: what one process asks of another comes out of its text as it went in."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdbench.overhead.order import MeasureOrder
from kdbench.specs.config import Match, run_config
from kdbench.specs.order import ConfigOrder, Order
from kdbench.sweep.order import Answer, GivenUp, JobOrder, RunOrder, TrainOrder

ODD = Path("/somewhere/a home\n\udce9")
CONFIG = ConfigOrder(
    method="plain@kd", task="digits/few-shot", overrides=("train.lr=0.1", "data.note='é'"), smoke=True,
    match=Match("kd", 1.5, "0" * 64),
)  # fmt: skip
RUN = RunOrder(config=CONFIG, seeds=(3, 5), overhead="quick", retry=True, home=ODD, data=None)
ORDERS: list[Order] = [
    CONFIG,
    RUN,
    MeasureOrder(
        config=CONFIG, seed=0, device="cpu", home=ODD, data=ODD, folder=ODD, mode="full", stages=2, gate=True,
        part="memory-plain",
    ),
    JobOrder(
        run=RUN, devices=("cuda:0", "cuda:1"), slots=2, share=2, most_threads=None,
        visible={"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": None}, timeout=9.5, last=True, parent=1,
    ),
    TrainOrder(run=RUN, device="cpu", states=(ODD, ODD)),
    Answer(seed=5, outcome="recorded", line="é", status="ok"),
    TrainOrder(
        run=RUN, device="cpu", states=(ODD, ODD),
        given_up=GivenUp(status="timeout", kind="TimedOut", message="after 3 s"),
    ),
]  # fmt: skip


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: type(order).__name__)
def test_an_order_crosses_a_process_in_one_line_as_it_is(order: Order) -> None:
    text = order.text()
    assert "\n" not in text
    assert text.isascii()
    assert type(order).read(text) == order


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"method": "kd", "task": "digits", "methods": "kd"}'])
def test_what_is_no_order_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"Expecting|ConfigOrder"):
        ConfigOrder.read(text)


def test_a_configuration_comes_back_with_its_hash() -> None:
    config = run_config("kd", "digits/few-shot", ["method.temperature=2.0", "train.epochs=3"], smoke=True)
    back = ConfigOrder.read(ConfigOrder.of(config).text()).config()
    assert back == config
    assert back.spec_hash == config.spec_hash
