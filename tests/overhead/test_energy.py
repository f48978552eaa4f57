"""Energy: right from a sound counter, null with a reason from any other."""

from __future__ import annotations

import pytest

from kdbench.overhead.energy import MeasuredEnergy, Window, measure_energy


class Board:
    """A board that draws 50 W at rest and 250 W at work; a step takes 0.5 s."""

    source = "nvml"

    def __init__(self) -> None:
        self.t = 0.0
        self.mj = 1e9
        self.queue = 0
        self.starts: list[float] = []
        self.stuck = self.split = self.counterless = False
        self.others: list[int | None] = [0]
        self.busy: int | None = 0

    def pass_(self, seconds: float, watts: float) -> None:
        self.t += seconds
        self.mj += 0 if self.stuck else 1000 * watts * seconds

    def step(self) -> None:
        self.pass_(0.5, 250)

    def energy_mj(self) -> int | None:
        self.starts.append(self.t)
        return None if self.counterless else round(self.mj)

    def mig(self) -> bool:
        return self.split

    def other_processes(self, own: int = 1) -> int | None:
        return self.others.pop(0) if len(self.others) > 1 else self.others[0]

    def utilisation(self) -> int | None:
        return self.busy

    def measure(self, **options: int) -> MeasuredEnergy:
        return measure_energy(
            self.step, self, lambda: None, now=lambda: self.t, sleep=lambda s: self.pass_(s, 50), **options
        )


def test_sound_counter():
    found = Board().measure()
    assert found.valid
    assert found.reason == ""
    assert found.source == "nvml"
    assert found.idle_w == pytest.approx(50)
    assert found.j_per_step == pytest.approx(125)
    assert found.j_per_step_range == pytest.approx((125, 125))
    assert len(found.windows) == 4
    assert found.windows[0] == Window(pytest.approx(7500), pytest.approx(30), 60)


def test_windows_are_long_and_start_at_seeded_random_moments():
    class Fast(Board):
        def step(self) -> None:
            self.pass_(0.001, 250)

    def gaps(seed: int) -> list[float]:
        board = Fast()
        found = board.measure(rng_seed=seed)
        assert all(window.seconds >= 30 for window in found.windows)
        starts, ends = board.starts[2::2], board.starts[1::2]
        return [start - end for start, end in zip(starts, ends, strict=False)]

    assert gaps(1) == gaps(1) != gaps(2)
    assert len({round(gap, 3) for gap in gaps(1)}) == 4
    assert all(0 <= gap <= 1.01 for gap in gaps(1))


def test_the_device_is_waited_for_before_a_counter_is_read():
    board, waits = Board(), []
    measure_energy(
        board.step, board, lambda: waits.append(board.t), now=lambda: board.t, sleep=lambda s: board.pass_(s, 50)
    )
    assert set(board.starts[2:]) <= set(waits)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"stuck": True}, "does not move"),
        ({"split": True}, "MIG"),
        ({"counterless": True}, "no energy counter"),
        ({"others": [2]}, "other processes on the GPU: 2"),
        ({"others": [0, 0, 0, 1]}, "other processes on the GPU: 1"),  # they came during the third window
        ({"others": [None]}, "cannot tell"),
        ({"busy": 40}, "works while this process rests"),
    ],
)
def test_untrusted_counter_gives_null_and_the_reason_never_zero(fault, reason):
    board = Board()
    vars(board).update(fault)
    found = board.measure()
    assert reason in found.reason
    assert found == MeasuredEnergy(None, None, None, (), "nvml", False, found.reason)


def test_counter_that_stops_in_a_window_gives_null():
    class Stopping(Board):
        def step(self) -> None:
            self.stuck = self.t > 60
            super().step()

    found = Stopping().measure()
    assert not found.valid
    assert found.j_per_step is None


def test_unknown_utilisation_is_no_objection():
    board = Board()
    board.busy = None
    assert board.measure().valid


def test_no_board_gives_null_and_runs_nothing():
    def step() -> None:
        raise AssertionError("ran")

    found = measure_energy(step, "no energy counter to read", lambda: None)
    assert found == MeasuredEnergy(None, None, None, (), None, False, "no energy counter to read")
