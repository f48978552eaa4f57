"""What people call the training and the test part of their data."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

TRAIN = ("train", "training", "trainset", "trn")
TEST = (
    "test", "testing", "testset", "tst", "val", "valid", "validate", "validation", "valset", "eval", "dev", "holdout",
)  # fmt: skip
"""Words for the parts, the best first: a test part is taken before a validation part."""
VALIDATION = {"val", "valid", "validate", "validation", "valset", "dev"}
"""Those of them that say validation rows, where there is a test part as well."""
FILLERS = {
    "set", "data", "dataset", "split", "part", "folder", "image", "images", "img", "imgs", "picture", "pictures",
    "photos", "labeled", "labelled", "files",
}  # fmt: skip
"""Words beside them that say nothing."""
KNOWN = f"{', '.join(TRAIN)}; {', '.join(TEST)}, alone or as in training_set, seg_train, TrainImages"
"""For messages."""


@dataclass(frozen=True)
class _Part:
    """A name that holds a word for a part: the word's place in its list, and what other words the name has."""

    name: str
    rank: int
    rest: tuple[str, ...]


def pair(names: Collection[str]) -> tuple[str, list[str]] | None:
    """The training part among some names, and those that could be its test part, the best first; None without both.

    Both parts are named alike: ``seg_train`` goes with ``seg_test`` or with a plain ``test``, not with ``other_test``.
    """
    for part in _parts(names, TRAIN):
        tests = _tests(part, names)
        if tests:
            return part.name, tests
    return None


def validation(tests: Collection[str], taken: str) -> str | None:
    """The part of validation rows among the parts that are not trained on, None without one beside the test part."""
    ranks = {part.name: part.rank for part in _parts(tests, TEST)}
    return next((name for name in tests if name != taken and TEST[ranks[name]] in VALIDATION), None)


def partners(name: str, names: Collection[str]) -> list[str]:
    """The test parts among some names that go with one training part; none where its name says nothing of parts."""
    return next((_tests(part, names) for part in _parts([name], TRAIN)), [])


def is_train(name: str) -> bool:
    """Whether a name is one of a training part."""
    return any(not part.rest for part in _parts([name], TRAIN))


def _tests(of: _Part, names: Collection[str]) -> list[str]:
    found = [part for part in _parts(names, TEST) if part.name != of.name and part.rest in (of.rest, ())]
    return [part.name for part in sorted(found, key=lambda part: (part.rest != of.rest, part.rank))]


def _parts(names: Collection[str], words: Collection[str]) -> list[_Part]:
    """Names with one of the words, the plainest and best first."""
    found = []
    for name in names:
        spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
        has = re.findall(r"[^\W\d_]+", spaced.lower())
        word = next((word for word in words if word in has), None)
        if word is not None:
            rest = tuple(other for other in has if other != word and other not in FILLERS)
            found.append(_Part(name, list(words).index(word), rest))
    return sorted(found, key=lambda part: (len(part.rest), part.rank, part.name))
