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
    "shared.pyramids": ("cwd", "defeat", "fgd", "pkd"),
    "shared.boxes": ("crosskd", "kd_dense", "pkd"),
}
"""Modules that several methods share, to the methods whose checks are theirs."""
TOGETHER = {
    "sentences": "methods/test_methods_sentences.py",
    "hidden patches": "methods/test_methods_patches.py",
    "distributions of boxes": "methods/test_methods_bin_equations.py",
}
"""Why made-up outputs say nothing of some methods, to the file that has the checks of them all."""


def checks(name: str, load: Load) -> list[Check]:
    """Checks of a method, or of a module that methods share; each raises when it fails.

    Args:
        load: gives a test file as a module.
    """
    if name in SHARED:
        return [check for one in SHARED[name] for check in checks(registry.method(one).card.name, load)]
    return [*_golden(name, load), *_stages(name, load), *_objectives(name, load), *_own(name, load)]


def _own(name: str, load: Load) -> list[Check]:
    """Those of the method's own files, where made-up outputs do not do; pyramids have two for all methods."""
    pyramids, equations = (load(f"methods/test_methods_pyramid{part}.py").CHECKS for part in ("s", "_equations"))
    if name in pyramids:
        return [*equations.get(name, ()), *pyramids[name]]
    if name not in ELSEWHERE:
        return []
    if name == "cgan_kd":
        return [
            check for part in ("stages", "updates") for check in load(f"methods/test_method_cgan_kd_{part}.py").CHECKS
        ]
    if ELSEWHERE[name] in TOGETHER:
        return load(TOGETHER[ELSEWHERE[name]]).CHECKS[name]
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
    weights, equations, cases = (
        load(f"methods/test_methods_{part}.py") for part in ("weights", "equations", "objectives")
    )
    for keys, check in (
        (weights.WEIGHTS, weights.check_weights),
        (weights.SWITCHED, weights.check_switches),
        (weights.EVERY, weights.check_constants),
        (weights.RAMPS, weights.check_ramp),
        (weights.DRAWING, weights.check_draws),
        (weights.TAUGHT, weights.check_teacher_stage),
        (equations.EQUATIONS, equations.check_equation),
        (cases.STAGES, cases.check_chosen_stages),
    ):
        yield from (partial(check, key) for key in keys if _of(name, key))
    for file in (equations, cases):
        yield from file.CHECKS.get(name, ())
