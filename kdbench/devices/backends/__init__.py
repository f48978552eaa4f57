"""Kinds of devices by name. A backend is a file: ``BACKEND`` of a module here, or of a plug-in's module under the entry
point group ``kdbench.devices``. Finding them imports no torch.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from kdbench.base import plugins
from kdbench.base.errors import UserError
from kdbench.devices.base import Backend

if TYPE_CHECKING:
    import torch

HOST = "cpu"
"""The backend that is always there."""
_guests: list[Backend] = []


@functools.cache
def _installed() -> tuple[Backend, ...]:
    """Backends of files and plug-ins, the host first.

    Raises:
        UserError: a plug-in takes the name of one that is there.
    """
    own = {module.name: f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)}
    added = plugins.packages(plugins.DEVICES)
    for name in own.keys() & added.keys():
        raise UserError(f"plug-in {added[name]!r} registers the device {name!r}, which is there; rename it")
    found: list[Backend] = [importlib.import_module(module).BACKEND for module in (own | added).values()]
    return tuple(sorted(found, key=lambda backend: backend.name != HOST))


def every() -> list[Backend]:
    """Every backend, the host first, the others by name, then those of plug-ins."""
    return [*_installed(), *_guests]


def names() -> list[str]:
    """Every backend's name, each once."""
    return list(dict.fromkeys(backend.name for backend in every()))


def words() -> str:
    """What ``--device`` may say, for people: without what is always refused."""
    *first, last = ["auto", *(name for name in names() if named(name).refused is None)]
    return f"{', '.join(first)} or {last}"


def written(device: torch.device) -> str:
    """A device as ``--device`` takes it."""
    return of(device).name + ("" if device.index is None else f":{device.index}")


def visibility() -> list[str]:
    """Environment variables that say which devices a process sees."""
    return sorted({backend.visible for backend in every() if backend.visible is not None})


def named(name: str) -> Backend:
    """A backend that is there under a name, the latest one."""
    return next(backend for backend in reversed(every()) if backend.name == name)


def of(device: torch.device) -> Backend:
    """The backend behind a torch device: of those that share its type the latest that is present.

    Raises:
        UserError: none knows the type.
    """
    sharing = [backend for backend in reversed(every()) if backend.type == device.type]
    if not sharing:
        raise UserError(f"kdbench knows nothing of torch's {device.type!r} devices; use --device {words()}")
    if len(sharing) == 1:
        return sharing[0]
    return next((backend for backend in sharing if backend.absent() is None), sharing[-1])


@contextmanager
def standing_in(backend: Backend) -> Iterator[None]:
    """Within the block, and in this process, a backend goes before those of its name and of its torch type."""
    _guests.append(backend)
    try:
        yield
    finally:
        _guests.remove(backend)


@contextmanager
def random_states_kept() -> Iterator[None]:
    """The global generators of the CPU and of all devices in use are afterwards as they were."""
    import torch

    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([]))
        for kind in {backend.type: backend for backend in every() if backend.random_in_use()}.values():
            numbers = [device.index for device in kind.devices()]
            stack.enter_context(torch.random.fork_rng(numbers, device_type=kind.type))
        yield
