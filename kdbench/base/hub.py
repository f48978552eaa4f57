"""Why something cannot be had from the model hub: no network to it, or what the hub answered."""

from __future__ import annotations

import socket
from collections.abc import Iterator

_NO_NETWORK = (ConnectionError, TimeoutError, socket.gaierror)
_NAMES = frozenset({
    "ConnectError", "ConnectTimeout", "ConnectionError", "LocalEntryNotFoundError", "MaxRetryError",
    "OfflineModeIsEnabled", "ProxyError", "ReadTimeout",
})  # fmt: skip
"""Types of the libraries between kdbench and the network, which change from version to version, by name."""


def unreached(error: BaseException) -> bool:
    """Whether there was no network to the hub."""
    return any(isinstance(one, _NO_NETWORK) or type(one).__name__ in _NAMES for one in _chain(error))


def why(error: BaseException) -> str:
    """The reason in a few words: that there is no network, else the first line of what went wrong."""
    if unreached(error):
        return "no network to the hub"
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
