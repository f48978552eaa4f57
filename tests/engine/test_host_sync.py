"""No training step makes the host wait for the device: every method, every stage, the engine's own part among them.

On a CPU the operators that would wait on a GPU are noted as they are dispatched; on a GPU CUDA itself complains.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tinies import captured, tiny_of, variants_slow
from torch.utils._python_dispatch import TorchDispatchMode

from kdbench.engine.stage import StageRun
from kdbench.specs import registry

STEPS = 2
WAITS = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive",
    "bincount", "repeat_interleave", "_linalg_svd", "_linalg_eigh", "linalg_eig", "linalg_lstsq", "_linalg_solve_ex",
}  # fmt: skip
"""Operators whose result, or its shape, the host must have before it goes on."""
READS = ("tolist", "numpy", "cpu")
"""Ways of a tensor to the host that are not dispatched on a CPU."""
ROOT = Path(__file__).parents[2]
OWN = (str(ROOT / "kdbench"), str(ROOT / "methods"))
OPTIMISERS = str(Path(torch.optim.__file__).parent)

EXCUSED: dict[tuple[str, str], str] = {
    (
        "kdbench/data/feed/stream.py:get",
        "local_scalar_dense",
    ): "torch's loader draws its seed on the host, once a stage",
    ("methods/energykd/adapter.py:mixed_rows", "nonzero"): "HE-DA (energykd-heda) adds rows to a batch by their energy",
    ("methods/few_sample/adapter.py:fitted", "linalg_eigh"): "a layer is fitted by a solver, once a layer in a run",
    ("methods/ccl/adapter.py:_bridge", "nonzero"): "a teacher gets the rows that have its modality, where some lack it",
}
"""(place, operator) to why a step may wait there."""
WAITING = ("energykd-heda",)
"""Variants that an excuse is for."""


def place() -> str | None:
    """Where this code was called from, as ``folder/file.py:function``; None from within an optimiser of torch.

    Adam counts its steps in a tensor that lies on the host, wherever the parameters are: reading it is no wait.
    """
    for frame in reversed(traceback.extract_stack()):
        if frame.filename.startswith(OPTIMISERS):
            return None
        if frame.filename.startswith(OWN):
            return f"{Path(frame.filename).relative_to(ROOT)}:{frame.name}"
    return None


class Waits(TorchDispatchMode):
    """Notes what would make the host wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[str, str]] = set()

    def note(self, operator: str) -> None:
        if (where := place()) is not None:
            self.seen.add((where, operator))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.partition("::")[2].strip("_")
        if name in {known.strip("_") for known in WAITS}:
            self.note(name)
        if name in ("index", "index_put", "_index_put_impl") and any(
            isinstance(i, torch.Tensor) and i.dtype is torch.bool for i in args[1]
        ):
            self.note("index by a mask")
        return func(*args, **(kwargs or {}))


def stages(method: str, folder: Path, device: torch.device) -> Iterator[StageRun]:
    """A method's stages on a tiny task, each ready to step."""
    prepared = tiny_of(method).prepare(folder, device=device)
    for stage in prepared.method.stages():
        prepared.method.to(prepared.task.device).train()
        yield StageRun(prepared.method, stage, prepared.task)


@pytest.mark.parametrize("method", variants_slow(captured(), WAITING))
def test_no_step_waits_for_the_device(method, tmp_path, monkeypatch):
    waits = Waits()
    stepping = False

    def noted(read: str) -> Callable[..., Any]:
        original = getattr(torch.Tensor, read)

        def reading(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if stepping:
                waits.note(read)
            return original(self, *args, **kwargs)

        return reading

    for read in READS:
        monkeypatch.setattr(torch.Tensor, read, noted(read))
    for run in stages(method, tmp_path, torch.device("cpu")):
        for _ in range(min(STEPS, run.total)):
            stepping = True
            with waits:
                run.step()
            stepping = False
    assert waits.seen - EXCUSED.keys() == set()


@pytest.mark.parametrize(
    "wait",
    [
        lambda x, mask: x.sum().item(),
        lambda x, mask: bool(mask.any()),
        lambda x, mask: x[mask],
        lambda x, mask: mask.nonzero(),
        lambda x, mask: x.unique(),
    ],
    ids=["item", "bool", "mask", "nonzero", "unique"],
)
def test_what_waits_is_seen(wait, monkeypatch):
    monkeypatch.setitem(globals(), "place", lambda: "here")
    with Waits() as waits:
        wait(torch.ones(2), torch.tensor([True, False]))
    assert waits.seen


@pytest.mark.gpu
@pytest.mark.parametrize("method", captured())
def test_cuda_sees_no_step_wait(method, tmp_path):
    if any(place.startswith(f"methods/{registry.method(method).card.name}/") for place, _ in EXCUSED):
        pytest.skip("one of its steps may wait")
    for run in stages(method, tmp_path, torch.device("cuda")):
        run.step()  # first steps build what the rest use
        torch.cuda.set_sync_debug_mode("error")
        try:
            terms = run.step()  # raises where it waits
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert all(term.isfinite().all() for term in terms.values())
