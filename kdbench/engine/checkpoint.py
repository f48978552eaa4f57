"""Checkpoints: tensors and plain values, written whole or not at all, read without unpickling code."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from kdbench.files import write_atomic


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` atomically."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """The state in ``path``, tensors on ``device``; None when there is none or it cannot be read."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        return None
    except Exception:  # a damaged file raises anything from EOFError to UnpicklingError
        path.rename(path.with_suffix(".damaged"))
        return None
