"""Any image net of timm behind :class:`kdbench.contract.Out`.

timm takes seconds to import, so this module is imported for a ``timm:`` net only.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn

from kdbench.base.errors import UserError, nearest
from kdbench.contract import Network, Out
from kdbench.models.base import scores
from kdbench.models.plan import undivided
from kdbench.models.stages import stage_points
from kdbench.models.trace import trace


class TimmNetwork(Network):
    """A timm net: maps as (N, C, H, W) from its feature points, ``emb`` the input of its linear classifier.

    There is no ``preact``, and neither stage norms nor tails: timm's nets have no common notion of them.

    Args:
        name: timm's name, with or without a weight tag (``resnet34.tv_in1k``).
        input_shape: (channels, height, width).
        outputs: classes, or 1 for a regression.

    Raises:
        UserError: no such net, or one that lacks feature points or a single linear classifier, or refuses the input.
    """

    def __init__(self, name: str, input_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.name = name
        self.options: dict[str, Any] = {"in_chans": input_shape[0]}
        if not timm.is_model(name.split(".")[0]):
            raise UserError(f"timm has no net {name!r}{nearest(name, timm.list_models())}")
        try:
            if getattr(timm.models.get_pretrained_cfg(name), "fixed_input_size", False):
                self.options["img_size"] = input_shape[1:]
            body: Any = timm.create_model(name, num_classes=outputs, **self.options)
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(f"timm cannot build {name!r} for inputs {input_shape}: {error}") from error
        if not hasattr(body, "forward_intermediates") or not isinstance(body.get_classifier(), nn.Linear):
            raise UserError(f"timm net {name!r} lacks feature points or a single linear classifier; choose another net")
        self.body = body
        self.stem_point, self.points = stage_points([point["reduction"] for point in body.feature_info])
        self._require_timms_scores(input_shape)

    @torch.no_grad()
    def _require_timms_scores(self, input_shape: tuple[int, ...]) -> None:
        """Raises :class:`UserError` where timm's own scores are not those of the linear classifier on ``emb``."""
        x = torch.randn(1, *input_shape, generator=torch.Generator().manual_seed(0))
        self.eval()
        try:
            cut = undivided(trace(self.body, input_shape), input_shape)
            own = self.body(x)
            ours = self.encode(x).logits
        except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"timm net {self.name!r} cannot read inputs {input_shape}: {_line(error)}; choose another net or size"
            ) from error
        self.train()
        if cut is not None:
            raise UserError(f"timm net {self.name!r} cannot read inputs {input_shape}: {cut}")
        same = isinstance(own, Tensor) and own.numel() == ours.numel()
        if not (same and torch.allclose(own.flatten(), ours.flatten(), rtol=1e-3, atol=1e-4)):
            raise UserError(
                f"timm net {self.name!r} has scores that are not those of one linear classifier on its pooled features "
                "(it adds an auxiliary head or averages several); choose another net"
            )

    def encode(self, x: Tensor) -> Out:
        final, features = self.body.forward_intermediates(x, output_fmt="NCHW")
        emb = self.body.forward_head(final, pre_logits=True)
        stem = None if self.stem_point is None else features[self.stem_point]
        return Out(scores(self.classifier, emb), tuple(features[i] for i in self.points), (), stem, emb)

    @property
    def classifier(self) -> nn.Linear:
        return self.body.get_classifier()

    def pretrained(self) -> dict[str, Tensor]:
        """State of this net as timm ships it, with timm's adaptation to the input's size.

        Raises:
            UserError: the weights are for inputs of another number of channels.
        """
        shipped, given = timm.models.get_pretrained_cfg(self.name), self.options["in_chans"]
        if shipped is not None and (trained := shipped.input_size[0]) != given:
            raise UserError(
                f"timm's weights of {self.name!r} are for {trained}-channel pictures, the input has {given}; "
                "train it here (weights auto) or name weights of your own"
            )
        return timm.create_model(self.name, pretrained=True, **self.options).state_dict()


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def build(input_shape: tuple[int, ...], outputs: int, name: str) -> TimmNetwork:
    """A :class:`TimmNetwork` for (channels, height, width) inputs."""
    return TimmNetwork(name, input_shape, outputs)
