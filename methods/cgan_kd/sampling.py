"""From proposals of a generator to the set the student trains on: rejection, the teacher's filter, relabelling.

No loop here can go on for ever: each is bounded by a number of rounds and ends in an error that names the label.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Draw = Callable[[int], Tensor]
"""Number wanted to so many fakes of one label."""


class SamplingError(RuntimeError):
    """No usable fakes can be had for a label; the message says which and what to change."""


def accept(ratios: Tensor, uniforms: Tensor, maximum: Tensor) -> tuple[Tensor, Tensor]:
    """Which proposals of a batch are accepted, (N,) bool, and the maximum from here on, 0-d.

    Args:
        ratios: (N,) density ratios.
        uniforms: (N,) psi in [0, 1).
        maximum: largest ratio so far; the batch counts before it is judged.
    """
    maximum = torch.maximum(maximum, ratios.max())
    return uniforms <= ratios / maximum, maximum


class Rejection:
    """Fakes of one label, accepted with probability ratio / M, M the largest ratio seen of that label.

    Args:
        propose: number wanted to fakes and their ratios (N,).
        uniform: number wanted to values in [0, 1).
        burn_in: fakes that M starts from.
        batch: proposals of a round.
        label: for errors.
        max_rounds: bound of one call.

    Attributes:
        proposed, accepted: so far, without the burn-in.

    Raises:
        SamplingError: every ratio is 0, one is not finite, or ``max_rounds`` brought too few.
    """

    def __init__(
        self,
        propose: Callable[[int], tuple[Tensor, Tensor]],
        uniform: Draw,
        burn_in: int,
        batch: int,
        label: object,
        max_rounds: int,
    ) -> None:
        self._propose, self._uniform, self._batch = propose, uniform, batch
        self._label, self._max_rounds = label, max_rounds
        self.maximum = propose(burn_in)[1].max()
        self.proposed = self.accepted = 0

    def __call__(self, n: int) -> Tensor:
        """The next n accepted fakes."""
        found: list[Tensor] = []
        missing = n
        for _ in range(self._max_rounds):
            fakes, ratios = self._propose(self._batch)
            taken, self.maximum = accept(ratios, self._uniform(self._batch).to(ratios), self.maximum)
            if not (torch.isfinite(self.maximum) and self.maximum > 0):
                raise SamplingError(
                    f"label {self._label}: the largest density ratio of its fakes is {float(self.maximum):g}, so none "
                    "can be accepted; train the GAN longer (method.gan_steps) or set method.subsample=false"
                )
            chosen = fakes[taken]
            self.proposed, self.accepted = self.proposed + len(fakes), self.accepted + len(chosen)
            found.append(chosen[:missing])
            missing -= len(found[-1])
            if missing == 0:
                return torch.cat(found)
        raise SamplingError(
            f"label {self._label}: {n - missing} of {n} fakes accepted after {self._max_rounds} rounds; raise "
            "method.max_rounds or set method.subsample=false"
        )


def class_losses(logits: Tensor, label: int) -> Tensor:
    """Cross-entropy (N,) of logits (N, K) against one class."""
    return F.cross_entropy(logits, torch.full((len(logits),), label, device=logits.device), reduction="none")


def below(losses: Tensor, cutoff: Tensor) -> Tensor:
    """Places of the losses strictly below the cut-off, ascending."""
    return (losses < cutoff).nonzero().squeeze(1)


def filtered(
    draw: Draw, teacher: Callable[[Tensor], Tensor], n: int, burn_in: int, rho: float, label: int, max_rounds: int
) -> tuple[Tensor, Tensor]:
    """n fakes of a class on which the teacher's loss is below the rho-quantile of a separate sample; and its logits.

    Args:
        draw: gives fakes of the class.
        teacher: fakes to logits (N, K).
        burn_in: size of that sample.

    Raises:
        SamplingError: nothing of that sample is below its own quantile, because the teacher's losses are equal; or
            ``max_rounds`` rounds brought too few.
    """
    sample = class_losses(teacher(draw(burn_in)), label)
    cutoff = sample.quantile(rho)
    if not len(below(sample, cutoff)):
        raise SamplingError(
            f"label {label}: no teacher loss of {burn_in} fakes is below their quantile {float(cutoff):.3g}; the "
            "teacher does not tell them apart: train the GAN longer or set method.filter=false"
        )
    fakes, outputs, missing = [], [], n
    for _ in range(max_rounds):
        proposed = draw(math.ceil(missing / rho))
        logits = teacher(proposed)
        kept = below(class_losses(logits, label), cutoff)[:missing]
        fakes.append(proposed[kept])
        outputs.append(logits[kept])
        missing -= len(kept)
        if missing == 0:
            return torch.cat(fakes), torch.cat(outputs)
    raise SamplingError(
        f"label {label}: {n - missing} of {n} fakes have a teacher loss below {float(cutoff):.3g} after {max_rounds} "
        "rounds; raise method.max_rounds or method.filter_burn_in, or set method.filter=false"
    )


def label_errors(output: Tensor, labels: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The teacher's labels (N,), its output in [0, 1] times the label range, and their distances from ``labels``."""
    predicted = output.clamp(0, 1) * scale
    return predicted, (predicted - labels).abs()


def filter_scalars(errors: Tensor, rho: float) -> tuple[Tensor, Tensor]:
    """Places of the errors (N,) strictly below their own rho-quantile, and that cut-off.

    Raises:
        SamplingError: none is below, because all are equal.
    """
    cutoff = errors.quantile(rho)
    kept = below(errors, cutoff)
    if not len(kept):
        raise SamplingError(
            f"all labels: the teacher's error is {float(cutoff):.3g} on every fake, none is below the cut-off; "
            "set method.filter=false"
        )
    return kept, cutoff
