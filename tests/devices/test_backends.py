"""A kind of device is a file: what is not its backend's asks it, and one from outside goes wherever CUDA goes."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from plugged import kdbench, plugged
from tinies import tiny_of
from toy_device import Abacus

from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.data import duration
from kdbench.devices import backends
from kdbench.devices.backends import cuda as cuda_module
from kdbench.devices.backends import standing_in
from kdbench.devices.backends.cpu import Cpu
from kdbench.devices.backends.cuda import Cuda
from kdbench.devices.base import Backend
from kdbench.devices.machine import contended, device_class, environment, pick_device, take_device
from kdbench.engine import accelerate
from kdbench.engine.graphs import require_graphs
from kdbench.overhead import measure, worker
from kdbench.overhead.energy import MeasuredEnergy
from kdbench.overhead.memory import peak_memory
from kdbench.records.provenance import ROOT
from kdbench.runs import run
from kdbench.runs.request import Request
from kdbench.specs.config import run_config
from kdbench.specs.options import EngineOptions
from kdbench.sweep import devices as sweep_devices
from kdbench.terminal.doctor import _devices

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
SUPPORT = Path(__file__).parents[1] / "support"
SOURCES = [
    path
    for folder in ("kdbench", "methods", "leaderboard")
    for path in (ROOT / folder).rglob("*.py")
    if ROOT / "kdbench" / "devices" not in path.parents
]


def asks(path: Path) -> Iterator[str]:
    """Lines of code that ask torch for a kind of device by name, or compare a device's type with one; ``cpu`` apart,
    which stands for the host's memory as well.
    """
    text = path.read_text()
    lines, kinds = text.splitlines(), set(backends.names()) - {"cpu"}
    if not any(kind in text for kind in kinds):
        return
    for node in ast.walk(ast.parse(text)):
        named = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch"
        asked = {node.attr} if named else set()
        if isinstance(node, ast.Compare):
            asked = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        if isinstance(node, ast.Import | ast.ImportFrom):
            asked = set(ast.unparse(node).replace(".", " ").split())
        if asked & kinds:
            yield f"{path.relative_to(ROOT)}: {lines[node.lineno - 1].strip()}"


def test_no_file_outside_the_room_asks_for_a_kind_of_device() -> None:
    assert len(SOURCES) > 250
    assert [line for path in SOURCES for line in asks(path)] == []
    own = [path for path in (ROOT / "kdbench" / "devices").rglob("*.py") if list(asks(path))]
    assert own, "the room itself asks torch, so the test can see it"


def test_finding_backends_imports_no_torch() -> None:
    code = "import sys; from kdbench.devices import backends; backends.words(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_backends_by_name_and_by_torchs_type() -> None:
    assert backends.names() == ["cpu", "cuda", "mps", "rocm"]
    assert backends.of(CPU).name == "cpu"
    assert backends.of(CUDA).name == "cuda"
    with standing_in(Abacus()):
        assert backends.names()[-1] == "abacus"
        assert backends.of(CPU).name == "abacus"
    assert backends.of(CPU).name == "cpu"


@pytest.fixture
def toy() -> Iterator[Abacus]:
    toy = Abacus()
    with standing_in(toy):
        yield toy


def test_a_device_from_outside_is_named_in_classes_and_records(toy: Abacus) -> None:
    assert device_class(take_device("auto")) == "abacus:Soroban-23/fp32/x1"
    assert toy.asked == ["make current"]
    assert environment(CPU)["gpu"]["name"] == "Soroban 23"
    assert environment(CPU)["driver"] == "1.2"
    assert contended(CPU) is False
    assert (peak_memory(lambda: None, CPU).alloc_mib, peak_memory(lambda: None, CPU).reserved_mib) == (7, 9)
    assert [check.found for check in _devices()] == ["abacus Soroban 23"]
    place = sweep_devices.find("joblib", "abacus", None, 2)
    assert (place.devices, place.jobs) == (("abacus",), 2)
    assert place.belongs("abacus:Soroban-23/fp32/x1")
    assert not place.belongs("cpu/fp32/x1")


def test_a_device_from_outside_trains_by_its_own_graphs_to_the_same_bits(toy: Abacus, tmp_path: Path) -> None:
    def evaluate(home: str, **engine: bool) -> Any:
        config = run_config("kd", "digits/few-shot", [f"engine.{name}=true" for name in engine], smoke=True)
        return run.run_seed(Request(config, 0, CPU, Home(tmp_path / home), overhead="off"))

    found = evaluate("toy")
    assert found.status == "ok", found.error
    assert found.device_class == "abacus:Soroban-23/fp32/x1"
    assert found.environment.gpu is not None
    assert "graphs" not in toy.asked
    assert evaluate("graphs", fused=True, cuda_graphs=True).status == "ok"
    assert "graphs" in toy.asked
    with standing_in(Cpu()):
        plain = evaluate("cpu")
    assert plain.device_class == "cpu/fp32/x1"
    assert plain.deploy.export_sha256 == found.deploy.export_sha256


def test_a_checkpoint_holds_the_devices_random_state(toy: Abacus, tmp_path: Path) -> None:
    prepared = tiny_of("kd").prepare(tmp_path)
    from kdbench.engine.stage import StageRun

    stage = StageRun(prepared.method, next(prepared.method.stages()), prepared.task)
    state = stage.state()
    assert state["device_rng"].tolist() == [23]
    stage.load(state)
    assert toy.asked[-2:] == ["random state", "set random state"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_device_from_outside_goes_through_sweep_and_measurement(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    shutil.copy(SUPPORT / "toy_device.py", package / "toy_device.py")
    entry = "[project.entry-points.\"kdbench.devices\"]\nabacus = 'toy_device'"
    (package / "pyproject.toml").write_text(f'[project]\nname = "toy-device"\nversion = "1.0.0"\n{entry}\n')
    home = tmp_path / "home"
    with plugged(package):  # written beside it, as an installer would
        assert backends.names()[-1] == "abacus"
        assert duration.speed()[0] == "cpu"
    words = ["sweep", "-m", "kd", "-t", "digits/few-shot", "--seeds", "0", "--smoke", "--overhead", "quick"]
    done = kdbench(home, *words, "--device", "abacus", folders=(package,))
    assert done.returncode == 0, done.stderr + done.stdout
    records = [json.loads(path.read_text()) for path in home.rglob("records/**/*.json")]
    found = next(record for record in records if record["method"]["name"] == "kd")
    assert (found["status"], found["device_class"]) == ("ok", "abacus:Soroban-23/fp32/x1")
    cost = found["overhead"]
    assert (cost["device"], cost["contended"], cost["peak_alloc_mib"], cost["plain_peak_reserved_mib"]) == (
        "abacus:Soroban-23", False, 7.0, 9.0,
    )  # fmt: skip
    assert cost["board"][0] == {"sm_clock_mhz": 12, "temperature_c": 21}
    assert found["environment"]["packages"]["toy-device"] == "1.0.0"


# Kinds of devices that are not here


def test_graphs_are_refused_where_there_are_none() -> None:
    with pytest.raises(UserError, match="there are none on cpu; leave it out or add --device cuda"):
        require_graphs(CPU)


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    net = torch.nn.Linear(1, 1)
    with pytest.raises(UserError, match="no C\\+\\+ compiler is on the PATH; install g\\+\\+ or clang, or leave"):
        accelerate.student(net, EngineOptions(compile=True))  # type: ignore[arg-type]


def test_apples_devices_are_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"^--device mps: .* 64-bit floats, .*; use --device cpu or --device auto$"):
        pick_device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto") == CPU
    assert "takes the CPU, not MPS: kdbench's metrics" in capsys.readouterr().err
    assert [(check.state, check.found[:4]) for check in _devices()] == [("note", "MPS:")]


def test_amds_cards_are_called_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = SimpleNamespace(name="AMD Instinct MI300X", total_memory=2**30)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: seen.name)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: seen)
    assert pick_device("auto") == CUDA
    assert pick_device("rocm:1") == torch.device("cuda", 1)
    assert device_class(CUDA) == "rocm:AMD-Instinct-MI300X/fp32/x1"
    assert environment(CUDA)["gpu"]["mem_mib"] == 1024
    assert sweep_devices.find("joblib", "rocm", None, None).devices == ("rocm:0", "rocm:1")
    with pytest.raises(UserError, match="built for AMD's cards; use --device rocm"):
        pick_device("cuda")


@pytest.fixture
def old_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML counts a card, and torch cannot use it."""

    def fails(*args: object) -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 12020). Please update it.\nMore")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", fails)
    monkeypatch.setattr(torch.cuda, "init", fails)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setattr(cuda_module, "_driver", lambda: "535.54")


@pytest.mark.usefixtures("old_driver")
def test_an_old_driver_is_said_by_doctor_and_by_device(capsys: pytest.CaptureFixture[str]) -> None:
    why = (
        "torch cannot use the card (The NVIDIA driver on your system is too old (found version 12020)); driver 535.54, "
        "torch is built for CUDA 13.2: install a newer driver, or a torch for an older CUDA"
    )
    assert [(check.state, check.found) for check in _devices()] == [("note", f"CUDA: {why}; runs use the CPU")]
    assert pick_device("auto") == CPU
    assert capsys.readouterr().err == f"--device auto takes the CPU, not CUDA: {why}\n"
    with pytest.raises(UserError, match=r"driver 535\.54"):
        pick_device("cuda")


def test_doctor_lives_when_a_driver_gives_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(device: object) -> str:
        raise RuntimeError("CUDA error: unknown error\nmore")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", fails)
    assert [check.found for check in _devices()] == ["CUDA: CUDA error: unknown error; add --device cpu"]


def test_the_device_that_is_named_is_made_current_and_a_sweep_takes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    sweep_devices.find("joblib", "cuda", None, None)
    assert current == []
    assert take_device("cuda:2") == torch.device("cuda", 2)
    assert current == [torch.device("cuda", 2)]


def test_the_measuring_process_makes_its_device_current(toy: Abacus, monkeypatch: pytest.MonkeyPatch) -> None:
    order = SimpleNamespace(
        part="times",
        place=SimpleNamespace(device=CPU),
        config=SimpleNamespace(config=lambda: run_config("kd", "digits/few-shot")),
    )
    monkeypatch.setattr(worker, "times", lambda config, order: {"done": list(toy.asked)})
    threads = torch.get_num_threads()
    assert worker.run(order) == {"done": ["make current"]}  # type: ignore[arg-type]
    torch.set_num_threads(threads)


def test_why_energy_is_null_is_kept() -> None:
    def phase(energy: MeasuredEnergy | None) -> Any:
        return SimpleNamespace(steps=1, energy=energy)

    why = "other processes on the GPU: 1"
    untrusted = MeasuredEnergy(None, None, None, (), "nvml", False, why)
    assert measure._energy([phase(untrusted)]) == {"energy": None, "no_energy": why}
    assert measure._energy([phase(None)]) == {"energy": None}


def test_random_states_of_all_devices_in_use_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[tuple[str, Any]] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: log.append(("get", device)) or device)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: log.append(("set", device)))
    before = torch.get_rng_state()
    with backends.random_states_kept():
        torch.rand(3)
    assert torch.equal(before, torch.get_rng_state())
    assert [(what, torch.device("cuda", number)) for what in ("get", "set") for number in (0, 1)] == [
        (what, torch.device("cuda", device) if isinstance(device, int) else device) for what, device in log
    ]


def test_every_backend_states_all_of_it() -> None:
    for backend in backends.every():
        assert isinstance(backend, Backend)
        if backend.refused is None:
            assert backend.timing.limit_s.keys() == {"quick", "full"}
            assert "gloo" in backend.collective
            assert backend.speed().macs > 0


def test_compiling_for_cuda_needs_triton_and_a_c_compiler(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert Cuda().no_compiler() == "triton is not installed; install it"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert Cuda().no_compiler() == "triton finds no C compiler on the PATH; install gcc or clang"
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/gcc" if name == "gcc" else None)
    assert Cuda().no_compiler() is None


class Generator:
    """A global generator of CUDA's: which state it works on."""

    state = "outside"

    def clone_state(self) -> str:
        return "own"

    def graphsafe_get_state(self) -> str:
        return self.state

    def graphsafe_set_state(self, state: str) -> None:
        self.state = state


def test_a_lane_of_cuda_has_a_stream_and_a_state_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, entered = Generator(), []

    @contextmanager
    def on(stream: Any) -> Iterator[None]:
        entered.append((stream.number, generator.state))
        yield

    waited: list[Any] = []
    streams = [SimpleNamespace(number=number, wait_stream=waited.append) for number in range(2)]
    given = iter(streams)
    names = {
        "Stream": lambda device: next(given), "stream": on, "current_stream": lambda device: "the process's",
        "default_generators": (generator,), "get_rng_state": lambda device: torch.zeros(1),
    }  # fmt: skip
    for name, stand_in in names.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    first, second = (Cuda().lane(CUDA) for _ in range(2))
    assert waited == ["the process's"] * 2, "what was brought to the card before is there"
    torch.manual_seed(3)
    own, drawn = torch.get_rng_state(), []
    for lane in (first, second, first):
        with lane.turn():
            drawn.append(float(torch.rand(())))
    with pytest.raises(RuntimeError, match="broken"), second.turn():
        raise RuntimeError("broken")
    assert entered == [(0, "own"), (1, "own"), (0, "own"), (1, "own")]
    assert generator.state == "outside"
    assert drawn[0] == drawn[1] != drawn[2]
    assert not torch.equal(torch.get_rng_state(), own)


def test_a_lane_keeps_the_state_of_a_devices_own_generator(toy: Abacus) -> None:
    with backends.of(CPU).lane(CPU).turn():
        pass
    assert toy.asked == ["random state", "set random state", "random state"]
