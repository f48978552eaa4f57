"""Checkpoints: tensors and plain values, written whole or not at all, read without unpickling code."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from kdbench.files import write_atomic


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` atomically."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as a safetensors file, atomically: its own writer leaves half a file on a full disk."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(path, safetensors.torch.save(plain))


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """The state in ``path``, tensors on ``device``; None when there is none or it cannot be read."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        return None
    except Exception:  # a damaged file raises anything from EOFError to UnpicklingError
        state = None
    if isinstance(state, dict):
        return state
    path.rename(path.with_suffix(".damaged"))
    return None
