"""Where a training step's processor time goes, by torch.profiler: passes through modules, or anything else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn
from torch.autograd.profiler_util import FunctionEvent
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.profiler import ProfilerActivity, profile, record_function

PASS, OPTIMIZER, REST = "pass:", "Optimizer.step#", "the rest"
BACKWARD = "autograd::engine::evaluate_function: "
"""What the profiler puts before the name of a node of the graph when its gradient is computed."""


class Spent(NamedTuple):
    """Seconds of processor time within a step's operators.

    Attributes:
        forward, backward: by module.
        optimizer: in optimisers.
        rest: by operator, whatever else there is, its gradients among it.
    """

    forward: Mapping[str, float]
    backward: Mapping[str, float]
    optimizer: float
    rest: Mapping[str, float]

    @property
    def total(self) -> float:
        """All of it."""
        return sum((*self.forward.values(), *self.backward.values(), self.optimizer, *self.rest.values()))

    @property
    def passes(self) -> float:
        """Share of passes through modules, both ways."""
        return sum((*self.forward.values(), *self.backward.values())) / self.total


def spent(step: Callable[[], object], modules: Mapping[str, nn.Module]) -> Spent:
    """One step of a single thread.

    Args:
        modules: by name; what one calls belongs to it.
    """
    names = {module: name for name, module in modules.items()}
    ranges: list[tuple[nn.Module, Any]] = []

    def enter(module: nn.Module, _: Any) -> None:
        if module in names and not ranges:
            ranges.append((module, record_function(PASS + names[module])))
            ranges[-1][1].__enter__()

    def leave(module: nn.Module, *_: Any) -> None:
        if ranges and ranges[-1][0] is module:
            ranges.pop()[1].__exit__(None, None, None)

    hooks = register_module_forward_pre_hook(enter), register_module_forward_hook(leave)
    try:
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            step()
    finally:
        for hook in hooks:
            hook.remove()
    return _shared_out(list(profiler.events()))


def _shared_out(events: list[FunctionEvent]) -> Spent:
    forward, backward, rest = (defaultdict[str, float](float) for _ in range(3))
    optimizer = 0.0
    # A node of the graph has the sequence number of the last forward operator that began with it.
    source: dict[int, str] = {}
    for event in sorted(events, key=lambda event: event.time_range.start):
        if _node(event) is None and event.sequence_nr >= 0:
            source[event.sequence_nr] = _within(event)
    for event in events:
        seconds, label = event.self_cpu_time_total / 1e6, _within(event)
        node = _node(event)
        if node is not None:
            label = source.get(node.sequence_nr, REST)
        if label.startswith(PASS):
            (forward if node is None else backward)[label.removeprefix(PASS)] += seconds
        elif label.startswith(OPTIMIZER):
            optimizer += seconds
        else:
            rest[event.name] += seconds
    return Spent(forward, backward, optimizer, rest)


def _ancestors(event: FunctionEvent) -> Any:
    found: FunctionEvent | None = event
    while found is not None:
        yield found
        found = found.cpu_parent


def _within(event: FunctionEvent) -> str:
    """The range that holds an event."""
    return next((e.name for e in _ancestors(event) if e.name.startswith((PASS, OPTIMIZER))), REST)


def _node(event: FunctionEvent) -> FunctionEvent | None:
    """The node of the graph whose gradient an event is part of."""
    return next((e for e in _ancestors(event) if e.name.startswith(BACKWARD)), None)
