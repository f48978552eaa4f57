"""Further test sets of a task: what is done to their rows, what is recorded, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.contract import Rows
from kdbench.data.feed import external
from kdbench.data.feed.dataset import Dataset
from kdbench.data.sources import digits
from kdbench.index.home import use
from kdbench.runs.request import Request
from kdbench.runs.run import run_seed
from kdbench.specs import registry
from kdbench.specs.config import RunConfig, run_config
from kdbench.specs.external import CHANGES, External
from kdbench.specs.score import Score
from kdbench.specs.task import TaskSpec

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return digits.load({})


def pixels(given: External, data: Dataset, other: Dataset | None = None) -> torch.Tensor:
    """The pixels of an external test set, normalised back."""
    found = torch.cat([batch.x["image"] for batch in external.rows_of("far", given, data, CPU, other)])
    mean, std = data.transforms["image"].mean[0], data.transforms["image"].std[0]
    return ((found * std + mean) * 255).round()


def scored_on(sets: dict[str, Any], *overrides: str, smoke: bool = False) -> RunConfig:
    """A short run of plain on a task with external test sets."""
    plain = run_config("plain", "digits/few-shot", ["train.epochs=1", *overrides], smoke=smoke)
    score = Score.model_validate({**plain.task.score.model_dump(), "external": sets})
    return replace(plain, task=plain.task.model_copy(update={"score": score}))


def test_every_change_that_a_task_may_name_is_made() -> None:
    assert external.CHANGED.keys() == CHANGES.keys()


@pytest.mark.parametrize(
    "change",
    [{"noise": 0.2}, {"blur": 1.0}, {"blur": 20}, {"contrast": 0.5}, {"brightness": 2}, {"shift": 2}, {"rotate": 20}],
)
def test_a_change_is_one_and_the_same_whenever_it_is_asked_for(change: Any, data: Dataset) -> None:
    one, again = (pixels(External(change=change), data) for _ in range(2))
    own = data.test.x["image"].float()
    assert torch.equal(one, again)
    assert one.shape == own.shape
    assert not torch.equal(one, own)
    assert one.min() >= 0
    assert one.max() <= 255


def test_changes_are_what_they_say(data: Dataset) -> None:
    own = data.test.x["image"].float()
    grey = replace(data, test=Rows({"image": torch.full_like(data.test.x["image"], 128)}, data.test.y))
    noise = pixels(External(change={"noise": 0.1}), grey) - 128
    assert noise.std() == pytest.approx(25.5, rel=0.02)
    assert noise.mean() == pytest.approx(0, abs=0.5)
    assert torch.equal(pixels(External(change={"brightness": 1.0}), data), own)
    assert torch.equal(pixels(External(change={"brightness": 3}), data), (own * 3).clamp(max=255))
    assert (pixels(External(change={"contrast": 0.0}), data).flatten(1).std(1) < 1).all()
    far = pixels(External(change={"shift": 1}), data)
    moves = [torch.nn.functional.pad(own, (1, 1, 1, 1))[:, :, y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
    as_moved = torch.stack([(far == moved).flatten(1).all(1) for moved in moves])
    assert as_moved.any(0).all()
    assert (as_moved.sum(1) > 50).all(), "each of the nine places is drawn"
    turned = pixels(External(change={"rotate": 90}), data)
    left, right = ((turned == own.rot90(k, (2, 3))).flatten(1).all(1) for k in (1, 3))
    assert (left | right).all()
    assert 300 < int(left.sum()) < 500


def test_rows_of_another_source_are_brought_to_the_size_that_networks_read(data: Dataset) -> None:
    framed = torch.nn.functional.pad(data.test.x["image"], (6, 6, 6, 6))
    other = replace(data, name="other", test=Rows({"image": framed}, data.test.y), digests={})
    assert torch.equal(pixels(External(source="other", crop=8), data, other), data.test.x["image"].float())
    whole = pixels(External(source="other"), data, other)
    assert whole.shape[-2:] == (8, 8)
    assert whole[..., 0].max() == 0, "the frame is read too"


def test_a_run_records_its_scores_elsewhere_and_the_index_holds_them(tmp_path: Path) -> None:
    home = Home(tmp_path)
    config = scored_on({"noisy": {"change": {"noise": 0.3}}, "same": {"change": {"brightness": 1}}})
    record = run_seed(Request(config, 0, CPU, home, overhead="off"))
    assert record.metrics is not None
    found = record.metrics.external
    assert found is not None
    assert found["same"].value == record.metrics.last["top1"]
    assert found["same"].items == record.metrics.test_items
    assert found["noisy"].sha256 != found["same"].sha256
    held = use(home, lambda store: store.query("SELECT name, value, about FROM external ORDER BY name"))
    assert [(row["name"], row["value"]) for row in held] == [(name, found[name].value) for name in ("noisy", "same")]
    assert held[0]["about"] == found["noisy"].about


def test_a_source_that_there_is_not_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    config = scored_on({"far": {"source": "digit"}})
    with pytest.raises(
        UserError, match=r"score.external.far: data.source: unknown source 'digit' .did you mean 'digits'"
    ):
        run_seed(Request(config, 0, CPU, Home(tmp_path), overhead="off"))


def test_a_source_that_is_not_at_hand_is_left_out_and_stops_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = scored_on({"far": {"source": "mnist", "crop": 20}, "own": {"source": "digits"}})
    progress, home = Progress.silent(), Home(tmp_path)
    for seed in (0, 1):
        record = run_seed(Request(config, seed, CPU, home, overhead="off", progress=progress))
        assert record.metrics is not None
        assert record.metrics.external is not None
        (own,) = record.metrics.external.items()
        assert own[0] == "own"
        assert (own[1].value, own[1].items) == (record.metrics.last["top1"], record.metrics.test_items)
    said = "score.external.far is left out: mnist is not at hand (ylecun/mnist on the hub)\n"
    assert capsys.readouterr().err == said, "once a command"


@pytest.mark.parametrize("of", [{"smoke": True}, {"smoke": False}])
def test_a_smoke_run_and_one_that_is_scored_on_validation_rows_see_none(of: dict[str, bool], tmp_path: Path) -> None:
    overrides = [] if of["smoke"] else ["data.validation.per_class=5"]
    config = scored_on({"noisy": {"change": {"noise": 0.3}}, "far": {"source": "mnist"}}, *overrides, **of)
    record = run_seed(Request(config, 0, CPU, Home(tmp_path), overhead="off"))
    assert record.metrics is not None
    assert record.metrics.external is None


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({"classes": 12}, "score.external.far: other has 12 classes, digits has 10"),
        ({"class_names": tuple("bacdefghij")}, "classes of other are not those of digits, or in another order"),
        ({"test": "sound"}, "other has no input 'image', which digits reads; it has sound"),
        ({"test": "colour"}, "'image' has 3 channels in other, 1 in digits"),
    ],
)
def test_a_source_that_cannot_stand_in_is_refused(broken: dict[str, Any], why: str, data: Dataset) -> None:
    rows = {
        "sound": Rows({"sound": data.test.x["image"]}, data.test.y),
        "colour": Rows({"image": data.test.x["image"].repeat(1, 3, 1, 1)}, data.test.y),
    }
    broken = {key: rows.get(value, value) if key == "test" else value for key, value in broken.items()}
    own = replace(data, class_names=tuple("abcdefghij"))
    other = replace(own, **({"name": "other", "digests": {}} | broken))
    with pytest.raises(UserError, match=why):
        external.rows_of("far", External(source="other"), own, CPU, other)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "one of change and source"),
        ({"change": {"noise": 0.1}, "source": "mnist"}, "one of change and source"),
        ({"change": {"nois": 0.1}}, "unknown change 'nois' .did you mean 'noise'"),
        ({"change": {"noise": 2.0}}, "from 0.001 to 1"),
        ({"change": {"shift": 1.5}}, "a whole number from 1 to 64"),
        ({"change": {"noise": 0.1, "blur": 1}}, "one name and its amount"),
        ({"change": {"noise": 0.1}, "crop": 4}, "leave them out beside change"),
    ],
)
def test_what_is_no_test_set_is_refused_in_a_line(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        External.model_validate(given)


@pytest.mark.parametrize(
    ("task", "external", "why"),
    [
        (
            "bccd/few-shot",
            {"turned": {"change": {"rotate": 10}}},
            "moves pixels, but not the targets of a detection task",
        ),
        ("bccd/few-shot", {"other": {"source": "nuclei256"}}, "moves pixels, but not the targets of a detection task"),
        ("digits/hash", {"noisy": {"change": {"noise": 0.1}}}, "map reads more than what a network answers"),
    ],
)
def test_a_task_that_cannot_be_scored_elsewhere_says_why(task: str, external: dict[str, Any], why: str) -> None:
    spec = registry.task(task)
    score = spec.score.model_dump() | {"external": external}
    with pytest.raises(ValueError, match=why):
        TaskSpec.model_validate({**spec.model_dump(), "score": score})


def test_it_changes_no_hash() -> None:
    more, none = scored_on({"noisy": {"change": {"noise": 0.1}}}), scored_on({})
    assert more.task.score.external
    assert more.spec_hash == none.spec_hash
