"""A method's needs against a task's offers, before any work."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from kdbench.contract import ALL_TEACHERS, ANY_TEACHER, Needs, Network, NotApplicable, Out
from kdbench.engine.task import Task

OF_CLASSIFIER = frozenset({"logits", "classifier"})
"""What a network offers through its classifier."""


def offers_of(net: Network, out: Out) -> set[str]:
    """What a network offers: the filled fields of its output, and its classifier, norms and tails."""
    found = {name for name, value in out._asdict().items() if value is not None and value != ()}
    for name, probe in (
        ("classifier", lambda: net.classifier),
        ("norm", lambda: net.norm(0)),
        ("tail", lambda: net.tail(0)),
    ):
        try:
            probe()
        except NotApplicable:
            continue
        found.add(name)
    return found


def kind_and_roles(needs: Needs, kind: str, roles: list[str], *, together: bool = False) -> list[str]:
    """Roles of the task's teachers that the method reads.

    Args:
        together: all of them stand for any one.

    Raises:
        NotApplicable: wrong kind of task, or a teacher it needs is not there.
    """
    if kind not in needs.kinds:
        raise NotApplicable(f"it runs on {' and '.join(sorted(needs.kinds))} tasks, this one is a {kind} task")
    wanted = []
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


def nets_and_data(
    needs: Needs, task: Task, student: Network, teachers: Mapping[str, Network], untrained: Collection[str] = ()
) -> None:
    """Checks what the networks and the data offer.

    Args:
        untrained: roles whose classifier came without weights.

    Raises:
        NotApplicable: naming what is missing.
    """
    missing = needs.student - offers_of(student, task.probe(student))
    if missing:
        raise NotApplicable(f"the student {task.spec.pair.student.net} offers no {', '.join(sorted(missing))}")
    for role, teacher in teachers.items():
        offered = offers_of(teacher, task.probe(teacher))
        if missing := needs.teacher - offered:
            raise NotApplicable(f"the {role} teacher offers no {', '.join(sorted(missing))}")
        if role in untrained and (missing := needs.teacher & OF_CLASSIFIER):
            raise NotApplicable(
                f"it reads {', '.join(sorted(missing))} of the {role} teacher, whose weights are features alone"
            )
    missing = needs.data - task.data.properties
    if missing:
        raise NotApplicable(f"the data set is not {', '.join(sorted(missing))}")
