"""The board: a static site rendered from result records. ``build`` makes it, ``serve`` shows it on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdbench.leaderboard.output.builder import BuildReport, build
    from kdbench.leaderboard.output.server import serve

__all__ = ["BuildReport", "build", "serve"]


def __getattr__(name: str) -> Any:
    """Imports the builder on first use, so that the command line starts without it."""
    import importlib

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.output.{'server' if name == 'serve' else 'builder'}")
    return getattr(module, name)
