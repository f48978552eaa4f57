"""A package of its own has a place for golden vectors, and ``kdbench check`` runs them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from plugged import plugged
from safetensors.torch import save_file

from kdbench import scaffold
from kdbench.checks import check_method, golden, rules
from kdbench.identity import sourcecode
from kdbench.specs import registry


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    """A standalone package as it is written; what a test imported of it is forgotten."""
    yield scaffold.new_method("my_own", standalone=True, to=tmp_path / "kdbench-my_own").folder
    for name in [name for name in sys.modules if name.startswith("kdbench_my_own")]:
        del sys.modules[name]


def store(package: Path, off: float = 0.0, weight: float = 0.25) -> None:
    """The scaffold's method on a batch: cross-entropy, and weight times the squared distance of the logits."""
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 6, 5, dtype=torch.float64)
    y, student = torch.arange(6) % 5, student.requires_grad_()
    ce, distance = F.cross_entropy(student, y), (student - teacher).square().sum(1).mean()
    total = ce + weight * distance
    total.backward()
    tensors = {
        "input.logits_s": student.detach(), "input.logits_t": teacher.clone(), "input.target": y,
        "output.loss_ce": ce.detach(), "output.loss_kd": weight * distance.detach(),
        "output.total": total.detach() + off, "grad.logits_s": student.grad,
    }  # fmt: skip
    about: dict[str, Any] = {
        "scalars": {"weight": weight},
        "tolerance": {"float64": {"rtol": 1e-9, "atol": 1e-11}, "float32": {"rtol": 2e-4, "atol": 1e-5}},
        "tensors": {name: {"shape": list(tensor.shape)} for name, tensor in tensors.items()},
    }
    folder = package / "kdbench_my_own" / "parity"
    save_file(tensors, folder / "case1.safetensors")
    (folder / "case1.json").write_text(json.dumps(about))


def verified(package: Path) -> None:
    card = package / "kdbench_my_own" / "card.yaml"
    card.write_text(card.read_text().replace("parity: unverified", "parity: verified"))


def verdict() -> Any:
    ref = registry.method("my_own")
    assert golden.own_place(ref)
    return rules.golden_vectors(ref)


def test_the_scaffold_has_a_place_for_them(package):
    assert (package / "kdbench_my_own" / "parity" / "mapping.py").is_file()
    assert '"parity/*"' in (package / "pyproject.toml").read_text()
    assert "kdbench check my_own" in (package / "kdbench_my_own" / "parity" / "mapping.py").read_text()


def test_without_vectors_nothing_is_asked_of_an_unverified_method(package):
    with plugged(package):
        assert not golden.own_place(registry.method("my_own"))


def test_right_vectors_pass(package):
    store(package)
    verified(package)
    with plugged(package):
        assert verdict() is None


def test_a_wrong_value_is_told_with_its_case_and_name(package):
    store(package, off=1e-3)
    with plugged(package):
        told = verdict()
    assert told.startswith("case1 in float64: output.total: off by 0.001, allowed")
    assert "(1 more)" in told


def test_a_wrong_weight_of_the_method_is_noticed(package):
    store(package)
    adapter = package / "kdbench_my_own" / "adapter.py"
    adapter.write_text(adapter.read_text().replace("hp.weight * distance", "2 * hp.weight * distance"))
    with plugged(package):
        assert "output.loss_kd" in verdict()


def test_a_card_that_says_verified_needs_vectors(package):
    verified(package)
    with plugged(package):
        told = verdict()
    assert "parity: verified, and no case lies in" in told
    assert "write unverified" in told


def test_cases_without_a_mapping_are_told(package):
    store(package)
    (package / "kdbench_my_own" / "parity" / "mapping.py").unlink()
    with plugged(package):
        assert "has cases and no mapping.py" in verdict()


def test_built_in_methods_have_theirs_among_the_tests():
    assert not golden.own_place(registry.method("kd"))


@pytest.mark.slow
def test_the_check_runs_them(package):
    store(package)
    with plugged(package):
        results = check_method("my_own", tasks=["classification"])
    assert [result for result in results if result.outcome != "ok"] == []
    assert "golden vectors" in {result.rule for result in results}


def test_vectors_are_no_code_of_the_method(package):
    with plugged(package):
        before = sourcecode.method_digest("my_own")
        store(package)
        sourcecode._package_digest.cache_clear()
        assert sourcecode.method_digest("my_own") == before
