"""Factor transfer (Kim, Park & Kwak, NeurIPS 2018): a paraphraser of the teacher, then a translator of the student."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.contract import At, Batch, Group, NotApplicable, Out, Stage
from kdbench.methods.shared.connectors import CONV, TRANSPOSED, ConvBN
from kdbench.methods.shared.matching import match, same_axes, unit, with_axes
from kdbench.methods.shared.objective import Imitation, phase_epochs

SLOPE = 0.1
"""Of every leaky ReLU."""


class Paraphraser(nn.Module):
    """An auto-encoder of the teacher's map: three convolutions, three transposed ones, a leaky ReLU after each.

    Args:
        channels: of the teacher's map.
        factors: channels of its code.
        axes: axes of positions of the maps.
    """

    def __init__(self, channels: int, factors: int, axes: int = 2) -> None:
        super().__init__()
        for coder, layer, widths in (
            ("enc", CONV[axes], (channels, channels, factors, factors)),
            ("dec", TRANSPOSED[axes], (factors, factors, channels, channels)),
        ):
            for i in range(3):
                self.add_module(f"{coder}{i}", layer(widths[i], widths[i + 1], 3, padding=1))

    def _layers(self, coder: str, x: Tensor) -> Tensor:
        for i in range(3):
            x = F.leaky_relu(self.get_submodule(f"{coder}{i}")(x), SLOPE)
        return x

    def encode(self, x: Tensor) -> Tensor:
        """(N, channels, *size) to (N, factors, *size)."""
        return self._layers("enc", x)

    def forward(self, x: Tensor) -> Tensor:
        """The map made again from its code."""
        return self._layers("dec", self.encode(x))


class Translator(nn.Sequential):
    """Three convolutions with batch norm and leaky ReLU, from the student's map to as many factors as the teacher's."""

    def __init__(self, channels: int, factors: int, axes: int = 2) -> None:
        widths = (channels, channels, factors, factors)
        layers = [CONV[axes](widths[i], widths[i + 1], 3, padding=1) for i in range(3)]
        super().__init__(*(ConvBN(layer, nn.LeakyReLU(SLOPE)) for layer in layers))


def summary(x: Tensor) -> Tensor:
    """(N, P) unit vectors of the channel mean of the squares of (N, C, *size)."""
    return unit(x.square().mean(dim=1).flatten(1))


def factor_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """mean |q(f_s) - q(f_t)| of the factors' summaries q, over rows and positions, 0-d; 0 for maps of one position.

    Args:
        student, teacher: factors (N, C, *size); the larger is pooled to the smaller, the teacher's is a constant.
    """
    student, teacher = match(student, teacher.detach())
    return (summary(student) - summary(teacher)).abs().mean()


class FT(Imitation):
    """The paraphraser learns the teacher's factors, is frozen, and the student's translator learns to match them."""

    reads = frozenset({"maps"})
    one_process = None

    def setup(self) -> None:
        task = self.task
        student, teacher = same_axes(task.probe(self.student).maps[-1], task.probe(self.teacher).maps[-1])
        if match(student, teacher)[0].shape[2:].numel() == 1:
            raise NotApplicable("the last maps have one position; factors of such maps are always equal")
        self.axes = student.ndim - 2
        factors = max(1, int(self.hp.factor_ratio * teacher.shape[1]))
        self.paraphraser = Paraphraser(teacher.shape[1], factors, self.axes)
        self.translator = Translator(student.shape[1], factors, self.axes)

    def _last(self, out: Out) -> Tensor:
        return with_axes(out.maps[-1], self.axes)

    def reconstruction(self, batch: Batch, at: At) -> dict[str, Tensor]:
        """Terms of the first phase."""
        x = self._last(self.teacher(batch)).detach()
        return {"reconstruction": F.mse_loss(self.paraphraser(x), x)}

    def imitation(self, out: Out, target: Out) -> dict[str, Tensor]:
        with torch.no_grad():
            factors = self.paraphraser.encode(self._last(target))
        return {"factor": self.hp.factor_weight * factor_loss(self.translator(self._last(out)), factors)}

    def groups(self) -> list[Group]:
        return [Group("student", [*self.student.parameters(), *self.translator.parameters()])]

    def stages(self) -> Iterator[Stage]:
        settings = {"lr": self.hp.paraphraser_lr}
        yield Stage(
            "paraphrase",
            groups=[Group("paraphraser", list(self.paraphraser.parameters()), settings, "constant")],
            losses=self.reconstruction,
            epochs=phase_epochs(self.hp.first_phase, self.task.epochs),
            ledger="warmup_phase",
            once=True,
        )
        yield from super().stages()
