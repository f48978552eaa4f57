"""The task files: consistent protocols, buildable pairs, data that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kdbench import models
from kdbench.base.errors import UserError
from kdbench.data import duration, sources, status
from kdbench.data.decode.inputs import ClipInput, PictureInput
from kdbench.data.decode.specification import set_names, set_spec
from kdbench.data.feed.augment import augmentation
from kdbench.data.feed.moved import moves
from kdbench.models.origin import Origin
from kdbench.specs import reduced, registry
from kdbench.specs.config import run_config
from kdbench.specs.pair import Student
from kdbench.specs.score import Score
from kdbench.specs.task import TaskSpec

TASKS = registry.tasks()
STANDARD = {
    ("wrn_40_2", "wrn_16_2"), ("wrn_40_2", "wrn_40_1"), ("resnet56", "resnet20"), ("resnet110", "resnet20"),
    ("resnet110", "resnet32"), ("resnet32x4", "resnet8x4"), ("vgg13", "vgg8"), ("vgg13", "mobilenetv2"),
    ("resnet50", "mobilenetv2"), ("resnet50", "vgg8"), ("resnet32x4", "shufflenetv1"),
    ("resnet32x4", "shufflenetv2"), ("wrn_40_2", "shufflenetv1"),
}  # fmt: skip
LIGHT = ("mobilenetv2", "shufflenetv1", "shufflenetv2")


def of(suite: str) -> dict[str, TaskSpec]:
    return {name: spec for name, spec in TASKS.items() if spec.suite == suite}


def protocol(spec: TaskSpec) -> dict[str, Any]:
    """What pairs of a suite share: everything but names, nets, notes and what belongs to a net."""
    body = spec.model_dump(exclude={"name", "title", "notes", "pair"})
    body["train"]["optimizer"].pop("lr")
    return body


@pytest.mark.parametrize("suite", ["cifar100", "cifar100-resplit"])
def test_the_standard_pairs_share_one_protocol(suite: str) -> None:
    specs = list(of(suite).values())
    assert {(spec.teacher_net, spec.pair.student.net) for spec in specs} == STANDARD
    assert len(specs) == 13
    assert all(protocol(spec) == protocol(specs[0]) for spec in specs)
    for spec in specs:
        assert spec.train.optimizer.lr == (0.01 if spec.pair.student.net in LIGHT else 0.05)
        teacher = spec.pair.teachers["image"]
        assert (teacher.train.optimizer or spec.train.optimizer).lr == 0.05


def test_the_copy_differs_from_the_official_pairs_in_data_suite_and_least_score_alone() -> None:
    for name, spec in of("cifar100-resplit").items():
        official = TASKS[name.replace("-resplit", "")]
        ours, theirs = (s.model_dump(exclude={"name", "title", "notes", "suite"}) for s in (spec, official))
        assert ours["data"].pop("options") == {"copy": "resplit"}
        assert theirs["data"].pop("options") == {}
        ours["pair"]["teachers"]["image"].pop("min_score")
        theirs["pair"]["teachers"]["image"].pop("min_score")
        assert ours == theirs


def test_teachers_of_one_net_are_trained_once() -> None:
    """Equal protocols give equal cache keys, so 13 pairs cost six teachers."""
    from kdbench.engine.teachers import teacher_spec

    keys = {}
    for spec in of("cifar100").values():
        teacher = spec.pair.teachers["image"]
        own = teacher_spec(spec, teacher, smoke=False)
        keys.setdefault(teacher.net, set()).add(own.model_dump_json(include={"data", "pair", "train"}))
    assert len(keys) == 6
    assert all(len(found) == 1 for found in keys.values())


def test_few_data_tasks_are_the_full_pair_with_a_share_of_the_rows() -> None:
    full = TASKS["cifar100/resnet56-resnet20"]
    for percent in (25, 50, 75):
        few = TASKS[f"cifar100/resnet56-resnet20-{percent}pct"]
        assert few.data.subset is not None
        assert (few.data.subset.fraction, few.data.subset.seed) == (percent / 100, 0)
        assert (few.train, few.pair) == (full.train, full.pair)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_names_data_and_nets_that_exist(name: str) -> None:
    spec = TASKS[name]
    (moves if spec.of_kind.placed else augmentation)(spec.data.augment)
    assert spec.baseline in registry.methods()
    module = sources.module(spec.data.source)
    facts = module.FACTS if module is not None else None
    if facts is None:
        about = set_spec(spec.data.source)
        about.check_copy(spec.data.options.get("copy"))
        facts = status._facts(about, spec.data.options)
        stored = any(isinstance(one, PictureInput | ClipInput) and one.resize for one in about.inputs.values())
        assert any(augment.startswith("resized_crop") for augment in spec.data.augment) == stored
        assert (spec.kind == "regression") == (about.target is not None)
    shapes = reduced.shapes(spec.data.inputs or {}, dict(facts.shapes))
    for net, given in [(spec.pair.student.net, spec.pair.student.input)] + [
        (teacher.net, teacher.input) for teacher in spec.pair.teachers.values()
    ]:
        recipe = models.recipe(net)
        if recipe.sentences is None:  # a library's own, whose work nobody counted
            continue
        assert len(recipe.axes) == len(shapes[given]), f"{net} cannot read {given}"
        assert duration.forward(net, shapes[given]) is not None


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_says_where_its_choices_come_from(name: str) -> None:
    spec = TASKS[name]
    assert spec.notes.keys() >= {"protocol", "pair"}
    said = " ".join(text for key, text in spec.notes.items() if key.startswith("teacher"))
    for role, teacher in spec.pair.teachers.items():
        if teacher.weights == "auto":
            assert "min_score" in said, f"{name}: why is {role}'s least score {teacher.min_score}"
    assert spec.smoke.epochs <= spec.train.epochs
    assert spec.train.schedule.milestones == [] or spec.train.schedule.milestones[-1] < spec.train.epochs
    assert spec.kind in ("regression", "language") or spec.score.unit == "%"


def test_tasks_of_a_suite_can_be_ranked_together() -> None:
    for spec in TASKS.values():
        for other in of(spec.suite).values():
            alike = (spec.kind, spec.score.primary, spec.score.unit)
            assert alike == (other.kind, other.score.primary, other.score.unit)


def test_every_data_set_has_a_task() -> None:
    used = {spec.data.source for spec in TASKS.values()} | {"fsdd"}  # half of av-digits
    elsewhere = {one.source for spec in TASKS.values() for one in spec.score.external.values()}
    assert used | elsewhere >= set(set_names())


def test_copies_have_tasks_of_their_name() -> None:
    for name in set_names():
        for copy in set_spec(name).copies:
            whole = f"{name}-{copy}"
            tasks = [task for task, spec in TASKS.items() if spec.data.source == name and spec.data.options.get("copy")]
            assert tasks
            assert all(re.match(rf"{whole}/", task) and TASKS[task].suite.startswith(whole) for task in tasks)


# ---- data at hand, and how long it takes -----------------------------------------------------------------------------


def test_status_of_built_in_absent_and_hub_data(tmp_path: Path) -> None:
    built_in = status.status(TASKS["digits/profiles"], None)
    assert (built_in.state, built_in.present) == ("built in", True)
    hub = status.status(TASKS["imagenet/resnet34-resnet18"], tmp_path)
    assert (hub.state, hub.present) == ("hub", False)
    assert "gated" in hub.about
    absent = status.status(TASKS["rc49/vgg19-resnet20"], tmp_path)
    assert (absent.state, absent.about) == ("absent", "put it into rc49/ of the data folder")
    (tmp_path / "rc49").mkdir()
    broken = status.status(TASKS["rc49/vgg19-resnet20"], tmp_path, tmp_path / "cache")
    assert broken.state == "other copy"
    assert "no train part" in broken.about
    copy = status.status(TASKS["cifar10-jpeg/small"], tmp_path)
    assert (copy.name, copy.state) == ("cifar10-jpeg", "absent")


def test_the_state_of_data_is_told_without_reading_them(tmp_path: Path) -> None:
    """Numpy and pyarrow alone take longer to import than all the rest of the list."""
    (tmp_path / "mnist").mkdir()
    for part in ("train", "test"):
        (tmp_path / "mnist" / f"{part}.parquet").touch()
    code = (
        "import sys; from pathlib import Path; from kdbench.specs import registry; from kdbench.data import status\n"
        f"found = status.status(registry.task('mnist'), Path({str(tmp_path)!r}), Path({str(tmp_path)!r}))\n"
        "assert found.state == 'found', found\n"
        "assert not {'numpy', 'pyarrow', 'torch'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_task_says_what_a_person_needs_to_choose_it() -> None:
    for spec in TASKS.values():
        found = status.status(spec, None)
        assert found.licence, spec.name
        assert found.about, spec.name
        nets = [spec.pair.student.net, *(teacher.net for teacher in spec.pair.teachers.values())]
        assert found.minutes is not None or any(net.startswith("hf:") for net in nets), spec.name
        assert found.megabytes is not None or found.state == "built in", spec.name


def test_minutes_grow_with_work_and_shrink_with_the_subset() -> None:
    def minutes(task: str) -> tuple[float, float]:
        found = status.status(TASKS[task], None)
        assert found.minutes is not None
        assert found.teacher_minutes is not None
        return found.minutes, found.teacher_minutes

    full, quarter = minutes("cifar100/resnet56-resnet20"), minutes("cifar100/resnet56-resnet20-25pct")
    assert quarter[0] == pytest.approx(full[0] / 4, rel=0.02)
    assert quarter[1] == full[1]
    assert minutes("cifar100/resnet32x4-resnet8x4")[0] > full[0]
    assert minutes("imagenet/resnet34-resnet18")[1] == 0  # its teacher comes with weights


@pytest.mark.parametrize(
    ("net", "shape"),
    [("convnet_w2", (1, 8, 8)), ("convnet1d_w4", (2, 8)), ("mlp_w16", (512,)), ("resnet20", (3, 32, 32)),
     ("mobilenetv2_s1", (3, 32, 32)), ("resnet8x4", (3, 64, 64)), ("resnet18", (3, 32, 32))],
)  # fmt: skip
def test_costs_are_those_of_the_nets(net: str, shape: tuple[int, ...]) -> None:
    import torch
    from torch import nn

    counted = []

    def count(module: nn.Module, args: Any, out: torch.Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        places = out[0, 0].numel() if out.ndim > 2 else 1
        counted.append(weight.numel() * places / 1e6)

    built = models.build(net, shape, 10)
    for module in built.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    built.eval().encode(torch.zeros(1, *shape))
    assert duration.forward(net, shape) == pytest.approx(sum(counted), rel=0.15)


def test_every_net_of_the_zoo_states_its_work() -> None:
    assert [net for net, recipe in (models.ZOO | dict(models.PATTERNS.values())).items() if recipe.work is None] == []
    assert models.work("timm:nobody_counted_it", (3, 224, 224)) is None


def test_weights_as_a_mapping_are_kept_as_one_text() -> None:
    def text(weights: object) -> str | None:
        return Student.model_validate({"net": "resnet8", "weights": weights}).weights

    assert text({"from": "a.pth"}) == "a.pth"
    assert text({"from": "hub:a/b@v2", "part": "model_ema", "head": "drop"}) == "hub:a/b@v2#part=model_ema#features"
    origin = Origin.of("hub:a/b@v2#part=model_ema#features")
    assert (origin.source, origin.part, origin.features, origin.path) == ("hub:a/b@v2", "model_ema", True, None)
    for wrong, said in (
        ({"from": "a.pth", "hed": "drop"}, r"unknown key 'hed' \(did you mean 'head'\?\)"),
        ({"from": "a.pth", "head": "none"}, "Input should be 'load' or 'drop'"),
        ({"head": "drop"}, "key 'from' is missing"),
        ({"from": "a.pth", "part": "a b"}, "part: String should match pattern"),
    ):
        with pytest.raises(ValueError, match=said):
            text(wrong)


def test_a_mapping_of_weights_can_be_typed_as_an_override() -> None:
    config = run_config(registry.PLAIN, "digits/few-shot", ["pair.student.weights={from: a.pth, head: drop}"])
    assert config.task.pair.student.weights == "a.pth#features"
    with pytest.raises(UserError, match="a whole group cannot be set at once"):
        run_config(registry.PLAIN, "digits/few-shot", ["pair.student={net: resnet8}"])


def test_a_unit_that_contradicts_the_metric_is_refused() -> None:
    assert Score.model_validate({"primary": "top1"}).unit == "%"
    with pytest.raises(ValueError, match="unit is 'seconds'; top1 is in %: leave unit out"):
        Score.model_validate({"primary": "top1", "unit": "seconds"})
