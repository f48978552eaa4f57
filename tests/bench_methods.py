"""A step of each method beside a plain step, CIFAR-100 shapes, resnet32x4 -> resnet8x4, batch 64: one thread, or a GPU.

``pytest tests/bench_methods.py --benchmark-only``: a slow adapter shows at once. Times are this machine's; the ratio
to the row ``plain`` is what to read. Random rows and random teachers: speed does not depend on them.
``-k spent -s`` says where a step's time goes.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from profiled import spent

from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.contract import Method, NotApplicable, Objects, Rows
from kdbench.data.feed.dataset import Dataset, Transform
from kdbench.engine.assemble import prepare
from kdbench.engine.place import RunPlace
from kdbench.engine.task import build_network, seeded
from kdbench.engine.teachers import TrainedTeacher
from kdbench.methods.ccl.adapter import Composition, bridge
from kdbench.methods.hkd.adapter import contrasts
from kdbench.methods.shared.banks import MemoryBank, Negatives, multiplicity
from kdbench.overhead.arms import PhaseArm, phases
from kdbench.specs import registry
from kdbench.specs.config import run_config

TASK = "cifar100/resnet32x4-resnet8x4"
ROWS, CLASSES = 640, 100
ROUNDS = {"cpu": 3, "cuda": 50}
LEAST_IN_PASSES = 0.97
ELSEWHERE = {
    **dict.fromkeys(("brcd", "hash_kd"), ("cifar10-jpeg/hash", ["data.augment=[crop4,flip]"], "hash32:resnet56")),
    "few_sample": (
        TASK,
        ["pair.student.net=vgg8", "pair.student.weights='pruned:image'", "pair.teachers.image.net=vgg8"],
        "vgg8",
    ),
}
"""Methods that do not run on that task, to one that they run on with random rows, overrides, and the teacher's net."""
DETECTION, PICTURES, SIZE = "bccd/few-shot", 32, (144, 192)
DETECTORS = (
    registry.PLAIN, "fitnet", "reviewkd",
    *(name for name in sorted(registry.method_packages()) if "detection" in (registry.card(name).kinds or [])),
)  # fmt: skip
MAKES_FIRST = {"cgan_kd": "its student steps are the inner method's; what it trains first is measured by itself below"}


@functools.cache
def rows() -> Dataset:
    """Random rows of CIFAR-100's shape, every class among them."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randint(256, (ROWS, 3, 32, 32), generator=rng, dtype=torch.uint8)
    y = torch.arange(ROWS) % CLASSES
    part = Rows({"image": x}, y)
    norm = {"image": Transform((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))}
    return Dataset("random", part, part, CLASSES, norm, properties=frozenset({"rgb", "rotation_safe"}))


@functools.cache
def teacher(arch: str = "resnet32x4") -> TrainedTeacher:
    """A network as it is initialised."""
    with seeded(0, "teacher"):
        net = build_network(arch, "image", rows())
    facts = {"arch": arch, "source": "random", "params": 0, "weights_sha256": "0" * 64}
    return TrainedTeacher("image", net.eval().requires_grad_(False), 0.0, {**facts, "seconds": None, "steps": None})


def main_phase(method: str, folder: Path, device: str = "cpu") -> PhaseArm:
    """The phase a student spends most steps in."""
    place = RunPlace(torch.device(device), Home(folder), None, folder / "run")
    task, overrides, arch = ELSEWHERE.get(method, (TASK, [], "resnet32x4"))
    trained = replace(teacher(arch), net=copy.deepcopy(teacher(arch).net).to(device))
    prepared = prepare(run_config(method, task, overrides), 0, place, rows(), {"image": trained})
    found = []
    for phase in phases(prepared):
        found.append(phase)
        if phase.stage.ledger == "distill":
            break
    return max(found, key=lambda phase: phase.steps)


@functools.cache
def pictures() -> Dataset:
    """Random pictures of the blood cells' shape, ten objects in each."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randint(256, (PICTURES, 3, *SIZE), generator=rng, dtype=torch.uint8)
    corners = torch.rand(PICTURES, 10, 2, generator=rng) * (torch.tensor(SIZE[::-1]) - 40.0)
    sides = 10 + 30 * torch.rand(PICTURES, 10, 2, generator=rng)
    found = [
        [[k % 3, *low, *(low + side).tolist()] for k, (low, side) in enumerate(zip(lows, few, strict=True))]
        for lows, few in zip(corners, sides, strict=True)
    ]
    part = Rows({"image": x}, Objects.of(found, SIZE))
    norm = {"image": Transform((0.5,) * 3, (0.25,) * 3)}
    return Dataset("random", part, part, 3, norm, properties=frozenset({"rgb"}))


def timed(benchmark: Callable[..., object], phase: PhaseArm) -> None:
    """Times steps of a phase, which have to train: the time of anything else says nothing."""
    params = [param for group in phase.stage.groups for param in group.params]
    params = params or list(phase.run.method.students.parameters())  # a step that sets weights without an optimiser
    before = [param.detach().clone() for param in params]

    def step() -> None:
        phase.step()
        if params[0].is_cuda:
            torch.cuda.synchronize()

    benchmark.pedantic(step, rounds=ROUNDS[params[0].device.type], warmup_rounds=1)  # type: ignore[attr-defined]
    assert all(param.isfinite().all() for param in params)
    assert any(not torch.equal(param, old) for param, old in zip(params, before, strict=True))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("method", sorted(registry.method_packages(), key=lambda name: (name != registry.PLAIN, name)))
def test_bench_step(benchmark: Callable[..., object], method: str, device: str, tmp_path: Path) -> None:
    if method in MAKES_FIRST:
        pytest.skip(MAKES_FIRST[method])
    torch.set_num_threads(1)
    try:
        phase = main_phase(method, tmp_path, device)
    except (NotApplicable, UserError) as reason:
        pytest.skip(str(reason))
    timed(benchmark, phase)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", DETECTORS)
def test_bench_step_of_detectors(benchmark: Callable[..., object], method: str, tmp_path: Path) -> None:
    """FCOS on 144x192 pictures, batch 8; the ratio to ``plain``, whose step has no teacher."""
    torch.set_num_threads(1)
    config = run_config(method, DETECTION, ["data.subset=null"])
    with seeded(0, "teacher"):
        net = build_network(config.task.teacher_net, "image", pictures())
    facts = {"arch": config.task.teacher_net, "source": "random", "params": 0, "weights_sha256": "0" * 64}
    trained = TrainedTeacher("image", net.eval().requires_grad_(False), 0.0, {**facts, "seconds": None, "steps": None})
    place = RunPlace(torch.device("cpu"), Home(tmp_path), None, tmp_path / "run")
    (phase,) = phases(prepare(config, 0, place, pictures(), {"image": trained}))
    timed(benchmark, phase)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", ["ccd", "sskd", "hsakd"])
def test_bench_what_a_step_is_spent_on(benchmark: Callable[..., object], method: str, tmp_path: Path) -> None:
    """The three slowest: passes through the networks their formulas name, and next to nothing else."""
    torch.set_num_threads(1)
    phase = main_phase(method, tmp_path)
    adapter = phase.run.method
    modules = {f"{kind} {name}": net for kind in ("students", "teachers") for name, net in named(adapter, kind)}
    modules |= {f"heads {name}": head for name, head in named(adapter, "heads")}
    timed(benchmark, phase)
    found = spent(phase.step, modules)
    benchmark.extra_info.update(  # type: ignore[attr-defined]
        passes=found.passes, forward=found.forward, backward=found.backward, optimizer=found.optimizer
    )
    shares = {
        name: (found.forward.get(name, 0.0) / found.total, found.backward.get(name, 0.0) / found.total)
        for name in modules
    }
    print(f"{method}: passes {found.passes:.1%}", *(f"{n} {f:.1%} + {b:.1%}" for n, (f, b) in shares.items()), sep=", ")
    assert found.passes >= LEAST_IN_PASSES


def named(method: Method, kind: str) -> list[tuple[str, torch.nn.Module]]:
    """A method's modules of a kind, such as its students, by name."""
    held = getattr(method, kind, {})
    return list(held.items() if isinstance(held, Mapping) else ((str(i), net) for i, net in enumerate(held)))


def test_bench_contrast_with_banks_of_all_of_cifar100(benchmark: Callable[..., object]) -> None:
    """Rows of the steps above are few, so banks are short there; here a batch's draw and four contrasts in full."""
    torch.set_num_threads(1)
    labels = torch.arange(50_000) % CLASSES
    negatives, rng = Negatives(labels, 16_384), torch.Generator().manual_seed(0)
    banks = [MemoryBank(len(labels), 128).rows for _ in range(2)]
    anchors = [torch.nn.functional.normalize(torch.randn(64, 128), dim=1).requires_grad_() for _ in range(2)]

    def step() -> torch.Tensor:
        log_counts = multiplicity(negatives.draw(labels[:64], rng), len(labels)).log()
        total = sum(contrasts(anchors, anchors, banks, log_counts, 0.07).sum() for _ in range(2))
        total.backward()  # type: ignore[union-attr]
        return total.detach()  # type: ignore[union-attr]

    assert benchmark.pedantic(step, rounds=ROUNDS["cpu"], warmup_rounds=1).isfinite()  # type: ignore[attr-defined]


def test_bench_bridges_to_two_teachers(benchmark: Callable[..., object]) -> None:
    """What ccl adds to a student's step, with the paper's widths; its tasks have other inputs than CIFAR's."""
    torch.set_num_threads(1)
    compositions = [Composition(512, CLASSES) for _ in range(2)]
    student, *teachers = (torch.randn(64, 512) for _ in range(3))
    logits, y = torch.randn(64, CLASSES).requires_grad_(), torch.arange(64) % CLASSES
    student.requires_grad_()

    def step() -> torch.Tensor:
        of = zip(compositions, teachers, (0.5, 0.1), strict=True)
        total = [term for c, t, tau in of for term in bridge(c, logits, student, t, y, tau, 0.5)]
        loss = torch.stack(total).sum()
        loss.backward()
        return loss.detach()

    assert benchmark.pedantic(step, rounds=ROUNDS["cpu"], warmup_rounds=1).isfinite()  # type: ignore[attr-defined]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", ["gan", "ratio"])
def test_bench_step_of_a_generator(benchmark: Callable[..., object], stage: str, tmp_path: Path) -> None:
    """Stages that cgan_kd trains before the student, small nets, batch 64."""
    torch.set_num_threads(1)
    small = ["method.nets=small", "method.features=teacher", "method.channels=16", "method.gan_batch=64"]
    config = run_config("cgan_kd", TASK, [*small, "method.ratio_batch=64", "method.d_steps=1"])
    place = RunPlace(torch.device("cpu"), Home(tmp_path), None, tmp_path / "run")
    prepared = prepare(config, 0, place, rows(), {"image": teacher()})
    found = next(phase for phase in phases(prepared) if phase.stage.name == stage)
    timed(benchmark, found)
