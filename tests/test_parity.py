"""Every golden vector, in float64 and float32; ``--parity-dir`` runs another folder of the same formats."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdbench.checks import golden
from kdbench.specs import registry

HERE = Path(__file__).parent / "parity"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "sidecar" in metafunc.fixturenames:
        root = metafunc.config.getoption("parity_dir") or HERE
        found = [(path, path.parent.relative_to(root).as_posix()) for path in sorted(root.glob("**/*.json"))]
        metafunc.parametrize(("sidecar", "folder"), found, ids=[f"{folder}/{path.stem}" for path, folder in found])


@pytest.fixture
def mapping(folder, load, pytestconfig):
    """The mapping of the folder; a folder from outside that has none, or no method, is skipped by name."""
    give_up = pytest.fail if pytestconfig.getoption("parity_dir") is None else pytest.skip
    if not (HERE / folder / "mapping.py").is_file():
        give_up(f"{folder}: there is no tests/parity/{folder}/mapping.py")
    try:
        return load(f"parity/{folder}/mapping.py")
    except ModuleNotFoundError as error:
        method = (error.name or "").removeprefix("kdbench.methods.").partition(".")[0]
        if method == error.name or method in registry.methods():
            raise
        give_up(f"{folder}: no method {method!r} is registered")


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_values_and_gradients_are_those_stored(sidecar, folder, mapping, precision, record_property):
    case = golden.read(sidecar, folder, mapping)
    if precision not in case.bounds:
        pytest.skip(f"{folder}: no {precision} tolerance is given")
    record_property("parity_case", f"{folder}/{case.name}")
    problems = golden.run(case, mapping, precision)
    assert not problems, f"{folder}/{case.name} in {precision}:\n" + "\n".join(problems)


def test_vectors_are_data_only():
    known = {".json", ".safetensors", ".py"}
    others = [p.name for p in HERE.rglob("*") if p.is_file() and p.suffix not in known and "__pycache__" not in p.parts]
    assert not others, f"golden vectors are safetensors and JSON, mappings Python; found {others}"
