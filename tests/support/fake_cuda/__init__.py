"""A CUDA device that is none: every tensor lies on the CPU, and beside each storage is written where it would lie.

Values and control flow are real. What an operator, a copy or a read would do on a GPU is judged as it is dispatched:
what CUDA refuses is refused, what would copy between host and device or make the host wait is noted with its place.
Kernels, types and architectures, streams, the allocator and time cannot be seen this way.
"""

from __future__ import annotations

from fake_cuda.around import fake_cuda
from fake_cuda.operators import FakeCuda, Mismatch, Seen
from fake_cuda.tags import CUDA, lies_on_cuda

__all__ = ["CUDA", "FakeCuda", "Mismatch", "Seen", "fake_cuda", "lies_on_cuda"]
