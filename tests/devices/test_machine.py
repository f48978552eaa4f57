"""Facts of the machine: complete, and nothing that names it or its user."""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kdbench.base.errors import UserError
from kdbench.devices import backends, machine, nvml
from kdbench.devices.machine import contended, device_class, environment, pick_device
from kdbench.devices.nvml import Nvml
from kdbench.specs.options import EngineOptions

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def test_importing_it_does_not_import_torch():
    code = "import sys, kdbench.devices.machine, kdbench.devices.nvml; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_environment_has_the_fields_of_a_record():
    found = environment(CPU)
    assert list(found) == (
        "os python torch cuda cudnn driver gpu cpu cores threads ram_gib flags packages packages_sha256".split()  # noqa: SIM905
    )
    assert found["torch"] == torch.__version__
    assert found["gpu"] is None
    assert found["driver"] is None
    assert found["cores"] >= 1
    assert found["threads"] == torch.get_num_threads()
    assert 0.1 < found["ram_gib"] < 100_000
    assert list(found["flags"]) == ["tf32", "conv_fp32", "matmul_fp32", "cudnn_benchmark", "deterministic"]
    assert found["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert "numpy" in found["packages"]
    assert re.fullmatch("[0-9a-f]{64}", found["packages_sha256"])
    assert found == environment(CPU) == json.loads(json.dumps(found))


def test_environment_names_neither_machine_nor_user_nor_path(monkeypatch):
    monkeypatch.setattr(machine.platform, "release", lambda: "6.1.0-13-" + "acme-cluster")
    text = json.dumps(environment(CPU)).lower()
    secrets = {socket.gethostname(), getpass.getuser(), "acme", *os.environ.get("HOSTNAME", "").split()}
    for secret in secrets:
        assert not re.search(rf"(?<![a-z0-9]){re.escape(secret.lower())}(?![a-z0-9])", text), secret
    assert str(Path.home()).lower() not in text
    assert not re.search(r"(?<![a-z])/[a-z]", text), "a path"
    assert not re.search(r"\d+\.\d+\.\d+\.\d+", text)


@pytest.mark.parametrize("on", [False, True])
def test_flags_follow_torch(on):
    before = torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled()
    try:
        torch.backends.cudnn.benchmark = on
        torch.use_deterministic_algorithms(on)
        products = {"tf32": False, "conv_fp32": None, "matmul_fp32": None}  # of an accelerator alone
        assert environment()["flags"] == {**products, "cudnn_benchmark": on, "deterministic": on}
    finally:
        torch.backends.cudnn.benchmark = before[0]
        torch.use_deterministic_algorithms(before[1])


def test_the_digest_of_packages_follows_versions_not_their_order(monkeypatch):
    def installed(*pairs: tuple[str, str]) -> str:
        found = [SimpleNamespace(metadata={"Name": name, "Version": version}) for name, version in pairs]
        monkeypatch.setattr(machine.metadata, "distributions", lambda: iter(found))
        monkeypatch.setattr(machine.plugins, "distributions", set)
        return machine._packages.__wrapped__(())[1]

    one = installed(("a", "1"), ("B_c", "2"))
    assert one == installed(("b-c", "2"), ("a", "1"))
    assert one != installed(("a", "1"), ("b-c", "3"))
    assert one == installed(("a", "1"), ("b-c", "2"), ("A", "0")), "a shadowed copy is not in use"


def test_what_is_installed_while_a_process_runs_is_in_its_next_record(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(tmp_path))
    before = environment()
    assert environment()["packages_sha256"] == before["packages_sha256"]
    info = tmp_path / "lab-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[kdbench.methods]\nmine = lab.mine\n")
    after = environment()
    assert "lab" not in before["packages"]
    assert after["packages"]["lab"] == "1.0"
    assert after["packages_sha256"] != before["packages_sha256"]


@pytest.fixture
def gpu(monkeypatch):
    """Two fake boards."""
    seen = SimpleNamespace(
        name="NVIDIA H100 80GB HBM3",
        total_memory=85_000_000_000,
        pci_domain_id=0,
        pci_bus_id=0x1A,
        pci_device_id=0,
        major=9,
        minor=0,
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: seen.name)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: seen)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)


class FakePynvml:
    """As much of pynvml as is asked for."""

    class NVMLError(Exception):
        pass

    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0

    def __init__(self, **answers: object) -> None:
        self.answers = answers
        self.address = ""

    def nvmlInit(self) -> None:
        if self.answers.get("init") is False:
            raise self.NVMLError

    def nvmlDeviceGetHandleByPciBusId(self, address: str) -> str:
        self.address = address
        return "handle"

    def __getattr__(self, name: str):
        def ask(*args: object) -> object:
            assert args in {("handle",), (), ("handle", self.NVML_CLOCK_SM), ("handle", self.NVML_TEMPERATURE_GPU)}
            if name not in self.answers:
                raise self.NVMLError(name)
            return self.answers[name]

        return ask


def pids(*numbers: int) -> list[SimpleNamespace]:
    return [SimpleNamespace(pid=n) for n in numbers]


def test_gpu_facts_come_from_the_board_at_torchs_address(gpu, monkeypatch):
    api = FakePynvml(
        nvmlSystemGetDriverVersion="570.86.15", nvmlDeviceGetEnforcedPowerLimit=700_000, nvmlDeviceGetMigMode=[0, 0]
    )
    monkeypatch.setitem(sys.modules, "pynvml", api)
    found = environment(CUDA, 2)
    assert api.address == "00000000:1a:00.0"
    assert found["driver"] == "570.86.15"
    assert found["gpu"] == {
        "name": "NVIDIA H100 80GB HBM3", "count": 2, "mem_mib": 81062, "power_limit_w": 700.0, "mig": False,
    }  # fmt: skip


def test_clock_and_temperature_where_the_board_tells(gpu, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", FakePynvml(nvmlDeviceGetClockInfo=1980))
    board = Nvml.open(CUDA)
    assert board is not None
    assert (board.sm_clock_mhz(), board.temperature_c()) == (1980, None)


def test_gpu_facts_without_nvml_are_null(gpu, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = environment(CUDA)["gpu"]
    assert found["name"] == "NVIDIA H100 80GB HBM3"
    assert found["count"] == 1, "those of the run, of two that are there"
    assert found["power_limit_w"] is None
    assert found["mig"] is None
    assert contended(CUDA) is None


def test_nvml_without_a_driver_is_no_board(gpu, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", FakePynvml(init=False))
    assert Nvml.open(CUDA) is None
    assert backends.of(CPU).board(CPU) is None


@pytest.mark.parametrize(
    ("compute", "graphics", "expected"),
    [((os.getpid(),), (), False), ((7,), (), False), ((7, 8), (), True), ((7,), (9,), True), ((7,), (7,), False)],
)
def test_contended_by_any_process_but_one(gpu, monkeypatch, compute, graphics, expected):
    api = FakePynvml(
        nvmlDeviceGetComputeRunningProcesses=pids(*compute), nvmlDeviceGetGraphicsRunningProcesses=pids(*graphics)
    )
    monkeypatch.setitem(sys.modules, "pynvml", api)
    assert contended(CUDA) is expected
    assert contended(CPU) is None


def test_what_a_board_does_not_offer_is_none():
    board = Nvml(FakePynvml(), "handle")
    answers = [board.energy_mj(), board.power_limit_w(), board.utilisation(), board.other_processes(), board.driver()]
    assert answers == [None] * 5
    assert board.mig() is False
    assert Nvml(FakePynvml(nvmlDeviceGetMigMode=[1, 1]), "handle").mig() is True
    assert Nvml(FakePynvml(nvmlSystemGetDriverVersion=b"550.1"), "handle").driver() == "550.1"
    assert nvml.Nvml(FakePynvml(nvmlDeviceGetUtilizationRates=SimpleNamespace(gpu=3)), "handle").utilisation() == 3


def test_device_class(gpu):
    assert device_class(CPU) == "cpu/fp32/x1"
    fast = EngineOptions(precision="bf16", compile=True, channels_last=True, fold_teacher=True, fused=True)
    assert device_class(CUDA, fast, world_size=4) == (
        "cuda:NVIDIA-H100-80GB-HBM3/bf16/x4/compile/channels-last/fold-teacher/fused"
    )
    assert device_class(CPU, EngineOptions(teacher_dtype="bf16")) == "cpu/fp32/x1/teacher-bf16"


def test_device_class_of_an_odd_name_is_safe(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: " Tesla/T4 (x16) ")
    assert device_class(CUDA) == "cuda:Tesla-T4-x16/fp32/x1"


def test_pick_device_with_gpus(gpu):
    assert pick_device("auto") == CUDA
    assert pick_device("cuda") == CUDA
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    assert pick_device("cpu") == CPU
    with pytest.raises(UserError, match="there are 2 CUDA devices"):
        pick_device("cuda:2")


def test_pick_device_without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == CPU
    assert pick_device("cpu") == CPU
    with pytest.raises(UserError, match="sees no CUDA device"):
        pick_device("cuda")


@pytest.mark.parametrize("text", ["gpu", "cuda:", "cuda:-1", "CPU", "", "cuda:0,1", "cpu\n"])
def test_pick_device_refuses_other_words(text):
    with pytest.raises(UserError, match="use auto, cpu, cuda or rocm, or a number as in cuda:1"):
        pick_device(text)
