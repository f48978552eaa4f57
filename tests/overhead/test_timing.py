"""The paired measurement: its rules under a fake clock, exactly; real torch steps, loosely."""

from __future__ import annotations

import gc
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from kdbench.base.errors import UserError
from kdbench.devices import backends
from kdbench.devices.clock import EventClock, HostClock, quiet_gc
from kdbench.overhead.gate import AAGate, aa_gate
from kdbench.overhead.timing import FULL, MOST_PAIRS, QUICK, Budget, converged, measure_builds, measure_pairs
from kdbench.overhead.waiting import data_wait
from kdbench.stats.step_ratio import RatioEstimate, log_spread

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _no_collection(monkeypatch):
    """The heap of a test process is large and is none of the measurement's, which collects before every pair."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


class Time:
    """A clock that moves only when an arm runs. Times that must be met exactly are sums of powers of two."""

    def __init__(self) -> None:
        self.t = 0.0
        self.log: list[str] = []
        self.clock = HostClock(lambda: self.t)

    def arm(self, name: str, cost: Callable[[int], float] | float) -> Callable[[], None]:
        """An arm whose k-th step takes ``cost(k)`` seconds."""
        calls = itertools.count()

        def step() -> None:
            k = next(calls)
            self.t += cost(k) if callable(cost) else cost
            self.log.append(name)

        return step

    def runs(self) -> list[tuple[str, int]]:
        """The log as (arm, steps in a row)."""
        return [(name, len(list(group))) for name, group in itertools.groupby(self.log)]


def budget(**changes: object) -> Budget:
    """FULL with changes."""
    return Budget(**{**FULL.__dict__, **changes})


def test_equal_steady_arms_warm_up_twenty_steps_in_turns_of_five_then_six_pairs():
    time = Time()
    found = measure_pairs(time.arm("p", 0.01), time.arm("m", 0.03), CPU, budget=FULL, build=0, clock=time.clock)
    assert time.runs()[:8] == [("m", 1), ("p", 1 + 5), ("m", 5), ("p", 5), ("m", 5), ("p", 5), ("m", 5), ("p", 5)]
    assert found.warmup_steps == (21, 21)
    assert found.steps_per_block == (21, 7)  # 210 ms each: seven turns, since a turn holds one 30 ms step at least
    assert found.turns == 7
    assert len(found.pairs) == 6
    assert found.settled
    assert found.pairs[0] == pytest.approx((10, 30))


def blocks_of(device: torch.device, step_s: float, turns: int, steps: int, seed: int) -> list[str]:
    """The order of the arms, turn by turn, after checking that every turn holds both arms whole."""
    time = Time()
    wide = budget(min_pairs=12, limit_s=math.inf)
    found = measure_pairs(
        time.arm("p", step_s), time.arm("m", step_s), device, budget=wide, build=seed, clock=time.clock
    )
    assert found.turns == turns
    assert found.steps_per_block == (turns * steps, turns * steps)
    log = time.log[12:]
    assert len(log) == 12 * turns * 2 * steps
    runs = [log[i : i + steps] for i in range(0, len(log), steps)]
    assert all(len(set(run)) == 1 for run in runs), "a slice was interrupted"
    return [a[0] + b[0] for a, b in zip(runs[::2], runs[1::2], strict=True)]


@pytest.mark.parametrize(
    ("device", "step_s", "turns", "steps"),
    [
        ("cpu", 1 / 1024, 20, 11),  # slices of 10 ms
        ("cpu", 1 / 64, 13, 1),  # slices of one step
        ("cpu", 1.0, 1, 1),  # a step longer than a block
        ("cuda", 1 / 1024, 1, 205),  # whole blocks
    ],
)
def test_each_turn_holds_both_arms_in_seeded_random_order(device, step_s, turns, steps):
    order = blocks_of(torch.device(device), step_s, turns, steps, 7)
    assert set(order) == {"pm", "mp"}, "an arm is missing or the order never changes"
    assert order.count("pm") / len(order) == pytest.approx(0.5, abs=0.35)
    assert order == blocks_of(torch.device(device), step_s, turns, steps, 7)
    assert order != blocks_of(torch.device(device), step_s, turns, steps, 8)


def test_warm_up_goes_on_until_two_medians_differ_by_less_than_three_per_cent():
    time = Time()
    # medians of groups of five after the first step: 1, .8, .7, .65 | .64 differs from .65 by 1.5 %
    medians = [1.0, 0.8, 0.7, 0.65, 0.64]
    falling = time.arm("m", lambda k: 9.0 if k == 0 else medians[min((k - 1) // 5, 4)])
    found = measure_pairs(time.arm("p", 0.5), falling, CPU, budget=FULL, build=0, clock=time.clock)
    assert found.warmup_steps == (21, 26)
    assert found.settled
    assert found.first_step_ms == pytest.approx((500, 9000))
    assert found.steps_per_block == (1, 1)


def test_one_slow_step_in_a_group_does_not_prolong_the_warm_up():
    time = Time()
    spiky = time.arm("m", lambda k: 2.0 if k == 18 else 0.1)
    found = measure_pairs(time.arm("p", 0.1), spiky, CPU, budget=FULL, build=0, clock=time.clock)
    assert found.warmup_steps == (21, 21)


def test_warm_up_that_never_settles_ends_at_a_hundred_steps_and_says_so():
    time = Time()
    restless = time.arm("m", lambda k: 0.1 if (k // 5) % 2 else 0.2)
    found = measure_pairs(time.arm("p", 0.1), restless, CPU, budget=FULL, build=0, clock=time.clock)
    assert found.warmup_steps == (21, 101)
    assert not found.settled


def test_quick_bounds_the_warm_up_of_slow_steps_and_the_whole():
    time = Time()
    found = measure_pairs(time.arm("p", 0.5), time.arm("m", 1.5), CPU, budget=QUICK, build=0, clock=time.clock)
    assert found.warmup_steps == (6, 2)  # five plain steps, then the 3 s are nearly over: one step of the other arm
    assert not found.settled
    assert len(found.pairs) == 1  # the first pair to end after 2 s


def test_a_pair_whatever_it_costs():
    time = Time()
    found = measure_pairs(time.arm("p", 60), time.arm("m", 90), CPU, budget=QUICK, build=0, clock=time.clock)
    assert len(found.pairs) == 1
    assert found.warmup_steps == (2, 2)


def test_a_later_build_warms_up_only_what_is_new():
    time = Time()
    found = measure_pairs(time.arm("p", 0.01), time.arm("m", 0.03), CPU, budget=FULL, build=1, clock=time.clock)
    assert found.warmup_steps == (6, 6)
    assert len(found.pairs) == 6


def test_every_build_is_made_anew_and_in_turns_of_order():
    time = Time()
    made: list[str] = []
    costs = iter((9.0, 2.0, 3.0, 2.0, 3.0, 2.5))  # the first build counts for nothing

    def plain() -> Callable[[], None]:
        made.append("p")
        return time.arm("p", 0.25)

    def method() -> Callable[[], None]:
        made.append("m")
        return time.arm("m", 0.25 * next(costs))

    estimate, found = measure_builds(plain, method, CPU, budget=FULL, clock=time.clock)
    assert "".join(made) == "pmmppmmppmmp", "either arm comes first in turns"
    assert [timing.pairs[0] for timing in found] == [pytest.approx((250, 250 * r)) for r in (9, 2, 3, 2, 3, 2.5)]
    assert (estimate.builds, estimate.n) == (5, 30)
    assert estimate.ratio == pytest.approx((2 * 3 * 2 * 3 * 2.5) ** 0.2)
    assert not converged(estimate, CPU, FULL), "builds that differ by half are no narrow interval"


def test_block_size_comes_from_the_fastest_group_so_that_no_block_is_short():
    time = Time()
    disturbed = time.arm("p", lambda k: 1 / 32 if 16 <= k <= 25 else 1 / 64)
    found = measure_pairs(disturbed, time.arm("m", 1 / 64), CPU, budget=FULL, build=0, clock=time.clock)
    assert found.steps_per_block == (13, 13)  # 203 ms


def noisy(spread: float) -> Callable[[int], float]:
    """0.2 s steps that alternate with period 3 around their middle."""
    return lambda k: 0.2 * math.exp(spread * ((k * 7) % 11 - 5) / 5)


def test_stops_at_the_time_limit_when_the_pairs_stay_far_apart():
    time = Time()
    slow = budget(limit_s=15.0)
    found = measure_pairs(time.arm("p", 0.2), time.arm("m", noisy(0.8)), CPU, budget=slow, build=0, clock=time.clock)
    spent = [sum(ms * steps for ms, steps in zip(pair, found.steps_per_block, strict=True)) for pair in found.pairs]
    assert sum(spent[:-1]) < 15_000 <= sum(spent)
    assert 2 * log_spread(found.pairs) > 0.03


def test_goes_on_after_the_fewest_pairs_until_they_agree_well_enough():
    time = Time()
    wanted = budget(half_width=0.1, min_pairs=3, limit_s=1e6)
    found = measure_pairs(time.arm("p", 0.2), time.arm("m", noisy(0.3)), CPU, budget=wanted, build=0, clock=time.clock)
    assert 3 < len(found.pairs) < MOST_PAIRS
    assert 2 * log_spread(found.pairs) <= 0.1
    assert 2 * log_spread(found.pairs[:-1]) > 0.1


def test_a_record_never_holds_more_than_its_most_pairs():
    time = Time()
    endless = budget(half_width=0.0, limit_s=math.inf)
    found = measure_pairs(time.arm("p", 0.2), time.arm("m", noisy(0.8)), CPU, budget=endless, build=0, clock=time.clock)
    assert len(found.pairs) == MOST_PAIRS


def test_garbage_is_collected_before_each_pair_and_not_within(monkeypatch):
    time = Time()
    collected: list[int] = []
    monkeypatch.setattr(gc, "collect", lambda: collected.append(len(time.log)))
    states: list[bool] = []
    inner = time.arm("m", 0.25)

    def method() -> None:
        states.append(gc.isenabled())
        inner()

    found = measure_pairs(time.arm("p", 0.25), method, CPU, budget=FULL, build=0, clock=time.clock)
    start = sum(found.warmup_steps)
    assert [at for at in collected if at >= start] == list(range(start, start + 12, 2))
    assert not any(states)
    assert gc.isenabled()


def test_quiet_gc_restores_the_collector_after_an_error():
    with pytest.raises(ZeroDivisionError), quiet_gc():
        _ = 1 / 0
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize(
    ("ratio", "lo", "hi", "passed"),
    [
        (1.0, 1.0, 1.0, True),
        (1.02, 0.99, 1.05, True),
        (1.02, 1.01, 1.03, False),  # within 4 %, but the interval does not hold 1
        (1.05, 0.9, 1.2, False),  # the interval holds 1, but the ratio is off by more than 4 %
    ],
)
def test_aa_gate_by_its_two_limits(ratio, lo, hi, passed):
    assert AAGate.of(RatioEstimate(ratio, lo, hi, 1.0, 1.0, 5, 30), CPU).passed is passed


def test_aa_gate_measures_two_arms_of_one_kind():
    time = Time()
    found = aa_gate(lambda: time.arm("a", 0.25), CPU, clock=time.clock)
    assert (found.ratio, found.passed) == (pytest.approx(1), True)


def test_data_wait_is_the_share_of_time_spent_in_draw():
    time = Time()

    def draw() -> list[int]:
        time.t += 0.25
        return [0] * 64

    def step(_: list[int]) -> None:
        time.t += 0.75

    found = data_wait(draw, step, len, CPU, seconds=10, clock=time.clock)
    assert found.fraction == pytest.approx(0.25)
    assert found.samples_s == pytest.approx(64)
    assert found.steps == 10


def test_an_unknown_device_is_refused_in_one_line():
    with pytest.raises(UserError, match="knows nothing of torch's 'meta' devices"):
        backends.of(torch.device("meta"))


class FakeCuda:
    """CUDA events on a device that works through its queue only when waited for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.t = 0.0
        fake = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self, stream: object) -> None:
                fake.log.append("event")
                self.at = fake.t

            def elapsed_time(self, other: Event) -> float:
                assert fake.log[-1] == "synchronize"
                return other.at - self.at

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: self.log.append("synchronize"))

    def step(self) -> None:
        self.log.append("step")
        self.t += 5.0  # ms


def test_cuda_block_is_two_events_and_one_synchronise_after_the_steps(monkeypatch):
    fake = FakeCuda(monkeypatch)
    assert EventClock(torch.device("cuda", 0)).block(fake.step, 4) == pytest.approx(0.02)
    assert fake.log == ["event", *["step"] * 4, "event", "synchronize"]


def test_cuda_single_steps_are_told_apart_without_a_synchronise_between(monkeypatch):
    fake = FakeCuda(monkeypatch)
    clock = EventClock(torch.device("cuda", 0))
    assert clock.steps(fake.step, 3, math.inf) == pytest.approx([0.005] * 3)
    assert fake.log == ["event", *["step", "event"] * 3, "synchronize"]
    assert len(clock.steps(fake.step, 3, until=0.0)) == 1


def training_step(width: int) -> Callable[[], None]:
    """A small SGD step."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    ring = itertools.cycle([(torch.randn(64, 64), torch.randint(0, 10, (64,))) for _ in range(8)])

    def step() -> None:
        x, y = next(ring)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()

    return step


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


SHORT = Budget("quick", 3, 0.05, 4, 0.3, 0.5, 0.03)
"""Bounds below hold on two cores with four busy processes: what is exact is tested under the fake clock."""


def test_equal_real_steps_measure_equal(one_thread):
    found, timings = measure_builds(lambda: training_step(64), lambda: training_step(64), CPU, budget=SHORT)
    assert found.lo < 1.1
    assert found.hi > 0.9
    assert found.ratio == pytest.approx(1, abs=0.3)
    assert timings[0].first_step_ms.method > 0


def test_a_real_step_done_twice_measures_twice(one_thread):
    def double() -> Callable[[], None]:
        once = training_step(64)

        def twice() -> None:
            once()
            once()

        return twice

    found, _ = measure_builds(lambda: training_step(64), double, CPU, budget=SHORT)
    assert found.lo < 2.2
    assert found.hi > 1.8
    assert found.ratio == pytest.approx(2, abs=0.5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_real_gpu_step_done_twice_measures_twice():
    device = torch.device("cuda", 0)
    x = torch.randn(2048, 2048, device=device)

    def once() -> None:
        torch.mm(x, x)

    def twice() -> None:
        once()
        once()

    gpu = Budget("quick", 3, 0.02, 4, 1.0, {"cuda": 0.7}, {"cuda": 0.01})
    found, _ = measure_builds(lambda: once, lambda: twice, device, budget=gpu)
    assert found.ratio == pytest.approx(2, abs=0.1)
