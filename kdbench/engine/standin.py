"""What stands in a frozen teacher's place where its answers need not be computed batch by batch."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from kdbench.contract import Batch, Needs, Network, Out

OFFERED = frozenset({"classifier"})
"""What a stand-in offers of its teacher beside answers, in the words of ``Needs``."""


def refusal(needs: Needs, fields: Collection[str], offered: Collection[str] = ()) -> str | None:
    """Why the teachers of a method compute as ever, what it does; None where something may stand in their place.

    Args:
        fields: of :class:`Out`, those that a stand-in answers with.
        offered: what else the method may read.
    """
    if needs.trains_teacher:
        return "trains its teachers"
    if needs.teacher_batchnorm == "batch":
        return "has its teachers normalise by the batch"
    if others := sorted(needs.teacher - {*fields, *offered}):
        return f"reads {', '.join(others)} of its teachers"
    return None if needs.teacher - {*offered} else "reads no answers of its teachers"


def only(fields: Mapping[str, Any]) -> Out:
    """An answer of some fields."""
    return Out(None)._replace(**fields)


class StandIn(Network):
    """A network in a frozen teacher's place.

    Args:
        net: the teacher, frozen.
    """

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net, self.input, self.reduced, self.asked = net, net.input, net.reduced, net.asked
        self._computes = False
        self.train(net.training)

    def __deepcopy__(self, memo: dict[int, Any]) -> Network:
        """A copy is another network, which may be trained."""
        return copy.deepcopy(self.net, memo)

    @property
    def classifier(self) -> nn.Linear:
        return self.net.classifier

    def _knows(self, batch: Batch) -> bool:
        """Whether a batch may be answered from what is known: its teacher is as it was, and nothing is hidden."""
        return not (self._computes or self.net.training or batch.visible is not None)
