"""Work recorded once and done again without Python, as devices offer it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

Terms = dict[str, Tensor]
"""Detached terms of a step, by name."""


class Graphs(Protocol):
    """Records work of one device. Made with the device and the generators that the work draws from."""

    def __init__(self, device: torch.device, rngs: Sequence[torch.Generator]) -> None: ...

    def warm(self, work: Callable[[], Terms]) -> Terms:
        """Does work eagerly, as it must be done before it can be captured."""

    def capture(self, work: Callable[[], Terms]) -> tuple[Terms, Callable[[], None]]:
        """Records work. What it returned holds new values after each call of the function that does it again."""


class CudaGraphs:
    """CUDA graphs of one stream and one pool of memory, which they share: none reads what another left there."""

    def __init__(self, device: torch.device, rngs: Sequence[torch.Generator]) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._rngs = rngs

    def warm(self, work: Callable[[], Terms]) -> Terms:
        """On the stream of the captures, for which libraries then have their workspace."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            found = work()
        current.wait_stream(self._stream)
        return found

    def capture(self, work: Callable[[], Terms]) -> tuple[Terms, Callable[[], None]]:
        """As one CUDA graph; nothing is computed yet."""
        graph = torch.cuda.CUDAGraph()
        for rng in self._rngs:
            graph.register_generator_state(rng)  # its draws follow the generator's seed at each replay
        # thread_local: a loader's thread may go on pinning memory meanwhile
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            terms = work()
        return terms, graph.replay
