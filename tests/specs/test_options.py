"""Engine options: what they are part of, that they change how and not what, and who keeps its batch norms."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from tinies import tiny_of

from kdbench import models
from kdbench.base.errors import UserError
from kdbench.base.fields import DeviceClassName
from kdbench.checks.tiny import Tiny
from kdbench.contract import Batch, Needs, Network
from kdbench.devices.deviceclass import DeviceClass
from kdbench.engine import accelerate
from kdbench.engine.stage import StageRun
from kdbench.engine.trainer import Trainer
from kdbench.records.schema import Record
from kdbench.runs.run import equals_plain
from kdbench.specs import registry
from kdbench.specs.config import engine_options, run_config
from kdbench.specs.options import EAGER, EngineOptions
from kdbench.sweep import devices

TASK = "digits/few-shot"
FAST = EngineOptions(channels_last=True, fold_teacher=True, fused=True)
OFFERED = {"resnet8x4": 10, "vgg8": 5, "shufflenetv2": 56, "wrn_16_1": 6, "convnet_w4": 3}
"""Nets and how many of their batch norms follow a convolution."""


def losses(task: Tiny, folder: Path, steps: int = 3) -> list[float]:
    """Totals of the first steps of a method's first stage."""
    prepared = task.prepare(folder)
    torch.manual_seed(0)
    run = StageRun(prepared.method.train(), next(prepared.method.stages()), prepared.task)
    return [sum(float(term) for name, term in run.step().items() if name != "total") for _ in range(steps)]


def used(net: str) -> tuple[Network, Batch]:
    """A network whose norms have seen data, and a batch."""
    torch.manual_seed(0)
    x, y = torch.randn(6, 3, 32, 32), torch.arange(6)
    found, batch = models.build(net, (3, 32, 32), 10), Batch({"image": x}, y, y)
    for _ in range(3):
        found(batch)
    for module in found.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, -1, 2)
            torch.nn.init.uniform_(module.bias, -1, 1)
    return found.eval(), batch


# configuration


def test_options_that_are_off_leave_hash_and_class_as_they_were():
    plain = run_config("kd", TASK)
    assert "engine" not in plain.spec()
    same = run_config("kd", TASK, ["engine.compile=false", "engine.teacher_dtype=fp32"])
    assert same.spec_hash == plain.spec_hash
    assert EAGER.marks() == ()


def test_options_are_hashed_and_leave_a_run_ranked():
    fast = run_config("kd", TASK, ["engine.channels_last=true", "engine.teacher_dtype=bf16"])
    assert fast.spec()["engine"] == {"channels_last": True, "teacher_dtype": "bf16"}
    assert fast.spec_hash != run_config("kd", TASK).spec_hash
    assert not fast.custom
    assert run_config("kd", TASK, ["engine.fused=true", "train.epochs=3"]).custom
    assert engine_options(["train.epochs=3", "engine.fused=true"]) == EngineOptions(fused=True)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("engine.channel_last=true", "no key 'engine.channel_last' here (did you mean 'engine.channels_last'"),
        ("engine.precision=fp16", "override engine.precision: Input should be 'fp32', 'tf32' or 'bf16'"),
        ("engine.compile=1", "override engine.compile: Input should be a valid boolean"),
        ("engine=fast", "'engine' is a group; set one of engine.precision"),
        ("engine.teacher_store_mib=100", "bounds what engine.teacher_store=true keeps; set that as well"),
        ("engine.teacher_store=1", "override engine.teacher_store: Input should be a valid boolean"),
        ("engine.teacher_ahead=0", "override engine.teacher_ahead: Input should be greater than or equal to 1"),
        ("engine.teacher_ahead=65", "override engine.teacher_ahead: Input should be less than or equal to 64"),
        ("engine.cuda_graphs=true", "the update too, which must be fused; set engine.fused=true as well"),
    ],
)
def test_a_wrong_option_is_one_line(override, message):
    with pytest.raises(UserError) as error:
        run_config("kd", TASK, [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_store_is_an_option_and_a_class_whose_size_decides_nothing():
    store = run_config("kd", TASK, ["engine.teacher_store=true", "engine.teacher_store_mib=10"])
    assert store.spec()["engine"] == {"teacher_store": True}
    assert str(DeviceClass.of("cpu", store.engine)) == "cpu/fp32/x1/teacher-store"
    assert store.engine.without_teacher() == store.engine.without_store() == EAGER
    with pytest.raises(UserError, match="looks answers up on the host, which no captured step does; leave out one"):
        run_config("kd", TASK, ["engine.teacher_store=true", "engine.cuda_graphs=true", "engine.fused=true"])


def test_a_teacher_ahead_is_an_option_and_a_class_and_in_no_cost():
    ahead = run_config("kd", TASK, ["engine.teacher_ahead=4"])
    assert ahead.spec()["engine"] == {"teacher_ahead": 4}
    assert not ahead.custom
    assert run_config("kd", TASK, ["engine.teacher_ahead=1"]).spec_hash == run_config("kd", TASK).spec_hash
    assert str(DeviceClass.of("cpu", ahead.engine)) == "cpu/fp32/x1/teacher-ahead-4"
    assert ahead.engine.without_store() == ahead.engine
    assert ahead.engine.for_costs() == ahead.engine.without_teacher() == EAGER
    with pytest.raises(UserError, match="batches of later steps, a captured step draws its own; leave out one"):
        run_config("kd", TASK, ["engine.teacher_ahead=4", "engine.cuda_graphs=true", "engine.fused=true"])
    with pytest.raises(UserError, match="keeps answers of single batches, teacher_ahead joins them; leave out one"):
        run_config("kd", TASK, ["engine.teacher_ahead=4", "engine.teacher_store=true"])


def test_every_device_class_can_stand_in_a_record():
    adapter = TypeAdapter(DeviceClassName)
    every = EngineOptions(
        precision="bf16", compile=True, cuda_graphs=True, channels_last=True, fold_teacher=True, teacher_dtype="fp32",
        fused=True,
    )  # fmt: skip
    stored, ahead = EngineOptions(fold_teacher=True, teacher_store=True), EngineOptions(fused=True, teacher_ahead=10)
    for options in (EngineOptions(), FAST, every, stored, ahead):
        made = DeviceClass.of("cuda:H100", options, 8)
        assert adapter.validate_python(str(made)) == str(made)
        assert DeviceClass.parse(str(made)) == made


def test_a_record_whose_class_hides_an_option_is_refused(make_record):
    made = make_record(device_class="cpu/fp32/x1/channels-last", protocol__channels_last=True)
    Record.model_validate_json(json.dumps(made))
    Record.model_validate_json(
        json.dumps(make_record(device_class="cpu/fp32/x1/teacher-store", protocol__teacher_store=True))
    )
    Record.model_validate_json(
        json.dumps(make_record(device_class="cpu/fp32/x1/teacher-ahead-4", protocol__teacher_ahead=4))
    )
    hiding: list[dict[str, Any]] = [{"compile": True}, {"teacher_store": True}, {"teacher_ahead": 4}]
    for hidden in [make_record(**{f"protocol__{name}": v for name, v in one.items()}) for one in hiding]:
        with pytest.raises(ValidationError, match="does not say what protocol says"):
            Record.model_validate_json(json.dumps(hidden))


def test_a_sweep_counts_records_of_its_options_alone():
    here = devices.find("basic", "cpu", None, None, FAST)
    assert here.belongs("cpu/fp32/x1/channels-last/fold-teacher/fused")
    assert not here.belongs("cpu/fp32/x1")
    cluster = devices.find("submitit_slurm", "cuda", None, None, FAST)
    assert cluster.belongs("cuda:A100/fp32/x1/channels-last/fold-teacher/fused")
    assert not cluster.belongs("cuda:A100/fp32/x1")
    assert not cluster.belongs("cpu/fp32/x1/channels-last/fold-teacher/fused")


# networks


@pytest.mark.parametrize("net", OFFERED)
def test_a_folded_teacher_gives_every_tap(net):
    teacher, batch = used(net)
    folded = accelerate.teacher(teacher, Needs(), EngineOptions(fold_teacher=True, channels_last=True))
    norms = [sum(isinstance(m, torch.nn.BatchNorm2d) for m in n.modules()) for n in (teacher, folded)]
    assert norms[0] - norms[1] == OFFERED[net]
    for a, b in zip(teacher(batch), folded(batch), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "needs",
    [
        Needs(trains_teacher=True),
        Needs(teacher_batchnorm="batch"),
        Needs(teacher=frozenset({"norm"})),
        Needs(teacher=frozenset({"tail"})),
    ],
    ids=["trained", "batch statistics", "norm", "tail"],
)
def test_who_reads_or_moves_norms_keeps_them(needs):
    teacher, _ = used("resnet8x4")
    kept = accelerate.teacher(teacher, needs, EngineOptions(fold_teacher=True))
    assert kept.state_dict().keys() == teacher.state_dict().keys()


def test_a_teacher_in_bf16_gives_fp32_close_to_its_own():
    teacher, batch = used("resnet8x4")
    teacher.requires_grad_(False)
    low = accelerate.teacher(teacher, Needs(), EngineOptions(teacher_dtype="bf16"))
    assert teacher.autocast is None
    for a, b in zip(low(batch), teacher(batch), strict=True):
        for mine, own in zip(a if isinstance(a, tuple) else (a,), b if isinstance(b, tuple) else (b,), strict=True):
            assert mine.dtype is torch.float32
            assert 0 < float((mine - own).abs().max()) < 0.1 * float(own.abs().max())


# runs


FEW = ("plain", "kd", "crd", "ffsd", "cgan_kd", "tf_kd", "dlb")
"""One of each form: no teacher, scores, a memory, peers, a generator, a student that teaches itself, views."""
EVERY = [
    pytest.param(name, marks=[] if name in FEW else pytest.mark.slow) for name in sorted(registry.method_packages())
]


@pytest.mark.parametrize("method", EVERY)
def test_every_method_trains_alike_with_what_changes_no_precision(method, tmp_path):
    eager, fast = (losses(tiny_of(method, o), tmp_path / str(i)) for i, o in enumerate((EAGER, FAST)))
    assert fast == pytest.approx(eager, rel=2e-3)


@pytest.mark.parametrize("method", ["kd", "reviewkd", "crd"])
def test_a_run_in_bf16_stays_near_fp32(method, tmp_path):
    low = EngineOptions(precision="bf16")
    exact, rough = (losses(tiny_of(method, o), tmp_path / str(i)) for i, o in enumerate((EAGER, low)))
    assert rough == pytest.approx(exact, rel=0.1)
    assert rough != exact


def test_a_run_with_options_resumes_to_the_same_bits_and_keeps_the_plain_student(tmp_path):
    def train(folder: Path, seconds: float):
        task = tiny_of("kd", FAST.model_copy(update={"precision": "bf16"}))
        prepared = task.prepare(folder)
        return prepared, Trainer(prepared.method, prepared.task, folder / "run", None, None, seconds).run()

    whole, told = train(tmp_path / "whole", 1e9)
    train(tmp_path / "cut", 0.0)
    for late in (tmp_path / "cut" / "run").glob("stage-*.pt"):
        late.unlink()  # what is left is the checkpoint within the stage
    again, retold = train(tmp_path / "cut", 1e9)
    assert told.digest == retold.digest
    for a, b in zip(whole.method.state_dict().values(), again.method.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert equals_plain(copy.deepcopy(whole.method.deployed), whole.task)


def test_tf32_is_refused_where_there_is_none():
    config = run_config("kd", TASK, ["engine.precision=tf32"])
    with pytest.raises(UserError, match=r"engine\.precision=tf32: CPU devices have no TF32; leave it out"):
        accelerate.process(torch.device("cpu"), config.engine)


def test_cuda_graphs_are_refused_where_there_are_none():
    net, _ = used("convnet_w4")
    with pytest.raises(UserError, match="cuda_graphs=true: there are none on cpu"):
        accelerate.student(net, EngineOptions(fused=True, cuda_graphs=True))


@pytest.mark.slow
def test_a_compiled_run_gives_the_losses_of_an_eager_one(tmp_path):
    options = EngineOptions(compile=True)
    assert losses(tiny_of("kd", options), tmp_path / "a") == pytest.approx(
        losses(tiny_of("kd", EAGER), tmp_path / "b"), rel=1e-4
    )
