"""Inputs that a task makes by reduction: what they hold, what identifies them, and what is refused in one line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from kdbench import data
from kdbench.base.errors import UserError
from kdbench.base.files import canonical_json
from kdbench.contract import Rows
from kdbench.data.feed.dataset import Dataset, Transform
from kdbench.data.feed.loader import Loader
from kdbench.data.feed.reduced import with_reduced
from kdbench.specs import registry
from kdbench.specs.config import run_config
from kdbench.specs.data import Data
from kdbench.specs.reduced import Reduced
from kdbench.specs.task import TaskSpec

TASK = "omniglot/low-res"


def toy(high: int = 8, wide: int = 12, **more: torch.Tensor) -> Dataset:
    pixels = torch.randint(256, (6, 3, high, wide), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rows = Rows({"image": pixels, **more}, torch.arange(6) % 2)
    return Dataset("toy", rows, rows, 2, dict.fromkeys(rows.x, Transform((0.4,), (0.2,))))


def small(**given: Any) -> dict[str, Reduced]:
    return {"small": Reduced.model_validate({"from": "image", "reduce": 4, **given})}


def test_small_pictures_hold_the_mean_of_each_block() -> None:
    data = with_reduced(toy(), small())
    assert data.shape("small") == (3, 2, 3)
    raw = toy().test.x["image"]
    found = data.finish({"image": raw})[0]["small"]
    for row, channel, i, j in ((0, 0, 0, 0), (5, 2, 1, 2), (3, 1, 0, 2)):
        block = raw[row, channel, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].double()
        assert found[row, channel, i, j].item() == pytest.approx(
            (block.mean().round().item() / 255 - 0.4) / 0.2, abs=1e-5
        )


def test_nearest_takes_the_middle_and_enlarging_repeats() -> None:
    raw = toy().test.x["image"]
    made = with_reduced(toy(), small(filter="nearest")).derived["small"].fn(raw, None)
    assert torch.equal(made[:, :, 1, 2], raw[:, :, 6, 10])
    back = with_reduced(toy(), small(filter="nearest", enlarge=True))
    assert back.shape("small") == (3, 8, 12)
    enlarged = back.derived["small"].fn(raw, None)
    assert torch.equal(enlarged, made.repeat_interleave(4, 2).repeat_interleave(4, 3))


def test_both_inputs_show_one_crop() -> None:
    """The reduction is of what the augmentation left, so the student sees the teacher's crop."""
    data = with_reduced(toy(), small())
    assert data.alike("small", "image")
    batch = Loader(data, data.train, ["crop4", "flip"], 6, 0, "s").draw(0)
    large = (batch.x["image"] * 0.2 + 0.4) * 255
    expected = large.unflatten(3, (3, 4)).unflatten(2, (2, 4)).mean((3, 5)).round()
    assert torch.allclose((batch.x["small"] * 0.2 + 0.4) * 255, expected, atol=0.6)
    plain = Loader(data, data.train, [], 6, 0, "s").draw(0)
    assert not torch.equal(batch.x["image"], plain.x["image"])


def test_what_it_is_made_by_identifies_it() -> None:
    """Another reduction is another data set; without one the identity is what it was."""
    plain = toy()
    ways = [small(), small(reduce=2), small(enlarge=True), small(filter="nearest"), None]
    found = [with_reduced(plain, inputs).identity() for inputs in ways]
    assert len(set(found)) == len(found)
    assert found[-1] == plain.identity()
    assert with_reduced(plain, small()).only(["image"]).shape("image") == (3, 8, 12)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"reduce": 16}, "data.inputs.small: pictures of 'image' are 8x12, smaller than the 16 pixels of a side"),
        ({"reduce": 3}, "are 8x12, which reduce: 3 does not divide; use one of 2, 4"),
        ({"from": "imge"}, "data.inputs.small.from: the data source has no input 'imge' (did you mean 'image'?)"),
        ({"from": "sound"}, "data.inputs.small.from: 'sound' holds no pictures as they are; name those"),
        ({"from": "code"}, "data.inputs.small: 'code' has rows of shape (9,); reduce pictures"),
    ],
)
def test_inputs_that_cannot_be_made_are_one_line(given: dict[str, Any], words: str) -> None:
    rows = toy(sound=torch.zeros(6, 1, 8, 8), code=torch.zeros(6, 9))
    with pytest.raises(UserError) as refused:
        with_reduced(rows, small(**given))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_name_that_the_source_has_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.inputs\.image: the data source has an input of this name"):
        with_reduced(toy(), {"image": small()["small"]})


def test_an_unknown_filter_names_the_nearest() -> None:
    with pytest.raises(
        UserError, match=re.escape("unknown filter 'bx' (did you mean 'box'?); filters are box, nearest")
    ):
        run_config("plain", TASK, ["data.inputs.image_lr.filter=bx"])
    with pytest.raises(UserError, match="reduce"):
        run_config("plain", TASK, ["data.inputs.image_lr.reduce=1"])


def test_tasks_without_such_inputs_are_hashed_as_before() -> None:
    body = registry.task("digits").data.model_dump(mode="json")
    assert "inputs" not in body
    config = run_config("plain", TASK)
    assert config.spec()["protocol"]["data"]["inputs"] == {
        "image_lr": {"from": "image", "reduce": 4, "enlarge": False, "filter": "box"}
    }
    other = run_config("plain", TASK, ["data.inputs.image_lr.enlarge=true"])
    assert config.spec_hash != other.spec_hash
    again = TaskSpec.model_validate(config.task.model_dump(mode="json"))
    assert canonical_json(again.model_dump(mode="json")) == canonical_json(config.task.model_dump(mode="json"))


def test_a_source_that_is_a_module_is_reduced_too(tmp_path: Path) -> None:
    """digits/low-res makes its own input so, in the code of its source."""
    given = Data.model_validate({"source": "digits", "options": {"inputs": ["image", "image_lr"]}})
    inputs = {"again": {"from": "image", "reduce": 2, "enlarge": True}}
    whole = data.load(
        given.model_copy(update={"inputs": {"again": Reduced.model_validate(inputs["again"])}}),
        data.Place(None, tmp_path),
    )
    seen = whole.finish(whole.test.x)[0]
    assert torch.equal(seen["again"], seen["image_lr"])
