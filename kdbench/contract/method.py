"""The base of every adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from kdbench.base.once import said_once
from kdbench.contract.batch import At, Batch
from kdbench.contract.errors import NotApplicable
from kdbench.contract.needs import Needs
from kdbench.contract.network import Network
from kdbench.contract.stage import Group, Stage
from kdbench.contract.task import TaskInfo


class Inner(Protocol):
    """An inner method, built by an outer one (cGAN-KD around ReviewKD)."""

    name: str

    def needs(self) -> Needs:
        """Needs of the inner method under its own hyper-parameters."""

    def build(self, task: TaskInfo, students: Sequence[Network], teachers: Mapping[str, Network]) -> Method:
        """The inner method."""


class Method(nn.Module):
    """Base of every adapter.

    Args:
        task: what may be known of the task.
        students: ``needs(hp).students`` networks of the student's architecture, students[0] with plain's weights.
        teachers: role to frozen network, in eval mode.
        hp: the card's hyper-parameters, typed and frozen.

    Raises:
        NotApplicable: from :meth:`setup`, when the pair cannot serve the method; the message is the reason.
    """

    def __init__(self, task: TaskInfo, students: Sequence[Network], teachers: Mapping[str, Network], hp: Any) -> None:
        super().__init__()
        self.task = task
        self.students = nn.ModuleList(students)
        self.teachers = dict(teachers)  # a plain dict: teachers are not parameters of the method
        self.hp = hp
        if _sets_itself_up(type(self)):
            said_once(
                f"{type(self).__name__} has __init__ and setup; Method calls setup() now, move the former into it"
            )
        else:
            self.setup()

    def setup(self) -> None:
        """Makes the method's own modules, sized by ``task.probe(net)``, and refuses what cannot serve it."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        """What the method asks of a task under these hyper-parameters."""
        return Needs()

    @property
    def student(self) -> Network:
        """students[0]."""
        return self.students[0]  # type: ignore[return-value]

    @property
    def teacher(self) -> Network:
        """The first teacher."""
        return next(iter(self.teachers.values()))

    @property
    def deployed(self) -> nn.Module:
        """What is scored and kept."""
        return self.student

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        """Named terms, 0-d, already weighted; the engine minimises their sum.

        A dict, or :class:`Terms`, which also hands :meth:`after_step` what it needs.
        """
        raise NotApplicable(f"{type(self).__name__} defines neither losses nor stages")

    def after_step(self, batch: Batch, at: At) -> None:
        """After each optimiser step of a stage with ``losses``, without gradients: memory banks, moving averages.
        What the losses handed over is ``batch.handed``. Of several processes each writes alike: rows that ``losses``
        gathered, not those of ``batch``."""

    def groups(self) -> list[Group]:
        """Parameters by optimiser; one group of all of them unless overridden."""
        return [Group("student", [p for p in self.parameters() if p.requires_grad])]

    def stages(self) -> Iterator[Stage]:
        """Stages in order; one of the task's epochs unless overridden.

        A generator: code between two yields runs when the earlier stage is done; its results go through
        ``task.keep``. When a stage starts, resumed or not, the engine calls ``self.train()``, once; teachers are no
        modules of the method and stay as they are. A module to be held in eval mode through a stage is held by an
        overridden ``train()``, or by its losses around each use.
        """
        yield Stage("distill", losses=self.losses, groups=self.groups(), epochs=self.task.epochs)


def _sets_itself_up(cls: type[Method]) -> bool:
    """Whether a ``setup`` is an older adapter's own, which its ``__init__`` calls."""
    return any({"__init__", "setup"} <= vars(base).keys() for base in cls.__mro__ if base is not Method)
