"""SparK (Tian et al., ICLR 2023): a convolutional net learns what hidden patches hold, without a teacher."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdbench.contract import At, Batch, Needs, NotApplicable, hidden_error, patched
from kdbench.methods.shared.sparse_students import SparseStudent
from kdbench.models.sparked import SparkNet


class Spark(SparseStudent):
    """Mean squared error of hidden patches, each standardised, in the place of the task's own loss."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        maps = frozenset({"maps"})
        return Needs(kinds=frozenset({"representation"}), teachers=(), student=maps)

    def setup(self) -> None:
        if isinstance(self.student, SparkNet):
            raise NotApplicable("the task's own loss is SparK's for this student: run plain")
        self.decodes(self.pictures.shape[1], finest=1)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        told = patched(batch.x[self.student.input], self.patch)
        predicted = patched(self.decoded(batch), self.patch)
        return {"spark": hidden_error(predicted, told, self.visible(batch), standardise=True)}
