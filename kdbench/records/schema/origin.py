"""What decided a result, and how to repeat it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kdbench.base.fields import Commit, Link, MethodName, Part, Settings, Sha256, Text, Word


class Identity(Part):
    """What decided the result beside the specification, the seed and the device class: content, never names.

    A record without it is of the released code of its versions, and of the rows that ``task.data`` names.

    Attributes:
        code: method, and the one inside it, to its version, with ``+<digest>`` for code not released under it.
        nets: student's and teachers' nets to the engine's version, alike.
        data: of all rows before a subset, their normalisation and geometry; None for a run that ended before.
        weights: place of each weights file in the specification to the hash of the file.
    """

    code: dict[MethodName, Word]
    nets: dict[Word, Word]
    data: Sha256 | None = None
    weights: dict[Word, Sha256] = Field(default_factory=dict)


class PluginUsed(Part):
    """A distribution, or ``./folder/`` or ``./file.yaml``, that the run took its method, task or data set from.

    ``dirty``: its commit does not tell all.
    """

    name: Word
    version: Word
    commit: Commit | None = None
    dirty: bool = False


class Provenance(Part):
    """How to repeat the run. A dirty tree or an unknown commit can never be verified."""

    kdbench_version: Word
    git_commit: Commit | None = None
    dirty: bool
    command: Text
    config_resolved: Settings
    plugins: tuple[PluginUsed, ...] = ()
    lockfile_sha256: Sha256 | None = None
    submitter: Word | None = None
    contact_url: Link | None = None
    licence: Literal["CC-BY-4.0"] = "CC-BY-4.0"

    @property
    def unclean(self) -> str | None:
        """Why nobody could check out what ran, None if anybody can."""
        if self.git_commit is None or self.dirty:
            return "made from code that was not committed"
        loose = [used.name for used in self.plugins if used.dirty]
        if not loose:
            return None
        whose = loose[0] if loose[0].startswith(("./", "object:")) else f"the plug-in {loose[0]}"
        return f"made with code of {whose} that was not committed"
