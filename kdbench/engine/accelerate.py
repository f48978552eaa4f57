"""Networks made ready for the engine options of a run."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from kdbench.base.errors import UserError
from kdbench.contract import Needs, Network
from kdbench.devices import backends
from kdbench.engine.graphs import require_graphs
from kdbench.models.fold import fold_norms
from kdbench.models.held import hold_weights
from kdbench.specs.options import EngineOptions, Precision

AUTOCAST: dict[Precision, torch.dtype | None] = {"fp32": None, "tf32": None, "bf16": torch.bfloat16}
RECOMPILATIONS = 64
"""How often one function may be compiled anew: once a network, mode and size of a batch; torch's own limit is 8."""


def process(device: torch.device, options: EngineOptions) -> None:
    """This process, made ready: how products of fp32 tensors are computed is a setting of libraries.

    Raises:
        UserError: the device has no TF32, which is asked for.
    """
    backend, tf32 = backends.of(device), options.precision == "tf32"
    if tf32 and (reason := backend.no_tf32(device)):
        raise UserError(f"engine.precision=tf32: {reason}; leave it out, or use bf16")
    backend.set_products(tf32)


def student(net: Network, options: EngineOptions) -> Network:
    """A network that is trained, in place."""
    return _arranged(net, options.precision, options)


def teacher(net: Network, needs: Needs, options: EngineOptions) -> Network:
    """A teacher as a method wants it: its mode, whether it is trained; a copy where an option changes it."""
    if options.changed():
        net = copy.deepcopy(net)
    net.sparing = not needs.trains_teacher
    net.train(needs.teacher_batchnorm == "batch").requires_grad_(needs.trains_teacher)
    if options.fold_teacher and not _reads_norms(needs):
        fold_norms(net)
    precision = options.teacher_dtype or options.precision
    if (dtype := AUTOCAST[precision]) is not None and not needs.trains_teacher:
        hold_weights(net, dtype)
    return _arranged(net, precision, options)


def eager(net: nn.Module) -> AbstractContextManager[None]:
    """Within the block nothing that was compiled is used, if the network was: evaluation need not compile again."""
    compiled = any(module._compiled_call_impl is not None for module in net.modules())
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def _reads_norms(needs: Needs) -> bool:
    """Whether a teacher's batch norms are more to a method than a part of its function."""
    return needs.trains_teacher or needs.teacher_batchnorm == "batch" or bool(needs.teacher & {"norm", "tail"})


def _arranged(net: Network, dtype: Precision, options: EngineOptions) -> Network:
    net.autocast = AUTOCAST[dtype]
    if options.channels_last:
        net.to(memory_format=torch.channels_last)
    device = next(net.parameters()).device
    if options.cuda_graphs:
        require_graphs(device)
    if options.compile:
        if missing := backends.of(device).no_compiler():
            raise UserError(f"engine.compile=true: {missing}, or leave the option out")
        torch._dynamo.config.recompile_limit = RECOMPILATIONS
        # Static shapes: a ragged last batch gets kernels of its own instead of slower ones for all.
        net.compile(dynamic=False)
    return net
