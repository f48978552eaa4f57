"""Golden vectors: reads the five sidecar formats, runs a method's mapping and compares every stored value.

A case is ``<name>.json`` beside ``<name>.safetensors``; its folder below the root names the method (and component).
``<folder>/mapping.py`` maps it to the method as it is assembled (:mod:`kdbench.checks.stubs`), or to functions:

* ``run(tensors, scalars, case) -> dict``: computed tensors under the stored names. Inputs and weights with a stored
  gradient require it; ``case`` is a :class:`Run`. Gradients are computed here, from the objectives among the result.
* ``objective(gradient) -> name or names`` (optional): what a stored gradient belongs to; several names are summed.
* ``GIVEN`` (only where tensors have no role): patterns of the names that are inputs or weights.
* ``SCALARS`` (optional): scalars that are expected values, not settings.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kdbench.base import plugins
from kdbench.base.errors import UserError
from kdbench.specs.registry import MethodRef

Bound = Callable[[float], float]
"""Largest absolute value of a reference tensor to the largest difference allowed."""
Module = TypeVar("Module", bound=nn.Module)

PRECISIONS = {"float64": torch.float64, "float32": torch.float32}
OBJECTIVE = {"A": "output.total", "B": "out.total", "C": "loss_total", "D": "loss_total", "E": "loss"}
"""What a gradient belongs to, by format, unless the mapping says otherwise."""
BUILT_IN = "kdbench.methods."
"""How the packages of built-in methods begin; their cases lie in ``tests/parity``."""
NUMBER = r"([0-9.]+(?:e[-+]?[0-9]+)?)"


class BadCase(Exception):
    """A case that cannot be read; the message says why."""


@dataclass(frozen=True)
class Case:
    """A golden case.

    Attributes:
        folder: path below the root, the key of the mapping.
        format: A to E.
        given: names of inputs and weights.
        gradients: name of each stored gradient to the name of the tensor it belongs to.
        expected: reference values, gradients included.
        bounds: precision to tolerance.
        exact: floating names that must be equal.
    """

    folder: str
    name: str
    format: str
    scalars: dict[str, Any]
    tensors: dict[str, Tensor]
    given: list[str]
    gradients: dict[str, str]
    expected: dict[str, Tensor]
    bounds: dict[str, Bound]
    exact: frozenset[str] = field(default=frozenset())


@dataclass(frozen=True)
class Run:
    """One run of a case: what a mapping may ask beside the tensors and scalars.

    Attributes:
        tensors: inputs and weights; those with a stored gradient require it.
        dtype: precision of the run.
    """

    tensors: dict[str, Tensor]
    dtype: torch.dtype

    def listed(self, prefix: str, start: int = 0) -> list[Tensor]:
        """The tensors ``prefix0``, ``prefix1`` ... in order."""
        found: list[Tensor] = []
        while (name := f"{prefix}{start + len(found)}") in self.tensors:
            found.append(self.tensors[name])
        return found

    def of(self, tensors: dict[str, Tensor]) -> Run:
        """The same of some tensors only."""
        return replace(self, tensors=tensors)

    def bind(self, module: Module, prefix: str, rename: Mapping[str, str] | None = None) -> Module:
        """The module in train mode, its weights and buffers being the given tensors below ``prefix``.

        Args:
            rename: beginnings of stored names (without ``prefix``) to beginnings of the module's names.

        Raises:
            BadCase: a parameter without a stored value, or a stored value without a place.
        """
        module.to(self.dtype).train()
        missing = {name for name, _ in module.named_parameters()}
        for stored in (name for name in self.tensors if name.startswith(prefix)):
            name = stored.removeprefix(prefix)
            for old, new in (rename or {}).items():
                if name.startswith(old):
                    name = new + name.removeprefix(old)
                    break
            path, _, leaf = name.rpartition(".")
            try:
                parent = module.get_submodule(path)
                shape = getattr(parent, leaf).shape
            except AttributeError as error:
                raise BadCase(f"{stored}: the module has no {name}") from error
            if shape != self.tensors[stored].shape:
                raise BadCase(f"{stored} is {tuple(self.tensors[stored].shape)}, the module's {name} {tuple(shape)}")
            if leaf in parent._buffers:
                setattr(parent, leaf, self.tensors[stored].detach().clone())
            else:
                setattr(parent, leaf, self.tensors[stored])
                missing.discard(name)
        if missing:
            raise BadCase(f"nothing below {prefix!r} is stored for {', '.join(sorted(missing))}")
        return module


def own_place(ref: MethodRef) -> bool:
    """Whether a method is no built-in one and has golden vectors, or says that it has: they are beside its adapter."""
    if ref.package.startswith(BUILT_IN):
        return False
    return ref.card.parity == "verified" or bool(cases_of(ref))


def folder_of(ref: MethodRef) -> Path:
    """Where the cases of a package of its own lie, if it has any."""
    return plugins.package_folder(ref.package) / plugins.VECTORS


def cases_of(ref: MethodRef) -> list[Path]:
    """The sidecars in that folder; none where the method is no package."""
    try:
        return sorted(folder_of(ref).glob("*.json"))
    except UserError:
        return []


def mapping_of(folder: Path) -> ModuleType:
    """The ``mapping.py`` of a folder.

    Raises:
        BadCase: there is none.
    """
    path = folder / "mapping.py"
    spec = importlib.util.spec_from_file_location(f"{folder.parent.name}_golden_vectors", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise BadCase(f"{folder} has cases and no mapping.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(path: Path, folder: str, mapping: ModuleType) -> Case:
    """The case of a sidecar.

    Raises:
        BadCase: not of one of the five formats, or it does not describe its tensors.
    """
    sidecar = json.loads(path.read_text())
    tensors = load_file(path.with_suffix(".safetensors"))
    described = sidecar["tensors"]
    if set(described) != set(tensors):
        raise BadCase(f"{path}: sidecar and tensors differ in {sorted(set(described) ^ set(tensors))}")
    letter = format_of(sidecar)
    roles = {name: _role(letter, name, facts.get("role"), mapping) for name, facts in described.items()}
    given = [name for name, role in roles.items() if role == "given"]
    sources = {name: source_of(letter, name, given) for name, role in roles.items() if role == "gradient"}
    expected = {name: tensor for name, tensor in tensors.items() if roles[name] != "given"}
    scalars = dict(sidecar["scalars"])
    for name in getattr(mapping, "SCALARS", ()):
        expected[name] = torch.tensor(scalars.pop(name), dtype=torch.float64)
    entry = sidecar.get("tolerance") or sidecar["tolerances"]
    exact = entry.get("exact", [])
    return Case(folder, path.stem, letter, scalars, tensors, given, sources, expected, _bounds(entry), frozenset(exact))


def format_of(sidecar: Mapping[str, Any]) -> str:
    """The letter of a sidecar's format, told by its tolerance entry and by whether tensors have roles."""
    described = sidecar["tensors"].values()
    if "tolerance" in sidecar:
        if isinstance(sidecar["tolerance"]["float64"], str):
            return "B"
        return "D" if all("role" in facts for facts in described) else "A"
    if "tolerances" in sidecar:
        return "E" if isinstance(sidecar["tolerances"]["float64"], dict) else "C"
    raise BadCase("the sidecar has neither tolerance nor tolerances")


def _role(letter: str, name: str, role: str | None, mapping: ModuleType) -> str:
    """given, gradient or expected."""
    if letter == "A":
        kinds = {"input": "given", "weight": "given", "grad": "gradient", "output": "expected"}
        return kinds[name.partition(".")[0]]
    if letter == "E":
        if name.startswith("grad."):
            return "gradient"
        return "given" if any(fnmatchcase(name, pattern) for pattern in mapping.GIVEN) else "expected"
    if role in ("input", "weight"):
        return "given"
    return "gradient" if role == "gradient" or name.startswith("grad_") else "expected"


def source_of(letter: str, gradient: str, given: list[str]) -> str:
    """The tensor a stored gradient belongs to: an input, a weight, or else (E only) an intermediate value."""
    pattern = r"(?:(\w+?)_)?grad_(.+)" if letter in "CD" else r"grad(?:_(\w+))?\.(.+)"
    match = re.fullmatch(pattern, gradient)
    if match is None:
        raise BadCase(f"{gradient!r} is not how format {letter} names a gradient")
    of, name = match.groups()
    candidates = {
        "A": [f"input.{name}", name],
        "B": [name, f"{(of or '').partition('_')[0]}.{name}"],
        "D": [f"{of}_{name}", name],
    }.get(letter, [name])
    found = next((c for c in candidates if c in given), name)
    if found not in given and letter != "E":
        raise BadCase(f"{gradient}: no input or weight is called {' or '.join(candidates)}")
    return found


def _bounds(entry: Mapping[str, Any]) -> dict[str, Bound]:
    found = {}
    for precision in PRECISIONS:
        value = entry.get(precision, entry.get(f"{precision} recomputation"))
        if value is not None:
            found[precision] = _bound(value)
    return found


def _bound(value: Any) -> Bound:
    """A tolerance: ``{rtol, atol}``, the same as text, or one number relative to max(1, largest value)."""
    if isinstance(value, str):
        match = re.match(rf"rtol {NUMBER}, atol {NUMBER}", value)
        if match is None:
            raise BadCase(f"tolerance {value!r} is not 'rtol X, atol Y'")
        value = {"rtol": float(match[1]), "atol": float(match[2])}
    if isinstance(value, dict):
        return lambda largest: value["atol"] + value["rtol"] * largest
    return lambda largest: value * max(1.0, largest)


def run(case: Case, mapping: ModuleType, precision: str) -> list[str]:
    """Every disagreement of the mapping's values with the stored ones, one line each."""
    dtype = PRECISIONS[precision]
    sources = set(case.gradients.values())

    def prepared(name: str) -> Tensor:
        tensor = case.tensors[name].clone()
        if not tensor.is_floating_point():
            return tensor
        if tensor.dtype is torch.float64:
            tensor = tensor.to(dtype)
        return nn.Parameter(tensor, requires_grad=name in sources)  # a module can take it as its own weight

    tensors = {name: prepared(name) for name in case.given}
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # what a method makes for itself is of the run's precision too
    try:
        computed = mapping.run(tensors, dict(case.scalars), Run(tensors, dtype))
    finally:
        torch.set_default_dtype(before)
    problems = []
    try:
        computed = {**_gradients(case, mapping, tensors, computed), **computed}
    except (KeyError, RuntimeError) as error:
        problems.append(f"gradients: {error}")
    for name in sorted(case.expected, key=lambda name: (name in case.gradients, name)):  # gradients follow from values
        reference = case.expected[name]
        stored_as = "float32" if reference.dtype is torch.float32 else precision
        problem = difference(computed.get(name), reference, case.bounds[stored_as], name in case.exact)
        if problem:
            problems.append(f"{name}: {problem}")
    return problems


def _gradients(
    case: Case, mapping: ModuleType, tensors: Mapping[str, Tensor], computed: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The stored gradients recomputed; zero where the objective does not depend on the tensor."""
    objective = getattr(mapping, "objective", lambda _: OBJECTIVE[case.format])
    groups: dict[tuple[str, ...], list[str]] = {}
    for gradient in case.gradients:
        names = objective(gradient)
        groups.setdefault((names,) if isinstance(names, str) else tuple(names), []).append(gradient)
    found: dict[str, Tensor] = {}
    values = {**computed, **tensors}
    for names, gradients in groups.items():
        total = torch.stack([computed[name] for name in names]).sum()
        sources = [values[case.gradients[gradient]] for gradient in gradients]
        grads = torch.autograd.grad(total, sources, retain_graph=True, allow_unused=True, materialize_grads=True)
        found |= dict(zip(gradients, grads, strict=True))
    return found


def difference(value: Tensor | None, reference: Tensor, bound: Bound, exact: bool = False) -> str | None:
    """What is wrong with a value, or None."""
    if value is None:
        return "the mapping returned no such value"
    value = value.detach()
    if value.shape != reference.shape:
        return f"shape {tuple(value.shape)}, stored {tuple(reference.shape)}"
    if exact or not reference.is_floating_point():
        wrong = int((value.double() != reference.double()).sum())
        return f"{wrong} of {reference.numel()} values differ, all must be equal" if wrong else None
    if not reference.numel():
        return None
    largest = float(reference.double().abs().max())
    off = float((value.double() - reference.double()).abs().max())
    if off <= bound(largest):  # false for a NaN
        return None
    return f"off by {off:.3g}, allowed {bound(largest):.3g} (largest stored value {largest:.3g})"
