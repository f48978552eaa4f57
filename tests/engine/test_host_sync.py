"""No training step makes the host wait for the device: on a GPU CUDA itself complains.

Without one a device that is none says where it would wait (``tests/devices/test_fake_cuda.py``).
"""

from __future__ import annotations

import pytest
import torch
from tinies import captured, tiny_of
from waiting import EXCUSED

from kdbench.engine.stage import StageRun
from kdbench.specs import registry


@pytest.mark.gpu
@pytest.mark.parametrize("method", captured())
def test_cuda_sees_no_step_wait(method, tmp_path):
    if any(place.startswith(f"methods/{registry.method(method).card.name}/") for place, _ in EXCUSED):
        pytest.skip("one of its steps may wait")
    prepared = tiny_of(method).prepare(tmp_path, device=torch.device("cuda"))
    for stage in prepared.method.stages():
        prepared.method.to(prepared.task.device).train()
        run = StageRun(prepared.method, stage, prepared.task)
        run.step()  # first steps build what the rest use
        torch.cuda.set_sync_debug_mode("error")
        try:
            terms = run.step()  # raises where it waits
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert all(term.isfinite().all() for term in terms.values())
