"""Where a training step may copy between host and device, or make the host wait."""

from __future__ import annotations

EXCUSED: dict[tuple[str, str], str] = {
    ("kdbench/data/feed/loader.py:_index", "_to_copy"): "an epoch's order is drawn on the host, once an epoch",
    (
        "kdbench/data/feed/stream.py:get",
        "_local_scalar_dense",
    ): "torch's loader draws its seed on the host, once a stage",
    (
        "kdbench/engine/teacher_ahead.py:_alike",
        "_local_scalar_dense",
    ): "a teacher's answers are tried, once a run",
    ("methods/energykd/adapter.py:mixed_rows", "nonzero"): "HE-DA (energykd-heda) adds rows to a batch by their energy",
    ("methods/few_sample/adapter.py:fitted", "_linalg_eigh"): "a layer is fitted by a solver, once a layer in a run",
    ("methods/ccl/adapter.py:_bridge", "nonzero"): "a teacher gets the rows that have its modality, where some lack it",
}
"""(place, operator) to why a step may wait there."""
LOOKS = ("ccl", "energykd-heda")
"""Methods and variants whose host looks at a result within a step: nothing to capture."""
