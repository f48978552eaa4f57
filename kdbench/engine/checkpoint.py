"""Checkpoints: tensors and plain values, written whole or not at all, read without unpickling code."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from kdbench.base.files import sha256, write_atomic

DIGEST = 64
"""Bytes of a checkpoint's digest, in hex."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` atomically, its digest before it: torch reads a file with flipped bits as if it were whole."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, sha256(buffer.getvalue()).encode() + buffer.getvalue())


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as a safetensors file, atomically: its own writer leaves half a file on a full disk."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(path, safetensors.torch.save(plain))


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """The state in ``path``, tensors on ``device``; None when there is none or it cannot be read."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, written = content[:DIGEST], content[DIGEST:]
    if digest == sha256(written).encode():
        with contextlib.suppress(Exception):  # torch raises anything from EOFError to UnpicklingError
            state: dict[str, Any] = torch.load(io.BytesIO(written), map_location=device, weights_only=True)
            return state
    path.rename(path.with_suffix(".damaged"))
    return None
