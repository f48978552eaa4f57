"""What plug-ins of before are told when something they rely on has changed."""

from __future__ import annotations

import functools
import warnings


@functools.cache
def said_once(line: str, stacklevel: int = 3) -> None:
    """A :class:`FutureWarning` of one line, once in a process; ``stacklevel`` points at the caller's caller."""
    warnings.warn(line, FutureWarning, stacklevel=stacklevel)
