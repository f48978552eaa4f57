"""Few-sample knowledge distillation (Li, Li, Liu, Zhang, CVPR 2020): a pruned net is repaired layer by layer.

Shapes: N pictures, C channels of a layer of the student, P positions of all pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kdbench.base.errors import UserError
from kdbench.contract import At, Batch, Needs, NotApplicable, Stage, Update
from kdbench.methods.shared.phases import Phased
from kdbench.models.pruning import Pair, cut, pairs

CHUNK = 256
"""Most pictures that go through the networks at once."""


class Moments(NamedTuple):
    """What least squares need of features (P, C) of both networks, sums over P in float64.

    Attributes:
        own: (C, C) of the student's channels with one another.
        cross: (C, C) of the teacher's channels with the student's.
        energy: 0-d, of the teacher's squares.
        rows: P.
    """

    own: Tensor
    cross: Tensor
    energy: Tensor
    rows: int


def moments(student: Tensor, teacher: Tensor) -> Moments:
    """The moments of two (N, C, *size) maps of equal shape; the teacher's holds the channels that stayed."""
    x, y = (z.double().movedim(1, -1).flatten(0, -2) for z in (student, teacher))
    return Moments(x.T @ x, y.T @ x, y.square().sum(), len(x))


def fitted(found: Moments) -> Tensor:
    """(C, C) the smallest W of least ||X_s W^T - X_t||: a linear layer without bias, by the normal equations."""
    return found.cross @ torch.linalg.pinv(found.own, hermitian=True)


def residual(found: Moments, layer: Tensor) -> Tensor:
    """Mean of (X_s W^T - X_t)^2, 0-d."""
    squares = found.energy - 2 * (layer * found.cross).sum() + (layer @ found.own * layer).sum()
    return squares.clamp_min(0) / (found.rows * len(layer))


def absorbed(weight: Tensor, layer: Tensor, scale: Tensor | None = None) -> Tensor:
    """A convolution's weight (C, inputs, ...) with a linear layer (C, C) behind it taken in.

    Args:
        scale: (C,) by which a batch norm between the two multiplies; what it adds is left untouched. A channel of
            scale 0 keeps its filter.
    """
    filters = weight.double().flatten(1)
    if scale is None:
        return (layer @ filters).view_as(weight).to(weight)
    by = scale.double()[:, None]
    return torch.where(by == 0, filters, layer @ (by * filters) / by).view_as(weight).to(weight)


def norm_scale(norm: Any) -> Tensor:
    """(C,) by which a batch norm in eval mode multiplies."""
    return norm.weight / (norm.running_var + norm.eps).sqrt()


class FewSample(Phased):
    """Each convolution in turn, from the input on, is fitted to give what the teacher's gives in the channels left.

    Pre-activation maps of both networks on a few pictures, positions as rows, make a least-squares problem; its linear
    layer is taken into the convolution. No label is read and no gradient computed.
    """

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(
            kinds=frozenset({"classification", "regression"}),
            inputs="same",
            student=frozenset({"preact"}),
            teacher=frozenset({"preact", "norm"}),
            one_process="its layers are fitted one after the other, each as a whole",
        )

    def setup(self) -> None:
        role = next(iter(self.teachers))
        try:
            state = cut(self.student, self.teacher)
        except UserError as error:
            raise NotApplicable(f"its student has to be its teacher with channels left out: {error}") from error
        own = self.student.state_dict()
        if any(not torch.equal(value.to(own[key]), own[key]) for key, value in state.items()):
            raise NotApplicable(
                "its student has to be its teacher with channels left out, and starts from other weights; a task says "
                f"so by pair.student.weights=pruned:{role}"
            )
        self.layers = pairs(self.student, self.teacher)

    def stages(self) -> Iterator[Stage]:
        order = torch.randperm(self.task.n_train, generator=self.task.rng("pictures"))
        self.pictures = order[: self.hp.pictures].to(self.task.device)
        self.hold(self.student)
        yield Stage("recover", groups=[], step=self.recover, steps=len(self.layers), batch=len(self.pictures))

    @torch.no_grad()
    def recover(self, draw: Callable[[], Batch], at: At, update: Update) -> dict[str, Tensor]:
        """Fits the layer whose number the step has; the layers before it are fitted already."""
        pair = self.layers[at.step]
        parts = [self._moments(pair, rows) for rows in self.pictures.split(CHUNK)]
        whole = Moments(*(sum(of) for of in zip(*parts, strict=True)))
        layer = fitted(whole)
        weight: Tensor = pair.own.conv.weight  # type: ignore[assignment]
        weight.copy_(absorbed(weight, layer, norm_scale(pair.own.norm)))
        return {"residual": residual(whole, layer).to(weight.dtype)}

    def _moments(self, pair: Pair, rows: Tensor) -> Moments:
        """Those of a layer's maps before its ReLU, of some rows as they are without augmentation."""
        batch = self.task.wrap(self.task.rows(rows))
        own = seen(pair.own, self.student, batch)
        return moments(own, seen(pair.whole, self.teacher, batch)[:, pair.kept])


def seen(layer: nn.Module, net: nn.Module, batch: Batch) -> Tensor:
    """What a layer within a network gives for a batch."""
    found: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, given, out: found.append(out))
    try:
        net(batch)
    finally:
        hook.remove()
    return found[-1]
