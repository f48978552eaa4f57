"""A method's needs against a task's offers, before any work."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from kdbench import kinds
from kdbench.contract import (
    ALL_TEACHERS,
    ANY_TEACHER,
    TEACHER_INPUT,
    VALUES,
    Needs,
    Network,
    NotApplicable,
    Out,
    TaskInfo,
)
from kdbench.data.feed.dataset import Dataset
from kdbench.engine.task import Task
from kdbench.specs.task import TaskSpec

PICTURE = 3
"""Axes of a row that is a picture: (channels, height, width)."""
OF_CLASSIFIER = frozenset({"logits", "classifier"})
"""What a network offers through its classifier."""
OF_TARGETS = frozenset({"boxes"})
"""What targets of some types hold."""


def offers_of(net: Network, out: Out) -> set[str]:
    """What a network offers: what its output gives, and its classifier, norms, tails, and heads to enter."""
    found = set(out.words)
    pyramid, proposals = (out.dense.fpn, out.dense.proposals) if "proposals" in found else ((), ())
    for name, probe in (
        ("classifier", lambda: net.classifier),
        ("norm", lambda: net.norm(0)),
        ("tail", lambda: net.tail(0)),
        ("head", lambda: net.head_from(0)),
        ("roi_head", lambda: net.roi_head(pyramid, proposals)),
    ):
        try:
            probe()
        except NotApplicable:
            continue
        found.add(name)
    return found | {"generate"} if net.writes else found


def kind_and_roles(needs: Needs, spec: TaskSpec) -> list[str]:
    """Roles of the task's teachers that the method reads; all of them stand for any one where the pair has an ensemble.

    Raises:
        NotApplicable: wrong kind of task, or a teacher it needs is not there.
    """
    if (reason := kinds.refusal(needs.kinds, spec.kind)) is not None:
        raise NotApplicable(reason)
    if needs.views > 1 and (reason := spec.of_kind.viewless) is not None:
        raise NotApplicable(f"it reads {needs.views} views of each row: {reason}")
    return roles_read(needs, list(spec.pair.teachers), spec.pair.ensemble is not None)


def roles_read(needs: Needs, roles: Sequence[str], together: bool = False) -> list[str]:
    """Those of some teachers' roles that a method reads; all stand for any one where they are read ``together``.

    Raises:
        NotApplicable: a teacher it needs is not there.
    """
    wanted: list[str] = []
    for role in needs.teachers:
        if role in (ANY_TEACHER, ALL_TEACHERS):
            if not roles:
                raise NotApplicable("it needs a teacher, the task has none")
            wanted += roles if role == ALL_TEACHERS or together else roles[:1]
        elif role in roles:
            wanted.append(role)
        else:
            raise NotApplicable(f"it needs a teacher of role {role!r}, the task has {', '.join(roles) or 'none'}")
    return list(dict.fromkeys(wanted))


def inputs(needs: Needs, spec: TaskSpec, roles: Sequence[str], data: Dataset) -> None:
    """Checks that student and teachers read what the method asks of them.

    Raises:
        NotApplicable: they read one picture where different inputs are asked for, or the other way round; or no picture
            where the method reads the teacher's.
    """
    own = spec.pair.student.input
    others = [name for role in roles if not data.alike(own, name := spec.pair.teachers[role].input)]
    if needs.inputs == "same" and others:
        raise NotApplicable(f"student and teacher must read one picture, here they read {own} and {others[0]}")
    if needs.inputs == "other" and roles and not others:
        raise NotApplicable(f"student and teacher must read different inputs, here both read {own}")
    for name in [spec.pair.teachers[role].input for role in roles] if TEACHER_INPUT in needs.batch else []:
        if len(shape := data.shape(name)) != PICTURE:
            raise NotApplicable(f"it reads the picture that the teacher sees, and {name} has rows of shape {shape}")


def nets_and_data(
    needs: Needs, task: Task, student: Network, teachers: Mapping[str, Network], untrained: Collection[str] = ()
) -> None:
    """Checks what the networks and the data offer.

    Args:
        untrained: roles whose classifier came without weights.

    Raises:
        NotApplicable: naming what is missing.
    """
    nets(needs, task, student, teachers, task.spec.pair.student.net)
    if absent := sorted(word for word in needs.batch & OF_TARGETS if not hasattr(task.train_labels, word)):
        raise NotApplicable(f"it reads {', '.join(absent)}, which the targets of a {task.kind} task do not hold")
    if VALUES in needs.batch and task.data.vocabularies:
        raise NotApplicable(
            "it moves or mixes the values of an input, and symbols of a vocabulary have none between them"
        )
    for role in teachers:
        if role in untrained and (missing := needs.teacher & OF_CLASSIFIER):
            raise NotApplicable(
                f"it reads {', '.join(sorted(missing))} of the {role} teacher, whose weights are features alone"
            )
    missing = needs.data - task.data.properties
    if missing:
        raise NotApplicable(f"the data set is not {', '.join(sorted(missing))}")


def nets(needs: Needs, task: TaskInfo, student: Network, teachers: Mapping[str, Network], called: str = "") -> None:
    """Checks what the networks offer.

    Args:
        called: the student's name.

    Raises:
        NotApplicable: naming what is missing.
    """
    if missing := needs.student - offers_of(student, task.probe(student)):
        raise NotApplicable(f"the student {called} ".strip() + f" offers no {', '.join(sorted(missing))}")
    for role, teacher in teachers.items():
        if missing := needs.teacher - offers_of(teacher, task.probe(teacher)):
            raise NotApplicable(f"the {role} teacher offers no {', '.join(sorted(missing))}")
