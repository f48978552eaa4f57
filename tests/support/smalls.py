"""Every method on small made-up outputs of networks, its hyper-parameters all different."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.checks.stubs import Assembled, Stub, assembled, batch_of, hyper_parameters
from kdbench.contract import ALL_TEACHERS, TEACHER_INPUT, Batch, Out
from kdbench.specs import registry

IMAGES, CLASSES, WIDTH = 6, 5, 7
SIZES, TEACHER_SIZES = ((4, 8, 8), (6, 4, 4), (7, 2, 2)), ((5, 8, 8), (6, 4, 4), (8, 2, 2))
"""Channels and positions of the stages of a student and of a teacher."""
PICTURE = (16, 12)
"""Pixels of a picture that a method rebuilds from the first map: twice the map, and half of it more."""
FEW = {"width": WIDTH, "negatives": 4, "neighbours": 3}
"""Hyper-parameters that the few rows ask for."""
ALIKE = ("fsp", "ccl", "askd")
"""Methods whose networks must be equally wide."""
ROLES = ("image", "audio")
ELSEWHERE = {
    "cgan_kd": "its generator needs pictures",
    "abda": "it pastes pictures",
    "smooth_teacher": "it moves pixels",
    "few_sample": "it fits weights of real layers",
    "brcd": "hashing",
    "hash_kd": "hashing",
    "seed": "representation",
    "compress": "representation",
    **dict.fromkeys(("kd_dense", "pkd", "cwd", "fgd", "mgd", "crosskd", "defeat", "dkd_roi", "real"), "detectors"),
    **dict.fromkeys(("word_kd", "seq_kd", "knn_kd", "rdrop", "dkd_nmt", "gkd", "distillm"), "sentences"),
    **dict.fromkeys(("ld", "ld_obb", "ddkd_obb"), "distributions of boxes"),
    **dict.fromkeys(("spark", "dmae", "tinymim", "h_gkd"), "hidden patches"),
}
"""Methods that made-up outputs say nothing of, and why; each has a file of its own."""


class Trained(Stub):
    """A stub with one weight, 1, so that what trains a network can be told from what does not."""

    def __init__(self, *args: Any, **words: Any) -> None:
        super().__init__(*args, **words)
        self.own = nn.Parameter(torch.ones(()))

    def forward(self, batch: Batch) -> Out:
        out = super().forward(batch)
        logits, maps, preact, stem, emb = out[:5]
        logits, stem, emb = (None if x is None else self.own * x for x in (logits, stem, emb))
        maps = maps if self.tails else tuple(self.own * x for x in maps)
        attention = tuple(self.own * x for x in out.attention)
        return Out(logits, maps, tuple(self.own * x for x in preact), stem, emb, attention=attention)

    def tail(self, stage: int) -> nn.Module:
        return TrainedTail(super().tail(stage))

    def extra_tail(self) -> nn.Module:
        return TrainedTail(super().extra_tail())


class TrainedTail(nn.Module):
    """A tail with one weight, 1."""

    def __init__(self, tail: nn.Module) -> None:
        super().__init__()
        self.tail, self.classifier = tail, nn.Linear(1, 1)
        self.own = nn.Parameter(torch.ones(()))

    def forward(self, rows: Tensor) -> Out:
        return Out(self.own * self.tail(rows).logits)


def network(seed: int, rows: int, name: str = "image", tails: bool = False, sizes: Any = SIZES) -> Trained:
    """Random outputs of consistent shapes; the embedding is the pooled last map."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(rows, *shape, generator=rng, dtype=torch.get_default_dtype())

    preact = tuple(draw(*size) for size in sizes)
    maps = tuple(x.relu() for x in preact)
    out = Out(draw(CLASSES), maps, preact, draw(3, 8, 8), maps[-1].flatten(2).mean(2))
    attention = tuple(draw(*shape) for channels, *sides in sizes for shape in ((channels, 1, 1), (1, *sides)))
    out = out._replace(attention=attention)
    norms = [(draw(channels)[0].abs() + 0.5, draw(channels)[0]) for channels, *_ in sizes]
    classifier = nn.Linear(sizes[-1][0], CLASSES)
    scores = [draw(4 * CLASSES) for _ in sizes] if tails else ()
    return Trained(out, norms, classifier, scores, name)


def distinct(name: str, **given: Any) -> dict[str, Any]:
    """Hyper-parameters of a method, every number that may be any number another one; ``given`` ones as they are."""
    ref = registry.method(name)
    variant = ref.variant.params if ref.variant else {}
    found = {}
    for i, (key, hp) in enumerate(ref.card.hyper_parameters.items()):
        value = variant.get(key, hp.default)
        if isinstance(value, float):
            value = (value or 0.37) * (1.1 + 0.07 * i)
            while hp.max is not None and value >= hp.max:
                value *= 0.83
        found[key] = value
    return {**found, **given}


def small(name: str, teacher: Trained | None = None, **given: Any) -> Assembled:
    """A method on :data:`IMAGES` rows, or views of so many.

    Args:
        teacher: in the place of the first one.
        given: hyper-parameters; the others are :func:`distinct`.
    """
    ref = registry.method(name)
    few = {key: value for key, value in FEW.items() if key in ref.card.hyper_parameters}
    values = distinct(name, **{**few, **given})
    needs = ref.adapter().needs(hyper_parameters(name, values))
    rows, tails = IMAGES * needs.views, "tail" in needs.student
    y = torch.arange(IMAGES).mul(3).remainder(CLASSES).repeat(needs.views)
    present = {"audio": torch.arange(rows) % 3 != 1} if "present" in needs.batch else {}
    n = rows + 3
    pictures = torch.randn(n, 3, *PICTURE) if TEACHER_INPUT in needs.batch else None
    seen = None if pictures is None else pictures[:rows]
    index = torch.arange(rows).flip(0) + 2
    batch = batch_of(y, views=needs.views, index=index, inputs=ROLES, present=present, pictures=seen)
    sizes = SIZES if ref.card.name in ALIKE and "unequal_widths" not in given else TEACHER_SIZES
    students = [network(i, n, tails=tails) for i in range(needs.students)]
    roles = ROLES if needs.teachers == (ALL_TEACHERS,) else ROLES[: len(needs.teachers)]
    teachers = {role: network(10 + i, n, role, tails, sizes) for i, role in enumerate(roles)}
    if teacher is not None:
        teachers[roles[0]] = teacher
    facts: dict[str, Any] = {"raw_shape": dict.fromkeys(ROLES[: max(1, len(roles))], (3, 8, 8)), "n_train": n}
    if "policy" in ref.card.hyper_parameters:  # it looks at pixels before it changes any
        facts["pixels"] = torch.zeros(n, 3, 8, 8, dtype=torch.uint8)
    if pictures is not None:
        facts["pixels"] = pictures
    return assembled(name, values, batch, students, teachers, **facts)


def losses(made: Assembled) -> Iterator[tuple[str, set[nn.Parameter], dict[str, Tensor]]]:
    """Name, trained parameters and terms of every stage that has losses."""
    for stage in made.stages().values():
        if stage.losses is not None:
            trained = {parameter for group in stage.groups for parameter in group.params}
            yield stage.name, trained, stage.losses(made.batch, made.at(3))
