"""What nets of dense prediction share: a backbone of which stages are read, and parts that another net can lend."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from torch import Tensor

from kdbench.base.errors import UserError
from kdbench.contract import Network, NotApplicable
from kdbench.models.pyramid import Body, TimmBody

LATERAL = "fpn.inner_blocks."
"""Of the names of a pyramid's convolutions that read the backbone."""


class InParts(Network):
    """A net of named modules around a backbone.

    Args:
        body: the backbone.

    Attributes:
        parts: names of the modules that can start from another net's.
    """

    parts: ClassVar[tuple[str, ...]] = ("body",)

    def __init__(self, body: Body | TimmBody) -> None:
        super().__init__()
        self.body = body

    def norm(self, stage: int) -> tuple[Tensor, Tensor]:
        found = self.body.norm(stage)
        if found is None:
            raise NotApplicable("its backbone has no batch norm right before the activation of a stage")
        return found.weight, found.bias

    def init_from(self, other: Network, parts: Collection[str]) -> None:
        """As of every network; of the neck, what reads the backbone stays where backbones differ in width."""
        for part in parts:
            if part not in self.parts:
                raise NotApplicable(f"a {type(self).__name__} has the parts {', '.join(self.parts)}, no {part}")
            own, given = getattr(self, part), getattr(other, part, None)
            try:
                if given is None:
                    raise RuntimeError("there is none")
                mine, state = own.state_dict(), given.state_dict()
                for key in mine.keys() & state.keys():
                    if LATERAL in key and mine[key].shape != state[key].shape:
                        state[key] = mine[key]
                own.load_state_dict(state)
            except RuntimeError as error:
                line = str(error).strip().splitlines()[-1].strip()
                raise NotApplicable(f"its {part} cannot start from the teacher's: {line}") from error

    def pretrained(self) -> dict[str, Tensor]:
        """The backbone's state as it comes with the net; the other parts keep their own.

        Raises:
            UserError: none comes with it.
        """
        shipped = self.body.pretrained()
        if shipped is None:
            raise UserError("no weights come with this net's backbone; name a file or 'hub:<id>'")
        own = self.state_dict()
        return own | {f"body.{key}": value for key, value in shipped.items() if f"body.{key}" in own}
