"""The machine of a run, without what would name it."""

from __future__ import annotations

from kdbench.base.fields import Above0, Amount, Part, Positive, Sha256, Word


class Gpu(Part):
    """The accelerators of a run, all of one kind."""

    name: Word
    count: Positive
    mem_mib: Amount
    power_limit_w: Amount | None = None
    mig: bool | None = None


class Flags(Part):
    """Numeric modes of the libraries.

    ``conv_fp32`` and ``matmul_fp32``: how products of fp32 tensors were computed on an accelerator, ``ieee`` or
    ``tf32``; null on a CPU and in records of before.
    """

    tf32: bool
    conv_fp32: Word | None = None
    matmul_fp32: Word | None = None
    cudnn_benchmark: bool
    deterministic: bool


class Environment(Part):
    """The machine, without what would name it; ``packages`` are the ones that matter, the hash is of all."""

    os: Word
    python: Word
    torch: Word
    cuda: Word | None = None
    cudnn: Word | None = None
    driver: Word | None = None
    gpu: Gpu | None = None
    cpu: Word
    cores: Positive
    threads: Positive
    ram_gib: Above0
    flags: Flags
    packages: dict[Word, Word]
    packages_sha256: Sha256
