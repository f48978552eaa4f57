"""The parity runner itself: it must fail whenever a single value is wrong, and read every format."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kdbench.checks import golden

HERE = Path(__file__).parent / "parity"
OWN = sorted(p.relative_to(HERE).as_posix() for p in HERE.glob("**/*1.json") if p.with_name("mapping.py").is_file())


@pytest.fixture
def runner():
    return golden


def write(folder, tensors, roles=None, **sidecar):
    """A case whose sidecar describes its tensors."""
    facts = {n: {"shape": list(t.shape), "dtype": str(t.dtype), "meaning": "a tensor"} for n, t in tensors.items()}
    for name, role in (roles or {}).items():
        facts[name]["role"] = role
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "case1.safetensors")
    (folder / "case1.json").write_text(json.dumps({"scalars": {"w": 3.0}, "tensors": facts, **sidecar}))
    return folder / "case1.json"


def names(x, loss, grad):
    """Sum of w x^2 over (2, 3): the tensors of a case under a format's names."""
    value = torch.arange(6, dtype=torch.float64).reshape(2, 3) / 7
    return {x: value, loss: 3 * (value**2).sum(), grad: 6 * value}


def square(x, loss):
    return lambda tensors, scalars, case: {loss: scalars["w"] * (tensors[x] ** 2).sum()}


ABOUT_1E_4 = {"rtol": 1e-4, "atol": 1e-6}
ABOUT_1E_9 = {"rtol": 1e-9, "atol": 1e-11}
FORMATS = {
    "A": (
        ("input.x", "output.total", "grad.x"), {},
        {"tolerance": {"float64": ABOUT_1E_9, "float32": {**ABOUT_1E_4, "rule": "text"}}},
    ),
    "B": (
        ("net.x", "out.total", "grad.net.x"), {"net.x": "input", "out.total": "output", "grad.net.x": "gradient"},
        {"tolerance": {"float64": "rtol 1e-10, atol 1e-12", "float32": "rtol 1e-4, atol 1e-6; more words"}},
    ),
    "C": (
        ("x", "loss_total", "grad_x"), {"x": "input", "loss_total": "expected", "grad_x": "expected"},
        {"tolerances": {"float64": 1e-9, "float32 recomputation": 1e-4}},
    ),
    "D": (
        ("x", "loss_total", "grad_x"), {"x": "input", "loss_total": "output", "grad_x": "gradient"},
        {"tolerance": {"float64": ABOUT_1E_9, "float32": ABOUT_1E_4}},
    ),
    "E": (
        ("x", "loss", "grad.x"), {},
        {"tolerances": {"float64": ABOUT_1E_9, "float32": ABOUT_1E_4, "exact": []}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("letter", FORMATS)
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_every_format_is_read_and_its_gradients_recomputed(runner, tmp_path, letter, precision):
    (x, loss, grad), roles, tolerance = FORMATS[letter]
    path = write(tmp_path, names(x, loss, grad), roles, **tolerance)
    mapping = SimpleNamespace(run=square(x, loss), GIVEN=("x",))
    case = runner.read(path, "toy", mapping)
    assert (case.format, case.given, case.gradients) == (letter, [x], {grad: x})
    assert runner.run(case, mapping, precision) == []


@pytest.mark.parametrize("sidecar", OWN)
def test_one_wrong_value_in_any_expected_tensor_fails(runner, load, sidecar):
    folder = sidecar.rpartition("/")[0]
    mapping = load(f"parity/{folder}/mapping.py")
    case = runner.read(HERE / sidecar, folder, mapping)
    for name, reference in case.expected.items():
        wrong = reference.clone().flatten()
        if wrong.is_floating_point():
            wrong[-1] += 1e-2 + 1e-2 * wrong.abs().max()
        else:
            wrong[-1] = ~wrong[-1] if wrong.dtype is torch.bool else wrong[-1] + 1
        for precision, bound in case.bounds.items():
            problem = runner.difference(reference, wrong.reshape(reference.shape), bound, name in case.exact)
            assert problem, f"{name} may be wrong in {precision} without being noticed"


def test_a_wrong_stored_value_is_reported_by_name(runner, tmp_path):
    stored = names("x", "loss_total", "grad_x")
    stored["grad_x"][1, 1] += 1e-6
    (_, roles, tolerance) = FORMATS["C"]
    path = write(tmp_path, stored, roles, **tolerance)
    mapping = SimpleNamespace(run=square("x", "loss_total"))
    (problem,) = runner.run(runner.read(path, "toy", mapping), mapping, "float64")
    assert problem.startswith("grad_x: off by 1e-06")


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (lambda x: {}, "the mapping returned no such value"),
        (lambda x: {"loss_total": (3 * x**2).sum().reshape(1)}, "shape"),
        (lambda x: {"loss_total": (3 * x**2).sum() * float("nan")}, "off by nan"),
        (lambda x: {"loss_total": (3 * x.detach() ** 2).sum()}, "gradients: "),
    ],
    ids=["missing", "shape", "nan", "detached"],
)
def test_what_a_mapping_gets_wrong(runner, tmp_path, result, words):
    (x, loss, grad), roles, tolerance = FORMATS["C"]
    path = write(tmp_path, names(x, loss, grad), roles, **tolerance)
    mapping = SimpleNamespace(run=lambda tensors, scalars, case: result(tensors["x"]))
    problems = runner.run(runner.read(path, "toy", mapping), mapping, "float64")
    assert any(words in problem for problem in problems), problems


def test_a_value_nobody_stored_is_no_failure(runner, tmp_path):
    (x, loss, grad), roles, tolerance = FORMATS["D"]
    path = write(tmp_path, names(x, loss, grad), roles, **tolerance)
    run = square(x, loss)
    mapping = SimpleNamespace(run=lambda *args: {**run(*args), "other": torch.ones(3)})
    assert runner.run(runner.read(path, "toy", mapping), mapping, "float64") == []


def test_integers_booleans_and_exact_names_must_be_equal(runner):
    loose = lambda largest: 10.0  # noqa: E731
    assert runner.difference(torch.tensor([1, 2]), torch.tensor([1, 3]), loose)
    assert runner.difference(torch.tensor([True]), torch.tensor([False]), loose)
    assert runner.difference(torch.tensor([1.0]), torch.tensor([1.5]), loose, exact=True)
    assert runner.difference(torch.tensor([1.0]), torch.tensor([1.5]), loose) is None


def test_tolerances_scale_as_each_format_says(runner):
    assert runner._bound({"rtol": 0.1, "atol": 1.0})(50) == 6
    assert runner._bound("rtol 1e-1, atol 1; words")(50) == 6
    assert runner._bound(0.1)(50) == pytest.approx(5)
    assert runner._bound(0.1)(0.5) == pytest.approx(0.1)
    with pytest.raises(runner.BadCase, match="rtol X, atol Y"):
        runner._bound("about the same")


SSP = ["teacher.proj.fc1.bias"]


@pytest.mark.parametrize(
    ("letter", "gradient", "given", "source"),
    [
        ("A", "grad.feat_s.0", ["input.feat_s.0"], "input.feat_s.0"),
        ("A", "grad.weight.proj.bn0.bias", ["weight.proj.bn0.bias"], "weight.proj.bn0.bias"),
        ("A", "grad.step1.emb_s", ["input.step1.emb_s"], "input.step1.emb_s"),
        ("B", "grad_kd_jda.student.logits", ["student.logits"], "student.logits"),
        ("B", "grad_teacher.aux0", ["student.aux0", "teacher.aux0"], "teacher.aux0"),
        ("B", "grad_teacher_ssp.proj.fc1.bias", ["student.proj.fc1.bias", *SSP], "teacher.proj.fc1.bias"),
        ("C", "grad_abf0.conv1.weight", ["abf0.conv1.weight"], "abf0.conv1.weight"),
        ("D", "dkd_grad_student_logits", ["student_logits"], "student_logits"),
        ("D", "heda_grad_student_logits", ["student_logits", "heda_student_logits"], "heda_student_logits"),
        ("D", "grad_student_logits_i", ["student_logits_i"], "student_logits_i"),
        ("E", "grad.comp_a.mlp.weight", ["comp_a.mlp.weight"], "comp_a.mlp.weight"),
        ("E", "grad.ratio_real", ["feat_real"], "ratio_real"),
    ],
)  # fmt: skip
def test_gradients_find_their_tensor(runner, letter, gradient, given, source):
    assert runner.source_of(letter, gradient, given) == source


def test_a_gradient_of_nothing_is_refused(runner):
    with pytest.raises(runner.BadCase, match="no input or weight"):
        runner.source_of("C", "grad_x", ["y"])


def test_objectives_sums_and_intermediate_values(runner, tmp_path):
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    stored = {
        "x": x,
        "ratio": x**2,
        "loss": (x**2).sum(),
        "other": x.sum(),
        "grad.x": 2 * x + 1,
        "grad.ratio": x * 0 + 1,
    }
    path = write(tmp_path, stored, **FORMATS["E"][2])
    mapping = SimpleNamespace(
        run=lambda t, s, case: {"ratio": (r := t["x"] ** 2), "loss": r.sum(), "other": t["x"].sum()},
        objective=lambda gradient: ("loss", "other"),
        GIVEN=("x",),
    )
    assert runner.run(runner.read(path, "toy", mapping), mapping, "float64") == []


def test_expected_scalars_are_compared_and_not_handed_out(runner, tmp_path):
    (x, loss, grad), _, tolerance = FORMATS["E"]
    path = write(tmp_path, names(x, loss, grad), **tolerance)
    mapping = SimpleNamespace(
        run=lambda t, scalars, case: {"loss": 3 * (t["x"] ** 2).sum(), "w": torch.tensor(3.1 + len(scalars))},
        GIVEN=("x",), SCALARS=("w",),
    )  # fmt: skip
    (problem,) = runner.run(runner.read(path, "toy", mapping), mapping, "float64")
    assert problem.startswith("w: off by 0.1")


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def small_weights(runner):
    shapes = {"fc.weight": (3, 2), "fc.bias": (3,), "bn.weight": (3,), "bn.bias": (3,), "bn.running_mean": (3,)}
    tensors = {f"net.{n}": nn.Parameter(torch.rand(s, dtype=torch.float64)) for n, s in shapes.items()}
    return runner.Run(tensors, torch.float64), {"fc": "layers.0", "bn": "layers.1"}


def test_bind_puts_stored_weights_into_a_module_and_gradients_reach_them(runner):
    case, rename = small_weights(runner)
    module = case.bind(Small(), "net.", rename)
    module.layers(torch.rand(4, 2, dtype=torch.float64)).square().sum().backward()
    assert case.tensors["net.fc.weight"].grad is not None
    assert module.layers[1].running_mean.dtype is torch.float64
    assert not torch.equal(module.layers[1].running_mean, case.tensors["net.bn.running_mean"])  # a copy, updated


def test_bind_refuses_what_does_not_fit(runner):
    case, rename = small_weights(runner)
    with pytest.raises(runner.BadCase, match=r"the module has no fc\.weight"):
        case.bind(Small(), "net.")
    del case.tensors["net.fc.bias"]
    with pytest.raises(runner.BadCase, match=r"nothing .* is stored for layers\.0\.bias"):
        case.bind(Small(), "net.", rename)
    case.tensors["net.fc.bias"] = nn.Parameter(torch.rand(4))
    with pytest.raises(runner.BadCase, match=r"is \(4,\)"):
        case.bind(Small(), "net.", rename)


def test_sidecar_and_tensors_must_agree(runner, tmp_path):
    (x, loss, grad), roles, tolerance = FORMATS["C"]
    path = write(tmp_path, names(x, loss, grad), roles, **tolerance)
    save_file({"x": torch.zeros(2)}, path.with_suffix(".safetensors"))
    with pytest.raises(runner.BadCase, match="loss_total"):
        runner.read(path, "toy", SimpleNamespace())


def test_a_tensor_stored_in_float32_has_the_float32_tolerance(runner, tmp_path):
    (x, loss, grad), roles, tolerance = FORMATS["D"]
    stored = {**names(x, loss, grad), "mixed": torch.ones(2)}
    path = write(tmp_path, stored, {**roles, "mixed": "output"}, **tolerance)
    run = square(x, loss)
    mapping = SimpleNamespace(run=lambda *args: {**run(*args), "mixed": torch.ones(2) + 1e-5})
    assert runner.run(runner.read(path, "toy", mapping), mapping, "float64") == []
