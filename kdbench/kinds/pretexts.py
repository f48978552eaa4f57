"""What representations are learnt from instead of labels (``train.loss`` of a task); no kind of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kdbench.base.errors import nearest
from kdbench.base.yamlfile import describe
from kdbench.kinds.contrastive import ONE_PROCESS, contrast, pairs, two_views

if TYPE_CHECKING:
    from torch import Tensor

    from kdbench.contract import Batch, Out, Views


class _Pretext(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SimCLR(_Pretext):
    """Two views of a row are told from those of other rows (Chen et al., ICML 2020).

    Attributes:
        temperature: divides the cosines; that of the paper's CIFAR-10 runs (appendix B.9) unless given.
    """

    one_process: ClassVar[str] = ONE_PROCESS
    eager: ClassVar[str | None] = None
    least_batch: ClassVar[int] = 2
    name: Literal["simclr"] = "simclr"
    temperature: float = Field(default=0.5, gt=0)

    @property
    def views(self) -> Views:
        """Each row twice, each time augmented by itself."""
        return two_views()

    def loss(self, out: Out, batch: Batch) -> Tensor:
        """Mean over all pairs of views, 0-d; a batch of one view is compared with itself."""
        import torch

        return torch.stack([contrast(a, b, self.temperature) for a, b in pairs(out.logits, batch)]).mean()


class Masked(_Pretext):
    """Hidden patches of a picture are told from those that are seen (SparK: Tian et al., ICLR 2023; MAE: He et al.,
    CVPR 2022). What a net does with them is its own: a transformer leaves them out, a convolutional net keeps them 0.

    Attributes:
        patch: pixels of a patch's side.
        hide: share of a picture's patches.
        standardise: each patch has mean 0 and variance 1 before it is compared.
    """

    one_process: ClassVar[str] = "what is hidden is drawn for the whole batch, and batch norms count what is seen of it"
    eager: ClassVar[str | None] = "nets read pictures with hidden patches step by step"
    least_batch: ClassVar[int] = 1
    name: Literal["masked"]
    patch: int = Field(ge=1)
    hide: float = Field(gt=0, lt=1)
    standardise: bool = True

    @property
    def views(self) -> Views:
        """Each row once, some of its patches hidden."""
        from kdbench.contract import Hide, Views

        return Views(1, _once, hide=Hide(self.patch, self.hide))

    def loss(self, out: Out, batch: Batch) -> Tensor:
        """Mean squared error over hidden patches, 0-d.

        Raises:
            NotApplicable: a batch of whole pictures.
        """
        from kdbench.contract import NotApplicable, hidden_error

        if batch.visible is None:
            raise NotApplicable("its stage shows whole pictures, and the task's loss is of hidden patches")
        return hidden_error(*out.patches, batch.visible, self.standardise)


PRETEXTS: dict[str, type[SimCLR | Masked]] = {"simclr": SimCLR, "masked": Masked}
"""By ``name``."""


def given(settings: Mapping[str, Any]) -> SimCLR | Masked:
    """The pretext of a task's ``train.loss``.

    Raises:
        ValueError: an unknown name, or settings that it does not have; the message names the nearest.
    """
    if (name := settings.get("name")) not in PRETEXTS:
        raise ValueError(f"train.loss.name is {' or '.join(PRETEXTS)}{nearest(str(name), PRETEXTS)}; it is {name!r}")
    chosen = PRETEXTS[name]
    try:
        return chosen.model_validate(settings)
    except ValidationError as error:
        raise ValueError(f"train.loss: {describe(error, chosen)}") from error


def _once(pixels: Tensor, rng: object) -> Tensor:
    return pixels[None]
