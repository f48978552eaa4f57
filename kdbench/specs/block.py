"""What the blocks of a task are made of: words, and models that grow without new hashes. Needs no torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
)

Word = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.:/-]*$", max_length=120)]
Net = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/~-]*$", max_length=200)]
"""A net's name; ids of the hub and paths hold capitals."""
ALL_KEYS = {"all_keys": True}
"""The ``context`` of a dump that holds every key; others leave out the unset ones of a block's ``LATER``."""


class Block(BaseModel):
    """Keys of a task: unknown ones and numbers that are not finite are refused; once read, none changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Grown(Block):
    """A block that got keys after the first records: where they are unset, what is hashed of a task is as before.

    Attributes:
        LATER: the keys that came later; None is unset.
        BESIDE: keys that decide nothing of what is trained or ranked, and are never hashed.
    """

    LATER: ClassVar[tuple[str, ...]] = ()
    BESIDE: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _as_hashed(self, dump: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        body: dict[str, Any] = dump(self)
        if info.context == ALL_KEYS:
            return body
        unset = {key for key in self.LATER if key in body and body[key] is None}
        return {key: value for key, value in body.items() if key not in unset and key not in self.BESIDE}
