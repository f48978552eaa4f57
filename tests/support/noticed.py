"""The checks of one method that a planted fault has to break: its golden vectors, stages, weights and equations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

from smalls import ELSEWHERE

from kdbench.checks import golden
from kdbench.specs import registry

Check = Callable[[], object]
Load = Callable[[str], ModuleType]
PARITY = Path(__file__).parents[1] / "parity"
SHARED = {
    "shared.objective": ("at+kd", "ab", "fsp", "crd+kd", "vid", "nst"),
    "shared.phases": ("sskd", "tf_kd", "ban", "hsakd"),
    "shared.pyramids": ("cwd", "fgd", "pkd"),
    "shared.boxes": ("crosskd", "kd_dense", "pkd"),
}
"""Modules that several methods share, to the methods whose checks are theirs."""


def checks(name: str, load: Load) -> list[Check]:
    """Checks of a method, or of a module that methods share; each raises when it fails.

    Args:
        load: gives a test file as a module.
    """
    if name in SHARED:
        return [check for one in SHARED[name] for check in checks(registry.method(one).card.name, load)]
    return [*_golden(name, load), *_stages(name, load), *_objectives(name, load), *_own(name, load)]


def _own(name: str, load: Load) -> list[Check]:
    """Those of a file of the method's own, where made-up outputs do not do; pyramids have one for all methods."""
    if found := load("methods/test_methods_pyramids.py").CHECKS.get(name):
        return list(found)
    if name not in ELSEWHERE:
        return []
    if name == "cgan_kd":
        return load("methods/test_method_cgan_kd_stages.py").CHECKS[name]
    return load(f"methods/test_method_{name}.py").CHECKS


def _of(name: str, key: str) -> bool:
    return registry.method(key.partition(",")[0]).card.name == name


def _golden(name: str, load: Load) -> Iterator[Check]:
    for folder in (name, f"{name}_online", f"{name}_fpn"):
        for path in sorted((PARITY / folder).glob("*.json")):
            mapping = load(f"parity/{folder}/mapping.py")
            yield partial(_agrees, golden.read(path, folder, mapping), mapping)


def _agrees(case: golden.Case, mapping: ModuleType) -> None:
    problems = golden.run(case, mapping, "float64")
    assert not problems, problems


def _stages(name: str, load: Load) -> Iterator[Check]:
    file = load("methods/test_methods_stages.py")
    yield from (partial(file.check_stages, *key) for key in file.TABLES if _of(name, key[0]))
    yield from (partial(file.check_reuse, *key) for key in file.REUSED if _of(name, key[0]))
    yield from (partial(file.check_found, *key) for key in file.REUSED if _of(name, key[0]) and key[1] != "energies")
    yield from (partial(file.check_held, key) for key in file.HELD if _of(name, key))
    yield from file.CHECKS.get(name, ())


def _objectives(name: str, load: Load) -> Iterator[Check]:
    file = load("methods/test_methods_objectives.py")
    for keys, check in (
        (file.WEIGHTS, file.check_weights),
        (file.SWITCHED, file.check_switches),
        (file.EVERY, file.check_constants),
        (file.RAMPS, file.check_ramp),
        (file.EQUATIONS, file.check_equation),
        (file.DRAWING, file.check_draws),
        (file.TAUGHT, file.check_teacher_stage),
        (file.STAGES, file.check_chosen_stages),
    ):
        yield from (partial(check, key) for key in keys if _of(name, key))
    yield from file.CHECKS.get(name, ())
