"""docs/methods.md names every key of a card, and its example is one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from kdbench.specs.card import Card, Claim, HyperParameter, Link, Point, Published, Reconstruction, Variant, When

TEXT = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()
SECTION = TEXT.partition("## The card")[2].partition("\n## ")[0]


@pytest.mark.parametrize("model", [Card, HyperParameter, Published, When, Variant, Claim, Link, Reconstruction, Point])
def test_every_key_of_a_card_is_documented(model: type[BaseModel]) -> None:
    named = set(re.findall(r"`([a-z_]+)(?::[^`]*)?`", SECTION))
    keys = set(model.model_fields) - {"name"}  # a card's name is its folder's
    assert keys <= named, keys - named


def test_the_example_holds() -> None:
    (example,) = re.findall(r"```text\n(.*?)```", SECTION, flags=re.S)
    found = {name: HyperParameter(**body) for name, body in yaml.safe_load(example)["hyper_parameters"].items()}
    assert found["pooling"].check("max") == "max"
    with pytest.raises(ValueError, match=r"must be one of mean, max .did you mean 'mean'"):
        found["pooling"].check("meen")
    with pytest.raises(ValueError, match="must be above 0"):
        found["temperature"].check(0.0)
