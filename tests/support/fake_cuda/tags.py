"""Where a storage would lie."""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")


class Side(Enum):
    """Of the two memories; EITHER is what a composite operator makes for itself, on whichever device it runs."""

    HOST = "host"
    DEVICE = "device"
    EITHER = "either"


_tags: dict[int, tuple[StorageWeakRef, Side]] = {}
"""By the address of the storage, which its weak reference keeps from being taken by another."""


def side_of(storage: torch.UntypedStorage) -> Side:
    """The host's, where nothing else is known."""
    reference, side = _tags.get(storage._cdata, (None, Side.HOST))
    return Side.HOST if reference is None or reference.expired() else side


def side(tensor: Tensor) -> Side:
    """Where a tensor would lie."""
    return side_of(tensor.untyped_storage())


def lies_on_cuda(tensor: Tensor) -> bool:
    """Whether a tensor would lie on the GPU."""
    return side(tensor) is Side.DEVICE


def put_storage(storage: torch.UntypedStorage, where: Side) -> None:
    """Writes down where a storage would lie."""
    if where is Side.HOST:
        _tags.pop(storage._cdata, None)
    else:
        _tags[storage._cdata] = (StorageWeakRef(storage), where)


def put(tensor: Tensor, where: Side) -> Tensor:
    """The tensor, with where it would lie written down."""
    put_storage(tensor.untyped_storage(), where)
    return tensor
