"""Methods of several stages: modules that are constants in some of them, and what other runs of a task can reuse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Self

from torch import nn

from kdbench.contract import Method, Stage, TaskInfo


class Phased(Method):
    """A method that holds some of its modules in eval mode during a stage, whatever mode the engine sets."""

    _held: Sequence[nn.Module] = ()

    def hold(self, *modules: nn.Module) -> None:
        """From now on exactly these modules stay in eval mode; call it before a stage is yielded."""
        self._held = modules
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self._held:
            module.eval()
        return self


def reusable(task: TaskInfo, stage: Stage, module: nn.Module, uses: Sequence[str]) -> Iterator[Stage]:
    """A stage whose trained module serves every student of the task: trained once, loaded by other runs.

    Args:
        stage: trains ``module``; its name is that of what is kept.
        uses: hyper-parameters that decide what becomes of the module.
    """
    found = task.recall(stage.name, stage.ledger, uses)
    yield replace(stage, once=True) if found is None else replace(stage, once=True, epochs=None, steps=0)
    if found is None:
        found = task.keep(stage.name, lambda: dict(module.state_dict()), "task", stage.ledger, uses)
    module.load_state_dict(found)
