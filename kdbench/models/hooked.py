"""Any module, unchanged, behind :class:`kdbench.contract.Out`: what is read of it passes taps on its submodules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from kdbench.base.errors import UserError, described
from kdbench.contract import Network, NotApplicable, Out
from kdbench.models.hooks import Point, Watch, attach, watching
from kdbench.models.plan import Plan, logits_of, plan, pooled, undivided
from kdbench.models.trace import Trace, trace
from kdbench.specs import nets
from kdbench.specs.nets import Taps


class Hooked(Network):
    """A module as a network. Its values and its state are the module's own, behind ``body.``.

    Args:
        name: what messages call it.
        body: freshly initialised; changed only by its taps.
        taps: what is read of it.
        input_shape: of one input without the batch.
        outputs: classes, or 1 for a regression.
        seen: a look at the module, where there was one.

    Raises:
        UserError: it cannot read such inputs, or the taps do not fit it.
    """

    def __init__(
        self,
        name: str,
        body: nn.Module,
        taps: Taps,
        input_shape: tuple[int, ...],
        outputs: int,
        seen: Trace | None = None,
        shipped: Callable[[], Mapping[str, Tensor]] | None = None,
    ) -> None:
        super().__init__()
        self.name, self.taps, self.input_shape, self.outputs = name, taps, tuple(input_shape), outputs
        self.plan: Plan = plan(taps, seen or look(name, body, input_shape), outputs, name)
        self._shipped = shipped
        attach(body, self.plan.points())
        self.body = body

    def encode(self, x: Tensor) -> Out:
        with watching() as watch:
            answer = self.body(x)
        logits = logits_of(answer, self.name)
        if self.outputs == 1 and logits.ndim == 2 and logits.shape[1] == 1:
            logits = logits.squeeze(1)
        own = self.plan
        stem = self._map(watch, own.stem) if own.stem is not None else None
        # A method may put another layer in the place of the classifier, whose tap is then gone.
        emb = pooled(watch.at(own.emb)) if own.emb is not None and watch.passed(own.emb) else None
        maps, preact = (tuple(self._map(watch, point) for point in points) for points in (own.maps, own.preact))
        return Out(logits, maps, preact, stem, emb)

    def _map(self, watch: Watch, point: Point) -> Tensor:
        """What passed a tap as (N, C, ...)."""
        tensor = watch.at(point)
        if tensor.ndim == 2:
            return tensor.unsqueeze(-1)
        if self.taps.layout == "channels last":
            return tensor.movedim(-1, 1)
        if self.taps.layout == "tokens" and tensor.ndim == 3:
            return self._grid(tensor[:, self.taps.extra :].transpose(1, 2), point)
        return tensor

    def _grid(self, patches: Tensor, point: Point) -> Tensor:
        """(N, C, T) patches as (N, C, H, W) in the proportions of the input."""
        if len(self.input_shape) != 3:
            return patches
        count, (_, height, width) = patches.shape[-1], self.input_shape
        rows = max(1, round((count * height / width) ** 0.5))
        if rows * round(count / rows) != count:
            raise UserError(
                f"net {self.name!r}: {point.text!r} gives {count} tokens behind {self.taps.extra} others, which are no "
                "rows and columns of patches; set extra to the number of class and register tokens"
            )
        return patches.unflatten(-1, (rows, count // rows))

    @property
    def classifier(self) -> nn.Linear:
        if self.plan.classifier is None:
            raise NotApplicable(f"{self.name} offers no classifier: {self.plan.unclassified}")
        return self.body.get_submodule(self.plan.classifier)  # type: ignore[return-value]

    def norm(self, stage: int) -> tuple[Tensor, Tensor]:
        if not self.plan.norms:
            raise NotApplicable(f"{self.name} names no batch norms before the activations of its stages")
        module: Any = self.body.get_submodule(self.plan.norms[stage])
        return module.weight, module.bias

    def pretrained(self) -> Mapping[str, Tensor]:
        """State of the module as it was given or is shipped.

        Raises:
            UserError: it comes without weights.
        """
        if self._shipped is None:
            raise UserError(f"net {self.name!r} comes without weights; name a file, or train it here (weights auto)")
        return self._shipped()


def look(name: str, body: nn.Module, input_shape: tuple[int, ...]) -> Trace:
    """One look at a module on inputs of a shape.

    Raises:
        UserError: it cannot read them, or its patches do not divide them.
    """
    try:
        seen = trace(body, input_shape)
    except Exception as error:  # whatever its layers raise
        raise UserError(
            f"net {name!r} cannot read inputs of {tuple(input_shape)}: {type(error).__name__}: "
            f"{described(error, ours=False)}; choose another size of the data or another net"
        ) from error
    if (why := undivided(seen, tuple(input_shape))) is not None:
        raise UserError(f"net {name!r} cannot read inputs of {tuple(input_shape)}: {why}")
    return seen


def build(input_shape: tuple[int, ...], outputs: int, name: str) -> Hooked:
    """A declared net, see :func:`kdbench.specs.nets.net`.

    Raises:
        UserError: its factory fails or makes no module, or the module does not fit what is declared.
    """
    found = nets.find(name)
    if found is None:
        raise UserError(f"no net is called {name!r}")
    what = f"net {name!r} of {found.where}"
    try:
        body = found.factory(tuple(input_shape), outputs)
    except Exception as error:  # whatever its code does
        raise UserError(
            f"{what} cannot be made for inputs of {tuple(input_shape)} and {outputs} outputs: "
            f"{type(error).__name__}: {described(error, ours=False)}"
        ) from error
    if not isinstance(body, nn.Module):
        raise UserError(f"{what}: its factory returns a {type(body).__name__}, not an nn.Module")
    if any(parameter.is_meta for parameter in body.parameters()):
        raise UserError(f"{what}: its weights are on the meta device; let the factory make them on the CPU")
    own = partial(_shipped, name) if hasattr(found.factory, "shipped") else None
    return Hooked(name, body, found.taps, input_shape, outputs, shipped=own)


def _shipped(name: str) -> Mapping[str, Tensor]:
    """The weights that a declared net came with: by name, so that no copy of a network holds a copy of them."""
    found: Any = nets.find(name)
    state: Mapping[str, Tensor] = found.factory.shipped()
    return state
