"""Engine options: how a run's arithmetic is done, never what it computes. A person sets them as ``engine.<option>=``.

All are off by default: fp32, eager, nets as they are built. Runs of unequal options are never compared, for the options
are in the specification hash and in the device class.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import model_validator

from kdbench.base.fields import Part

Dtype = Literal["fp32", "bf16"]
Precision = Literal["fp32", "tf32", "bf16"]

PREFIX = "engine."
"""What the keys of the options begin with."""


class EngineOptions(Part):
    """How the networks of a run compute. Losses and a method's own modules stay in fp32.

    Attributes:
        precision: type of the arithmetic inside the networks; bf16 is autocast, their outputs come back as fp32. With
            tf32 convolutions and matrix products of the whole run round their fp32 operands to 10 bits, as torch lets
            convolutions do by default; with the others they do not.
        compile: the networks' forward is compiled (torch.compile); scoring stays eager.
        cuda_graphs: what follows a batch (losses, gradients, update, banks) is replayed as one CUDA graph. Stages that
            make updates of their own are not.
        channels_last: 4-D weights lie channels last, and so do the maps that follow.
        fold_teacher: batch norms of frozen teachers in eval mode are folded into the convolutions before them. A
            teacher that is trained, that normalises by the batch, or whose norms or tails the method reads keeps them.
        teacher_dtype: type of the arithmetic inside the teachers; as ``precision`` when None.
        fused: optimisers update in one fused kernel.
    """

    precision: Precision = "fp32"
    compile: bool = False
    cuda_graphs: bool = False
    channels_last: bool = False
    fold_teacher: bool = False
    teacher_dtype: Dtype | None = None
    fused: bool = False

    @model_validator(mode="before")
    @classmethod
    def _one_spelling(cls, given: Any) -> Any:
        """A teacher's type that is the students' is no option of its own."""
        if isinstance(given, dict) and given.get("teacher_dtype") == given.get("precision", "fp32"):
            return {**given, "teacher_dtype": None}
        return given

    @model_validator(mode="after")
    def _possible_together(self) -> Self:
        if self.cuda_graphs and not self.fused:
            raise ValueError("cuda_graphs replays the update too, which must be fused; set engine.fused=true as well")
        if self.precision == "tf32" and self.teacher_dtype == "fp32":
            raise ValueError("teacher_dtype=fp32: products are in TF32 in a whole process; set engine.precision=fp32")
        return self

    def changed(self) -> dict[str, Any]:
        """The options that are not off, as JSON data."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def without_teacher(self) -> Self:
        """The options that bear on a run which has no teacher."""
        return self.model_copy(update={"fold_teacher": False, "teacher_dtype": None})

    def for_scoring(self, on_its_device: bool) -> Self:
        """The options that bear on a network which is only asked; on another kind of device without TF32."""
        kept = self.without_teacher().model_copy(update={"cuda_graphs": False, "compile": False, "fused": False})
        if on_its_device or self.precision != "tf32":
            return kept
        return kept.model_copy(update={"precision": "fp32"})

    def marks(self) -> tuple[str, ...]:
        """The options that are on as a device class names them, the precision apart: ``compile``, ``channels-last``."""
        named = {
            "compile": self.compile,
            "cuda-graphs": self.cuda_graphs,
            "channels-last": self.channels_last,
            "fold-teacher": self.fold_teacher,
            f"teacher-{self.teacher_dtype}": self.teacher_dtype is not None,
            "fused": self.fused,
        }
        return tuple(mark for mark, on in named.items() if on)


EAGER = EngineOptions()
"""No option is on: the reference."""
