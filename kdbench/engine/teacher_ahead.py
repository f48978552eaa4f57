"""Teachers that are asked about several batches at once (``engine.teacher_ahead``): fewer launches, larger batches.

A frozen teacher in eval mode answers for each row alone. So it may be asked about the next batches together, and each
step reads its own rows of the answer; what is drawn, and with which numbers, stays as it is. Kernels may round a row
otherwise in a larger batch. That a teacher goes row by row is tried, not believed: the first batch of a run's first
group is answered alone as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.contract import Batch, Needs, Network, Out
from kdbench.devices import backends
from kdbench.engine import accelerate
from kdbench.engine.ahead import Ahead, Answers, Group, tensors
from kdbench.engine.standin import OFFERED, StandIn, only, refusal
from kdbench.engine.task import Task
from kdbench.specs.config import RunConfig
from kdbench.specs.options import Precision

ANSWERED = tuple(field for field in Out._fields if field != "dense")
"""Fields of :class:`Out` that hold a row's answer as rows of tensors."""
ROUNDING: dict[Precision, float] = {"fp32": 1e-3, "tf32": 1e-2, "bf16": 5e-2}
"""How far rows may differ in a larger batch, in parts of a field's largest number; mixed ones differ by more."""


def asking(
    config: RunConfig, needs: Needs, nets: Mapping[str, Network], task: Task, say: Callable[[str], None]
) -> dict[str, Network]:
    """A method's teachers as it gets them: asked ahead, or of those that are not a line is said.

    Args:
        nets: the teachers by role, as they compute.
        task: of the run; its batches are drawn in groups from now on, if any teacher is asked so.
        say: told in one line what is asked otherwise.
    """
    if not nets:
        return {}
    ahead = Ahead(config.engine.teacher_ahead, say)
    if (reason := refusal(needs, ANSWERED, OFFERED)) is not None:
        ahead.say_once(f"{config.method.ref.name} {reason}; they compute batch by batch")
        return dict(nets)
    task.ahead = ahead
    fields = [field for field in ANSWERED if field in needs.teacher]
    rounding = ROUNDING[config.engine.teacher_dtype or config.engine.precision]
    return {role: TeacherAhead(role, net, fields, ahead, rounding) for role, net in nets.items()}


class TeacherAhead(StandIn):
    """A teacher that is asked about the batches of a group together.

    Args:
        role: its name in messages.
        net: the teacher, frozen.
        fields: of :class:`Out`, those that its method reads.
        ahead: the batches at hand.
        rounding: how far rows may differ beside others, see ``ROUNDING``.
    """

    def __init__(self, role: str, net: Network, fields: Sequence[str], ahead: Ahead, rounding: float) -> None:
        super().__init__(net)
        self._role, self._fields, self._ahead, self._rounding = role, list(fields), ahead, rounding
        self._tried, self._hooks = False, _hooks(net)

    def forward(self, batch: Batch) -> Out:
        """The fields that the method reads, of a batch that was drawn; of others everything."""
        group = self._ahead.group
        if group is None or not self._knows(batch):
            return self.net(batch)
        place = group.place(batch.x[self.input])
        if place is None:
            self._ahead.say_once("some batches are not those drawn (views, mixtures, other rows); they are asked alone")
            return self.net(batch)
        held = group.answers.get(self)
        out = None if held is None else held.take(place)
        if out is None:
            held = self._asked(group)
            if held is None:
                return self.net(batch)
            group.answers[self] = held
            out = held.take(place)
            assert out is not None
        return out

    def _asked(self, group: Group) -> Answers | None:
        """Answers for all batches of a group; None where the teacher computes from now on."""
        joined, rows = group.joined(), group.rows
        if not self._tried and _hooks(self.net) != self._hooks:
            self._compute_from_now("is looked into by hooks")
            return None
        if self._tried or len(rows) == 1:
            together = self._of(joined)
        else:
            with backends.random_states_kept():
                together, alone = self._of(joined), self._alone(group.batches[0])
            if not self._alike(together, alone):
                self._compute_from_now("answers a row otherwise beside others")
                return None
            self._tried = True
        if any(len(tensor) != sum(rows) or tensor.requires_grad for tensor in tensors(together)):
            self._compute_from_now("gives no answers of single rows, or is trained")
            return None
        ends = torch.tensor(rows).cumsum(0).tolist()
        return Answers([_part(together, slice(end - of, end)) for of, end in zip(rows, ends, strict=True)])

    def _of(self, batch: Batch) -> Out:
        out = self.net(batch)
        return only({name: getattr(out, name) for name in self._fields if out.has(name)})

    def _alone(self, batch: Batch) -> Out:
        """The same of one batch, eager: no kernels are compiled for it."""
        with accelerate.eager(self.net):
            return self._of(batch)

    def _alike(self, together: Out, alone: Out) -> bool:
        """Whether the first rows of an answer are those of another, but for rounding."""
        pairs = list(zip(tensors(together), tensors(alone), strict=True))
        if any(one.shape[1:] != other.shape[1:] or len(one) < len(other) for one, other in pairs):
            return False
        far = [
            (one[: len(other)] - other).abs().max() <= self._rounding * other.abs().max()
            for one, other in pairs
            if other.is_floating_point() and other.numel()
        ]
        return not far or bool(torch.stack(far).all())  # waits for the device, once a run

    def _compute_from_now(self, why: str) -> None:
        self._computes = True
        self._ahead.say_once(f"teacher {self._role!r} {why}; it computes batch by batch")


def _hooks(net: nn.Module) -> int:
    """How many look at what passes a network's modules."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in net.modules())


def _part(out: Out, rows: slice) -> Out:
    """Some rows of an answer, in its memory."""

    def of(value: Any) -> Any:
        if value is None or isinstance(value, Tensor):
            return value if value is None else value[rows]
        return tuple(tensor[rows] for tensor in value)

    return Out(*map(of, out[:]))
