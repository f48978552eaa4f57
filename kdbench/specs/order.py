"""What one process asks of another, as a frozen order: written as JSON and read again here and nowhere else."""

from __future__ import annotations

import json
from typing import Literal, Self

from kdbench.base.fields import Part
from kdbench.specs import local
from kdbench.specs.config import Match, RunConfig, run_config
from kdbench.specs.local import Local
from kdbench.specs.tuned import Tuned

Mode = Literal["quick", "full", "off"]
"""How the overhead of a cell is measured."""


class Order(Part):
    """Base of all orders. Names, numbers and paths alone are in one: both sides look up what the names stand for."""

    def text(self) -> str:
        """One line of JSON; a path that is no UTF-8 stays what it is."""
        return json.dumps(self.model_dump(), default=str)

    @classmethod
    def read(cls, text: str) -> Self:
        """The order of a text.

        Raises:
            ValueError: it is none.
        """
        return cls.model_validate(json.loads(text), strict=False)


class ConfigOrder(Order):
    """A run's configuration, by what was typed.

    Attributes:
        match: the cell that a compute-matched run takes its length from.
        tuned: the search whose values it takes.
        given: the folders and files behind its names that are not registered.
    """

    method: str
    task: str
    overrides: tuple[str, ...] = ()
    smoke: bool = False
    match: Match | None = None
    tuned: Tuned | None = None
    given: tuple[Local, ...] = ()

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        """What gives this configuration."""
        return cls(
            method=config.method.ref.name, task=config.task.name, overrides=config.overrides, smoke=config.smoke,
            match=config.match, tuned=config.tuned, given=local.used(config),
        )  # fmt: skip

    def config(self) -> RunConfig:
        """The configuration, made anew.

        Raises:
            UserError: a name is not known here, or a local folder or file has changed meanwhile.
        """
        for one in self.given:
            one.known_here()
        return run_config(self.method, self.task, self.overrides, smoke=self.smoke, match=self.match, tuned=self.tuned)
