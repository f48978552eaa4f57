"""What torchrun tells a process of itself. Needs no torch: the command line asks before anything else."""

from __future__ import annotations

import os
from dataclasses import dataclass

from kdbench.base.errors import UserError

TORCHRUN = "TORCHELASTIC_RUN_ID"


@dataclass(frozen=True)
class Launch:
    """One of the processes that torchrun started; ``local`` counts those of this machine."""

    rank: int
    size: int
    local_rank: int
    local_size: int


def launch() -> Launch | None:
    """This process's place among torchrun's; None when it runs for itself, torchrun's only process among them."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if TORCHRUN not in os.environ or any(name not in os.environ for name in names):
        return None
    found = Launch(*(int(os.environ[name]) for name in names))
    return found if found.size > 1 else None


def speaks() -> bool:
    """Whether this process writes to the terminal: of torchrun's the first one."""
    found = launch()
    return found is None or found.rank == 0


def require_alone(verb: str) -> None:
    """Raises UserError when torchrun started several processes of a verb that does not share its work."""
    if launch() is not None:
        raise UserError(f"torchrun shares the work of `kdbench evaluate` alone; start `kdbench {verb}` without it")
