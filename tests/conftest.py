"""What every test starts from: one thread, deterministic kernels, a home folder of its own."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, before CUDA starts

HERE = Path(__file__).parent


def load_module(path: Path) -> ModuleType:
    """A Python file below ``tests/`` as a module; the tests are no package, so files are loaded by path."""
    name = "kdbench_tests." + ".".join(path.relative_to(HERE).with_suffix("").parts)
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up while it is executed
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--parity-dir", type=Path, metavar="DIR", help="golden vectors to run instead of those in tests/parity"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("data") and not os.environ.get("KDBENCH_DATA"):
            item.add_marker(pytest.mark.skip(reason="KDBENCH_DATA names no data folder"))
        if item.get_closest_marker("gpu") and not _has_cuda():
            item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How many golden cases ran, by method."""
    ran: dict[str, set[str]] = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for key, case in getattr(report, "user_properties", []):
                if key == "parity_case" and report.when == "call":
                    ran.setdefault(case.rpartition("/")[0], set()).add(case)
    if ran:
        counts = Counter({method: len(cases) for method, cases in ran.items()})
        terminalreporter.section("golden vectors")
        terminalreporter.line(f"{counts.total()} cases: " + ", ".join(f"{m} {n}" for m, n in sorted(counts.items())))


@pytest.fixture(scope="session", autouse=True)
def _one_deterministic_thread() -> None:
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


_homes = itertools.count()


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path_factory.getbasetemp() / "homes" / str(next(_homes))  # mktemp would look at all of them each time
    home.mkdir(parents=True)
    monkeypatch.setenv("KDBENCH_HOME", str(home))


@pytest.fixture(autouse=True)
def _forgets() -> Iterator[None]:
    """What a test registers by path or as an object ends with it."""
    yield
    if "kdbench.specs.registry" in sys.modules:
        from as_new import forget, told

        if told():
            forget()


@pytest.fixture(autouse=True)
def _same_seed() -> None:
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def load() -> Callable[[str], ModuleType]:
    """Loads a file below ``tests/`` by its relative path, once."""
    return lambda path: load_module(HERE / path)


@pytest.fixture(scope="session")
def make_record() -> Callable[..., dict[str, Any]]:
    """``tests/support/records.py``: the JSON form of a valid record, fields by keyword."""
    return load_module(HERE / "support" / "records.py").make_record  # type: ignore[no-any-return]


@functools.cache
def _rows(task: str) -> str:
    """Identity of the rows of a task on embedded data."""
    from kdbench.base.home import Home
    from kdbench.base.progress import Progress
    from kdbench.engine.assemble import load_data
    from kdbench.specs.config import run_config

    return load_data(run_config("plain", task), None, Home(Path()), Progress.silent()).identity()


@pytest.fixture
def recorded(tmp_path: Path, make_record: Any) -> Callable[..., str]:
    """Writes a record of a run as if a sweep in the home ``tmp_path / "home"`` had made it; returns its run id."""
    from kdbench import identity
    from kdbench.specs import registry
    from kdbench.specs.config import run_config

    def write(method: str, seed: int, task: str = "digits/few-shot", **fields: Any) -> str:
        config, spec = run_config(method, task), registry.task(task)
        made = make_record(
            seed=seed, method__name=method, task__name=task, task__version=spec.version, task__kind=spec.kind, **fields
        )
        made["spec_hash"] = config.spec_hash
        made["method"]["adapter_version"] = config.method.ref.card.version
        made["identity"] = identity.of(config, _rows(task)).model_dump(mode="json")
        folder = tmp_path / "home" / "records"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{made['run_id']}.json").write_text(json.dumps(made))
        return str(made["run_id"])

    return write
