"""Teachers: trained once by the same engine as plain, cached by the hash of what made them, scored before use."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from kdbench import ENGINE_VERSION, identity
from kdbench.base.cache import Damaged, build_once, clear
from kdbench.base.errors import UserError
from kdbench.base.files import canonical_json, read_facts, sha256, sha256_file
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.contract import Network
from kdbench.data.feed.dataset import Dataset
from kdbench.devices.machine import device_class
from kdbench.engine.checkpoint import save_tensors
from kdbench.engine.place import RunPlace
from kdbench.engine.scoring import Scorer
from kdbench.engine.task import Keeper, Task, build_network, seeded
from kdbench.engine.trainer import Trained, Trainer
from kdbench.identity import sourcecode
from kdbench.models.origin import Origin
from kdbench.models.weights import load_weights
from kdbench.specs import registry
from kdbench.specs.config import RunConfig
from kdbench.specs.pair import Teacher
from kdbench.specs.task import TaskSpec

WEIGHTS, FACTS, CHECKPOINTS = "weights.safetensors", "facts.json", "checkpoints"


@dataclass(frozen=True)
class TrainedTeacher:
    """A teacher and what is known of it.

    Attributes:
        score: its own primary metric on the test rows; None where its weights are features alone.
        facts: arch, source, params, weights_sha256, seconds and steps of its training (None when it came with weights).
    """

    role: str
    net: Network
    score: float | None
    facts: dict[str, Any]


def teacher_spec(spec: TaskSpec, teacher: Teacher, smoke: bool) -> TaskSpec:
    """The task a teacher trains on: its own net as the student, all rows, its own protocol."""
    changes = teacher.train.model_dump(exclude_none=True)
    if smoke:
        changes["epochs"] = spec.smoke.epochs
    body = spec.model_dump()
    body["train"] |= changes
    body["data"] |= {"subset": None, "validation": None}
    body["pair"] = {"student": {"net": teacher.net, "input": teacher.input, "weights": teacher.init}, "teachers": {}}
    return TaskSpec.model_validate(body)


def get(config: RunConfig, role: str, data: Dataset, place: RunPlace) -> TrainedTeacher:
    """The teacher in a role of a task's pair, trained now if nobody did; its net as it is built, options apart.

    Args:
        config: of the run; its teacher is trained with the options that bear on plain.
        data: all training rows (a subset is the student's).
        place: of the run, whose processes train it together if need be.

    Raises:
        UserError: it scores worse than the task's ``min_score``, or its weights do not fit.
    """
    if place.common is None:
        return _made(config, role, data, place)
    return place.common.teacher(role, lambda: _made(config, role, data, place))


def _made(config: RunConfig, role: str, data: Dataset, place: RunPlace) -> TrainedTeacher:
    spec, device, home = config.task, place.device, place.home
    teacher = spec.pair.teachers[role]
    own = teacher_spec(spec, teacher, config.smoke)
    with seeded(teacher.seed, "student-init"):
        net = build_network(teacher.net, teacher.input, data).to(device)
    task = Task(
        own,
        data,
        device,
        teacher.seed,
        no_keeper(home, place.progress.say),
        config.engine.without_teacher(),
        place.ranks,
    )
    if teacher.weights == "auto":
        facts = _cached(task, data.identity(), net, home, place.progress.labelled(f"teacher {teacher.net}"))
        source = "kdbench"
    else:
        loaded = load_weights(net, teacher.weights)
        if loaded.said:
            place.progress.say(loaded.said)
        facts = {"weights_sha256": loaded.sha256, "seconds": None, "steps": None}
        source = teacher.weights
    net.to(device).eval().requires_grad_(False)
    score = None
    if not Origin.of(teacher.weights).features:
        score = Scorer(task).primary(net)[spec.score.primary]
        _refuse_weak(spec, role, teacher, score, config.smoke)
    params = sum(p.numel() for p in net.parameters())
    return TrainedTeacher(role, net, score, {"arch": teacher.net, "source": source, "params": params, **facts})


def kept(home: Home) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The teachers of a home: folder and facts of each. Those under way, set aside or without facts are none."""
    for path in sorted(home.teachers.glob(f"*/{FACTS}")):
        try:
            facts = read_facts(path, "weights_sha256")
        except (OSError, ValueError):
            continue
        if "." not in path.parent.name:
            yield path.parent, facts


def untrained(spec: TaskSpec, role: str, data: Dataset, device: torch.device) -> TrainedTeacher:
    """The teacher in a role as it is before training, to try something on; it has no score."""
    teacher = spec.pair.teachers[role]
    with seeded(teacher.seed, "student-init"):
        net = build_network(teacher.net, teacher.input, data).to(device)
    return TrainedTeacher(role, net.eval().requires_grad_(False), math.nan, {})


def no_keeper(home: Home, announce: Callable[[str], None]) -> Keeper:
    """For a task of which nothing is kept."""
    return Keeper(home.teachers, home.artefacts, {}, announce)


def _refuse_weak(spec: TaskSpec, role: str, teacher: Teacher, score: float, smoke: bool) -> None:
    if teacher.min_score is None or smoke:
        return
    better = score >= teacher.min_score if spec.score.higher_is_better else score <= teacher.min_score
    if not better:
        raise UserError(
            f"teacher {role!r} ({teacher.net}) of {spec.name} scores {score:.2f} {spec.score.unit}, the task asks for "
            f"{teacher.min_score:g}; check its weights or protocol, or set pair.teachers.{role}.min_score"
        )


def _cached(task: Task, rows: str, net: Network, home: Home, progress: Progress) -> dict[str, Any]:
    """Loads the cached weights into ``net``, training them first if need be; ``rows`` is the identity of the rows."""
    own, ranks = task.spec, task.ranks
    made_by = {
        "protocol": own.model_dump(mode="json", include={"data", "pair", "train"}),
        "data": rows,
        "code": sourcecode.of_card(registry.card(registry.PLAIN)),
        "nets": sourcecode.of_nets([own.pair.student.net]),
        "weights": identity.of_weights(own),
        "seed": task.seed,
        # Another device rounds otherwise and takes other seconds: a record's teacher is of the record's device class.
        "device_class": device_class(task.device, task.options, ranks.size),
        "engine_version": ENGINE_VERSION,
    }
    folder = home.teachers / sha256(canonical_json(made_by))[:32]

    def check(path: Path) -> None:
        try:
            facts = read_facts(path / FACTS, "weights_sha256", "seconds", "steps")
            if sha256_file(path / WEIGHTS) != facts["weights_sha256"]:
                raise Damaged("the weights are not those written")
        except (OSError, ValueError) as error:
            raise Damaged(f"{FACTS} or {WEIGHTS} cannot be read") from error

    def train(path: Path) -> tuple[Network, Trained]:
        plain = registry.method(registry.PLAIN)
        student = task.build_student()
        method = plain.adapter()(task, [student], {}, plain.card.typed(plain.card.defaults())).to(task.device)
        scorer = Scorer(task)
        trainer = Trainer(method, task, path / CHECKPOINTS, scorer.primary, progress, scored=scorer.curve_points)
        return student, trainer.run()

    def build(path: Path) -> None:
        ranks.tell(str(path))
        student, trained = train(path)
        save_tensors(path / WEIGHTS, student.state_dict())
        facts = {
            "weights_sha256": sha256_file(path / WEIGHTS),
            "seconds": sum(stage.seconds for stage in trained.stages),
            "steps": sum(stage.steps for stage in trained.stages),
            "made_by": made_by,
            "curve": trained.curve,
        }
        (path / FACTS).write_text(json.dumps(facts, indent=1))
        clear(path / CHECKPOINTS)

    if ranks.first:
        build_once(folder, check, build, progress.say)
        ranks.tell()
    else:
        while (path := ranks.tell()) is not None:
            train(Path(path))
    try:
        net.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, RuntimeError) as error:
        raise UserError(
            f"{folder / WEIGHTS}: does not fit {own.pair.student.net}; remove the folder to train it again"
        ) from error
    facts = json.loads((folder / FACTS).read_text())
    return {key: facts[key] for key in ("weights_sha256", "seconds", "steps")}
