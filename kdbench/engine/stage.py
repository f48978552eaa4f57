"""One stage of a method being trained: its batches, optimisers, learning rates, and one update at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from kdbench.base.errors import UserError
from kdbench.base.seeds import derive
from kdbench.contract import At, Batch, Method, Stage, Terms
from kdbench.devices import backends
from kdbench.engine import optim
from kdbench.engine.graphs import Given, Replay
from kdbench.engine.task import Task
from kdbench.parallel.norm import join_norms


class StageRun:
    """A stage of a method, able to do one step at a time.

    Args:
        method: the method, on the training device.
        stage: the stage it yielded.
        task: batches, protocol, seed and device.
        draw: where batches come from; the stage's own loader when None (the overhead measurement gives a fixed ring).

    Attributes:
        step_number: optimiser steps done; total: to do in all.
        draws: batches drawn.
        bad: 0-d bool on the device, True once a loss was not finite.
    """

    def __init__(self, method: Method, stage: Stage, task: Task, draw: Callable[[int], Batch] | None = None) -> None:
        needs = method.needs(method.hp)
        batch = min(stage.batch or task.batch, task.n_rows)
        if batch < needs.min_batch:
            raise UserError(
                f"stage {stage.name!r} has batches of {batch} rows, the method needs at least {needs.min_batch}; "
                "raise train.batch or the number of training rows"
            )
        self.method, self.stage, self.task = method, stage, task
        self.ranks = task.ranks
        if self.ranks.several:
            if stage.step is not None:
                raise UserError(f"stage {stage.name!r} makes its own updates; start the run without torchrun")
            for net in (method, *method.teachers.values()):
                join_norms(net)
            self.ranks.equalise(method)
        self.loader = task.loader(stage, needs.min_batch)
        self.ranks.require_rows(self.loader.smallest)
        self.total = stage.steps if stage.steps is not None else (stage.epochs or 0) * self.loader.steps
        self._draw = draw or self.loader.draw
        if task.ahead is not None:
            end = self.total if stage.losses is not None else None
            self._draw = task.ahead.over(stage.name, self.loader, self._draw, end)
        self._drawn_within = draw is None and self.loader.on_device
        own = task.spec.train.optimizer
        self.optimizers = {group.name: optim.build(group, own, task.options) for group in stage.groups}
        if len(self.optimizers) != len(stage.groups):
            raise ValueError(f"stage {stage.name!r}: two groups have one name")
        self._base_lr = {name: float(o.param_groups[0]["lr"]) for name, o in self.optimizers.items()}
        self._schedules = {group.name: group.schedule for group in stage.groups}
        self.step_number = 0
        self.draws = 0
        self.bad = torch.zeros((), dtype=torch.bool, device=task.device)
        self._rng = torch.Generator(task.device)
        self._replay: Replay | None = None
        if task.options.cuda_graphs and stage.losses is not None:
            rngs = (self._rng, self.loader.rng)
            self._replay = Replay(stage.name, self._from, task.device, rngs)

    def close(self) -> None:
        """End what makes batches ahead; without it that is left to the collector of garbage."""
        self.loader.close()

    def at(self) -> At:
        """Where the stage stands before its next step."""
        epochs = self.stage.epochs or 0
        epoch = self.step_number // self.loader.steps if epochs else 0
        self._rng.manual_seed(derive(self.task.seed, "step", self.stage.name, self.step_number))
        return At(self.step_number, epoch, epochs, self.step_number / max(1, self.total), self._rng)

    def lr_factor(self, schedule: Literal["task", "constant"] | tuple[float, ...] = "task") -> float:
        """A group's factor before the next step; on the task's schedule the stage's length stands for its epochs."""
        if schedule == "constant":
            return 1.0
        if schedule != "task":
            return float(0.1 ** sum(self.step_number >= part * self.total for part in schedule))
        epochs = self.task.spec.train.epochs
        if self.stage.epochs == epochs:
            done = self.step_number / self.loader.steps
        else:
            done = epochs * self.step_number / max(1, self.total)
        return optim.factor(self.task.spec.train.schedule, done, epochs)

    def learning_rate(self) -> float:
        """Of the first group, before the next step; 0 of a stage without optimisers."""
        name = next(iter(self._base_lr), None)
        if name is None:
            return 0.0
        return self._base_lr[name] * self.lr_factor(self._schedules[name])

    def draw(self) -> Batch:
        """The next batch; of several processes each has its own rows of it."""
        self.draws += 1
        return self.ranks.split(self._draw(self.draws - 1))

    def update(self, loss: Tensor, group: str | None = None) -> None:
        """Zero-grad, backward and step of one group, or of all. A parameter without a gradient is not stepped."""
        names = [group] if group is not None else list(self.optimizers)
        self.bad |= ~torch.isfinite(loss.detach())
        for name in names:
            self.optimizers[name].zero_grad(set_to_none=True)
        (loss * self.ranks.share if self.ranks.several else loss).backward()
        if self.ranks.several:
            self.ranks.sum_gradients([p for n in names for g in self.optimizers[n].param_groups for p in g["params"]])
        if (most := self.task.spec.train.clip) is not None:
            torch.nn.utils.clip_grad_norm_(
                [p for n in names for g in self.optimizers[n].param_groups for p in g["params"]], most
            )
        for name in names:
            self.optimizers[name].step()

    def step(self, *, eagerly: bool = False) -> dict[str, Tensor]:
        """One update; returns the detached terms, ``total`` among them for a stage with losses.

        ``eagerly``: every operator is launched, even where a graph of the step could be replayed.
        """
        for name, optimizer in self.optimizers.items():
            optim.set_lr(optimizer, self._base_lr[name] * self.lr_factor(self._schedules[name]))
        at = self.at()
        if self.stage.step is not None:
            terms = self.stage.step(self.draw, at, self.update)
        elif self._replay is None or eagerly:
            terms = self._whole(self.draw(), at)
        else:
            terms = self._replay(self._given(), at)
        self.step_number += 1
        return self.ranks.sum_terms(terms)

    def _given(self) -> Given:
        """What a replayed step is given: row numbers where it can draw their batch itself, or the batch."""
        if not self._drawn_within:
            return self.draw()
        self.draws += 1
        return self.loader.chosen(self.draws - 1)

    def _from(self, given: Given, at: At) -> dict[str, Tensor]:
        """A whole step, from either."""
        return self._whole(given if isinstance(given, Batch) else self.loader.made(given), at)

    def _whole(self, batch: Batch, at: At) -> dict[str, Tensor]:
        """All of a step with losses that follows the batch."""
        assert self.stage.losses is not None
        terms = self.stage.losses(batch, at)
        if self.step_number == 0:
            _require_terms(terms)
        total = torch.stack(list(terms.values())).sum() if len(terms) > 1 else next(iter(terms.values()))
        self.update(total)
        if isinstance(terms, Terms):
            batch = replace(batch, handed=terms.handed)
        with torch.no_grad():
            self.method.after_step(batch, at)
        return {name: term.detach() for name, term in {**terms, "total": total}.items()}

    def state(self) -> dict[str, Any]:
        """All that the next steps depend on, as tensors and plain values."""
        return {
            "method": self.method.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "step": self.step_number,
            "draws": self.draws,
            "rng": torch.get_rng_state(),
            "device_rng": backends.of(self.task.device).random_state(self.task.device),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state`."""
        self.method.load_state_dict(state["method"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.step_number, self.draws = state["step"], state["draws"]
        torch.set_rng_state(state["rng"].cpu())
        if state["device_rng"] is not None:
            backends.of(self.task.device).set_random_state(self.task.device, state["device_rng"])


def _require_terms(terms: Any) -> None:
    """Raises TypeError for what is no named losses; asked at the first step alone."""
    if not isinstance(terms, Mapping) or not terms:
        raise TypeError(f"losses() returned {_shown(terms)}; a mapping of a name to each loss is asked for")
    for name, term in terms.items():
        if not isinstance(name, str):
            raise TypeError(f"losses() names a term {name!r}; a name is a text")
        if not isinstance(term, Tensor) or term.ndim or not term.is_floating_point():
            raise TypeError(f"losses() returned {_shown(term)} as {name!r}; a tensor of one real number is asked for")


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype} and shape {tuple(value.shape)}"
    return "nothing" if value is None else f"a {type(value).__name__}"
