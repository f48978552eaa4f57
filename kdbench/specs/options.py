"""Engine options: how a run's arithmetic is done, never what it computes. A person sets them as ``engine.<option>=``.

All are off by default: fp32, eager, nets as they are built. Runs of unequal options are never compared, for the options
are in the specification hash and in the device class.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from kdbench.base.fields import Part, Positive

Dtype = Literal["fp32", "bf16"]
Precision = Literal["fp32", "tf32", "bf16"]

PREFIX = "engine."
"""What the keys of the options begin with."""
STORE = "teacher-store"
"""The option as a device class names it; and the line of the ledger of what was kept."""
STORE_MIB = 4096
"""The default of ``teacher_store_mib``."""
MOST_AHEAD = 64
"""The largest ``teacher_ahead``."""


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
        teacher_store: what frozen teachers answer is kept on disk for all runs of a machine, and read where it is there
            (:mod:`kdbench.engine.stored_teacher`).
        teacher_store_mib: most that is kept of one teacher on the rows of one task. It decides no result and no class.
        teacher_ahead: batches that a frozen teacher is asked about at once (:mod:`kdbench.engine.teacher_ahead`). As
            many are held in memory, with its answers.
    """

    precision: Precision = "fp32"
    compile: bool = False
    cuda_graphs: bool = False
    channels_last: bool = False
    fold_teacher: bool = False
    teacher_dtype: Dtype | None = None
    fused: bool = False
    teacher_store: bool = False
    teacher_store_mib: Positive = STORE_MIB
    teacher_ahead: Annotated[int, Field(ge=1, le=MOST_AHEAD)] = 1

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
        if self.teacher_store and self.cuda_graphs:
            raise ValueError("teacher_store looks answers up on the host, which no captured step does; leave out one")
        if self.teacher_ahead > 1 and self.cuda_graphs:
            raise ValueError(
                "teacher_ahead asks about batches of later steps, a captured step draws its own; leave out one"
            )
        if self.teacher_ahead > 1 and self.teacher_store:
            raise ValueError("teacher_store keeps answers of single batches, teacher_ahead joins them; leave out one")
        if self.teacher_store_mib != STORE_MIB and not self.teacher_store:
            raise ValueError("teacher_store_mib bounds what engine.teacher_store=true keeps; set that as well")
        return self

    def changed(self) -> dict[str, Any]:
        """The options that are not off, as JSON data."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude={"teacher_store_mib"})

    def without_teacher(self) -> Self:
        """The options that bear on a run which has no teacher."""
        return self.for_costs().model_copy(update={"fold_teacher": False, "teacher_dtype": None})

    def without_store(self) -> Self:
        """The same where nothing that was kept is believed: what is verified."""
        return self.model_copy(update={"teacher_store": False, "teacher_store_mib": STORE_MIB})

    def for_costs(self) -> Self:
        """The same where every step computes its own teacher, so that steps are alike: what a method costs."""
        return self.without_store().model_copy(update={"teacher_ahead": 1})

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
            STORE: self.teacher_store,
            f"teacher-ahead-{self.teacher_ahead}": self.teacher_ahead > 1,
        }
        return tuple(mark for mark, on in named.items() if on)


EAGER = EngineOptions()
"""No option is on: the reference."""
