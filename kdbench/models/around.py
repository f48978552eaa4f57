"""What nets around another net of the zoo share: their body's stage norms, and the weights that come with it."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

from kdbench.base.errors import UserError
from kdbench.contract import Network, NotApplicable

N = TypeVar("N", bound=Network)


def headless(net: N) -> N:
    """The net without its classifier, in whose place an identity stands; a net that has none is as it was."""
    try:
        last = net.classifier
    except NotApplicable:
        return net
    for path, module in list(net.named_modules()):
        if module is last:
            owner, _, name = path.rpartition(".")
            setattr(net.get_submodule(owner), name, nn.Identity())
    return net


class Around(Network):
    """A net with another one, ``body``, within; a subclass says what it makes of its outputs."""

    body: Network

    def norm(self, stage: int) -> tuple[Tensor, Tensor]:
        return self.body.norm(stage)

    def pretrained(self) -> dict[str, Tensor]:
        """The body's state as it comes with the net; what is not of the body's shapes keeps its own, such as a head.

        Raises:
            UserError: no weights come with the body.
        """
        shipped = getattr(self.body, "pretrained", None)
        if shipped is None:
            raise UserError(f"no weights come with {type(self.body).__name__}; name a file or 'hub:<id>'")
        own = self.state_dict()
        given = {f"body.{key}": value for key, value in shipped().items()}
        return own | {key: value for key, value in given.items() if key in own and own[key].shape == value.shape}
