"""Other projects' KD steps, from checkouts of theirs: their own loaders, losses and loops, called as they are.

``KDBENCH_PEERS`` names the folder with ``RepDistiller``, ``mdistiller`` and ``torchdistill`` in it. mdistiller imports
``yacs`` and ``tensorboardX`` (which needs ``protobuf``): put them on the path beside the project's own packages,
``pip install --no-deps --target SITE yacs tensorboardX protobuf`` and ``PYTHONPATH=SITE``.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

SETTINGS = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}
CE_WEIGHT, KD_WEIGHT, TEMPERATURE, BATCH = 0.1, 0.9, 4.0, 64
STUDENT, TEACHER = "resnet8x4", "resnet32x4"
IMPORTS = {"mdistiller": ("yacs", "tensorboardX")}
"""What a peer imports beside our own dependencies."""
Batches = Iterable[tuple[Any, ...]]


class Peer(NamedTuple):
    """A peer's KD.

    Attributes:
        step: asks its own loader for a batch, takes a step and returns its loss.
        on: the same on a given batch (x, y, index).
    """

    step: Callable[[], float]
    on: Callable[[tuple[torch.Tensor, ...]], float]


def find(name: str) -> Path:
    """A peer's checkout, its modules importable; the test is skipped without."""
    root = os.environ.get("KDBENCH_PEERS")
    if root is None or not (Path(root) / name).is_dir():
        pytest.skip(f"KDBENCH_PEERS names no folder with a checkout of {name}")
    for module in IMPORTS.get(name, ()):
        pytest.importorskip(module, reason=f"{name} imports {module}, which is not on the path")
    folder = Path(root) / name
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return folder


def build(
    name: str,
    student: nn.Module,
    teacher: nn.Module,
    pixels: np.ndarray[Any, Any],
    labels: list[int],
    device: str = "cpu",
    workers: int = 0,
) -> Peer:
    """A peer's KD, its nets with the weights of ours.

    Args:
        pixels, labels: (N, 32, 32, 3) uint8 and N classes, in the place of CIFAR-100's training rows.
        workers: processes of its loader; 0 loads in this one.
    """
    find(name)
    with pytest.MonkeyPatch.context() as patch:
        _stand_in(patch, pixels, labels)
        made = {"RepDistiller": _rep, "mdistiller": _md, "torchdistill": _td}[name]
        return made(student, teacher, torch.device(device), workers)


def _stand_in(patch: pytest.MonkeyPatch, pixels: np.ndarray[Any, Any], labels: list[int]) -> None:
    """torchvision's CIFAR-100 holds the given rows and reads no file."""
    from torchvision import datasets

    def init(self: Any, root: str, train: bool = True, transform: Any = None, **_: Any) -> None:
        self.data, self.targets, self.transform, self.target_transform = pixels, labels, transform, None

    patch.setattr(datasets.CIFAR100, "__init__", init)


def _taken_over(net: nn.Module, ours: nn.Module) -> nn.Module:
    """``net`` with our weights and mode: both name tensors in the order of the same graph."""
    own, given = net.state_dict(), ours.state_dict()
    assert [t.shape for t in own.values()] == [t.shape for t in given.values()]
    net.load_state_dict(dict(zip(own, given.values(), strict=True)))
    return net.train(ours.training)


def _endless(loader: Batches) -> Iterator[tuple[Any, ...]]:
    while True:
        yield from loader


class _One:
    """A loader of one batch."""

    def __init__(self, batches: Iterator[tuple[Any, ...]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return itertools.islice(self.batches, 1)

    def __len__(self) -> int:
        return 1


def _quiet(call: Callable[[], Any]) -> Any:
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        return call()


def _rep_nets(student: nn.Module, teacher: nn.Module) -> list[nn.Module]:
    models = importlib.import_module("models").model_dict
    nets = zip((STUDENT, TEACHER), (student, teacher), strict=True)
    return [_taken_over(models[name](num_classes=100), ours) for name, ours in nets]


def _rep(student: nn.Module, teacher: nn.Module, device: torch.device, workers: int) -> Peer:
    nets = nn.ModuleList(_rep_nets(student, teacher)).to(device)
    train_distill = importlib.import_module("helper.loops").train_distill
    divergence = importlib.import_module("distiller_zoo").DistillKL(TEMPERATURE)
    criteria = nn.ModuleList([nn.CrossEntropyLoss(), divergence, divergence])
    optimizer = torch.optim.SGD(nets[0].parameters(), **SETTINGS)
    options = Namespace(distill="kd", gamma=CE_WEIGHT, alpha=KD_WEIGHT, beta=0.0, print_freq=10**6)
    loaders = importlib.import_module("dataset.cifar100")
    loader = _quiet(lambda: loaders.get_cifar100_dataloaders(BATCH, num_workers=workers, is_instance=True))[0]
    batches = _endless(loader)

    def on(source: Iterator[tuple[Any, ...]]) -> float:
        return float(_quiet(lambda: train_distill(1, _One(source), nets, criteria, optimizer, options))[1])

    return Peer(lambda: on(batches), lambda batch: on(iter([batch])))


def _md(student: nn.Module, teacher: nn.Module, device: torch.device, workers: int) -> Peer:
    """Its own recipe; what asks for CUDA stays where it is on a CPU."""
    engine, zoo = importlib.import_module("mdistiller.engine"), importlib.import_module("mdistiller.models")
    config = importlib.import_module("mdistiller.engine.cfg").CFG.clone()
    config.merge_from_file(str(find("mdistiller") / "configs" / "cifar100" / "kd.yaml"))
    config.merge_from_list(["LOG.WANDB", False, "DATASET.NUM_WORKERS", workers])
    built = [
        _taken_over(zoo.cifar_model_dict[name][0](num_classes=100), ours)
        for name, ours in ((STUDENT, student), (TEACHER, teacher))
    ]
    kd = importlib.import_module("mdistiller.distillers").distiller_dict["KD"](*built, config)
    loader = importlib.import_module("mdistiller.dataset").get_dataset(config)[0]
    trainer = engine.trainer_dict["base"]("kd", nn.DataParallel(kd.to(device)), loader, None, config)
    trainer.distiller.train()
    average = importlib.import_module("mdistiller.engine.utils").AverageMeter
    batches = _endless(loader)

    def on(batch: tuple[Any, ...]) -> float:
        meters = {name: average() for name in ("training_time", "data_time", "losses", "top1", "top5")}
        with pytest.MonkeyPatch.context() as patch:
            if device.type == "cpu":
                patch.setattr(torch.Tensor, "cuda", lambda self, **_: self)
            trainer.train_iter(batch, 1, meters)
        return float(meters["losses"].avg)

    return Peer(lambda: on(next(batches)), on)


def _td(student: nn.Module, teacher: nn.Module, device: torch.device, workers: int) -> Peer:
    """Its box leaves the teacher's mode to the caller, and its example sets none: here it is ours, eval."""
    folder = find("torchdistill")
    find("RepDistiller")
    nets = [net.to(device) for net in _rep_nets(student, teacher)]  # torchdistill has no net of this width
    script = folder / "examples" / "torchvision" / "image_classification.py"
    spec = importlib.util.spec_from_file_location("torchdistill_example", script)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    from torchvision import datasets, transforms

    steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    normalize = transforms.Normalize((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
    rows = datasets.CIFAR100("nowhere", transform=transforms.Compose([*steps, normalize]))
    net = {"forward_proc": "forward_batch_only", "sequential": [], "wrapper": None, "frozen_modules": []}
    io = {
        f"{role}_module_{part}": word
        for role in ("student", "teacher")
        for part, word in (("path", "."), ("io", "output"))
    }
    loss = {"key": "KDLoss", "kwargs": {**io, "temperature": TEMPERATURE, "alpha": CE_WEIGHT, "reduction": "batchmean"}}
    config = {
        "num_epochs": 1,
        "train_data_loader": {
            "dataset_id": "rows",
            "sampler": {"class_or_func": torch.utils.data.RandomSampler, "kwargs": {}},
            "kwargs": {"batch_size": BATCH, "num_workers": workers},
            "requires_supp": True,
        },
        "val_data_loader": {},
        "teacher": {**net, "requires_grad": False},
        "student": {**net, "requires_grad": True},
        "optimizer": {"key": "SGD", "kwargs": SETTINGS},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": {"criterion": loss, "weight": 1.0}}}},
    }  # fmt: skip
    box = example.get_distillation_box(nets[1], nets[0], {"rows": rows}, config, device, None, False, 1)
    batches = _endless(box.train_data_loader)
    box.pre_epoch_process(epoch=0)

    def on(source: Iterator[tuple[Any, ...]]) -> float:
        seen: list[float] = []
        forward = box.forward_process

        def noted(*args: Any) -> torch.Tensor:
            loss = forward(*args)
            seen.append(float(loss.detach()))
            return loss

        box.forward_process, box.train_data_loader = noted, _One(source)
        try:
            _quiet(lambda: example.train_one_epoch(box, device, 0, 10**6))
        finally:
            box.forward_process = forward
        return seen[0]

    return Peer(lambda: on(batches), lambda batch: on(iter([(batch[0], batch[1], {})])))
