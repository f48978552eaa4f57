"""The validator of published records: what is recomputed, what is refused, what a person is asked to look at."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import records as factory

from kdbench.base.errors import UserError
from kdbench.records import files as records
from kdbench.records.schema.overhead import Measured
from kdbench.records.validate import check_file, check_folder

make: Callable[..., dict[str, Any]] = factory.make_record


def _file(folder: Path, raw: dict[str, Any]) -> Path:
    path = folder / f"{raw['run_id']}.json"
    path.write_text(json.dumps(raw))
    return path


def _errors(path: Path) -> list[str]:
    return [f"{p.field}: {p.message}" for p in check_file(path) if p.level == "error"]


def _warnings(path: Path) -> list[str]:
    return [f"{p.field}: {p.message}" for p in check_file(path) if p.level == "warning"]


def test_validator_recomputes_spec_hash(tmp_path: Path) -> None:
    assert "spec_hash: is not that of" in _errors(_file(tmp_path, make(spec_hash="0" * 64)))[0]
    other = make()
    other["method"]["params"]["temperature"] = 5.0
    assert "provenance.config_resolved.params: does not agree" in _errors(_file(tmp_path, other))[0]


@pytest.mark.parametrize(("ledger", "trains"), [("bank_init", 1), ("evaluation", 0), ("teacher_cache", 0)])
def test_a_line_without_steps_is_of_what_trains_nothing(ledger: str, trains: int, tmp_path: Path) -> None:
    raw = make()
    raw["stages"].append(raw["stages"][0] | {"name": "more", "ledger": ledger, "steps": 0, "basis": "measured"})
    found = _errors(_file(tmp_path, raw))
    assert len(found) == trains
    assert all("stage 'more' has no step and no artefact, so its cost was not measured" in line for line in found)


@pytest.mark.parametrize("field", ["step_ratio", "step_ms", "plain_step_ms", "ci95.0", "ci95.1"])
def test_validator_recomputes_overhead(field: str, tmp_path: Path) -> None:
    raw = make()
    block = Measured.model_validate_json(json.dumps(raw["overhead"]))
    value = block.ci95[int(field[-1])] if "." in field else getattr(block, field)
    assert _errors(_file(tmp_path, factory.set_field(raw, f"overhead.{field}", value * (1 + 1e-8)))) == []
    found = _errors(_file(tmp_path, factory.set_field(raw, f"overhead.{field}", value * (1 + 1e-5))))
    assert len(found) == 1
    assert f"overhead.{field}" in found[0]


def test_validator_recomputes_phases(tmp_path: Path) -> None:
    from kdbench.stats.step_ratio import estimate_ratio, weighted_ratio

    parts = [("warm", 100, factory.make_builds(1.5, seed=1)), ("main", 300, factory.make_builds(3.0, seed=2))]
    single = [estimate_ratio(builds) for _, _, builds in parts]
    whole = weighted_ratio([(steps, builds) for _, steps, builds in parts])
    raw = make(
        overhead__builds=[],
        overhead__phases=[
            {"name": name, "steps": steps, "builds": builds, "step_ratio": found.ratio, "ci95": [found.lo, found.hi]}
            for (name, steps, builds), found in zip(parts, single, strict=True)
        ],
        overhead__step_ratio=whole.ratio, overhead__ci95=[whole.lo, whole.hi],
        overhead__step_ms=whole.method_ms, overhead__plain_step_ms=whole.plain_ms,
    )  # fmt: skip
    path = _file(tmp_path, raw)
    assert check_file(path) == []
    raw["overhead"]["phases"][1]["step_ratio"] *= 1.1
    assert "overhead.phases.1.step_ratio" in _errors(_file(tmp_path, raw))[0]


def test_validator_refuses_twin_keys(tmp_path: Path) -> None:
    raw = make()
    path = _file(tmp_path, raw)
    path.write_text(path.read_text().replace('"top1": 71.5', '"top1": 99.5, "top1": 71.5'))
    assert "top1: stands twice in one object" in _errors(path)


WEAK_TEACHER = {**make()["models"]["teachers"][0], "val_metric": 90.0}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"provenance__dirty": True}, "can never be verified"),
        (
            {"score": 99.9, "models__teachers": [{**make()["models"]["teachers"][0], "val_metric": 90.0}]},
            "over the teacher",
        ),
        ({"metrics__last__top1": 80.0}, "but the curve ends at 71.5"),
        ({"ratio": 0.9}, "faster than plain"),
        ({"overhead__noise_flag": True}, "noisy"),
    ],
)
def test_implausible_is_a_warning(overrides: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = _file(tmp_path, make(**overrides))
    assert _errors(path) == []
    assert said in " ".join(_warnings(path))


def test_folder_checks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder"):
        check_folder(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no record"):
        check_folder(tmp_path)
    base = [make(seed=seed, score=62.0 + seed) for seed in range(3)]
    for raw in base:
        _file(tmp_path, raw)
    assert check_folder(tmp_path) == []

    copied = copy.deepcopy(base[0])
    copied["run_id"] = copied["overhead"]["measured_by"] = records.new_run_id()
    _file(tmp_path, copied)
    assert [p.message for p in check_folder(tmp_path) if "same content" in p.message and p.level == "error"]
    (tmp_path / f"{copied['run_id']}.json").unlink()

    (tmp_path / "again").mkdir()
    _file(tmp_path / "again", base[1])
    assert any("one of the two files must go" in p.message for p in check_folder(tmp_path))
    (tmp_path / "again" / f"{base[1]['run_id']}.json").unlink()

    _file(tmp_path, make(seed=1, score=63.5))
    assert any("only the earlier run counts" in p.message and p.level == "warning" for p in check_folder(tmp_path))


def test_folder_warns_of_equal_seeds_and_missing_baseline(tmp_path: Path) -> None:
    for seed in range(3):
        _file(tmp_path, make(seed=seed, score=62.0, method__name="x"))
    said = [p.message for p in check_folder(tmp_path)]
    assert "all 3 seeds of x score 62.0" in said
    assert sum("no run of the baseline kd" in message for message in said) == 3
