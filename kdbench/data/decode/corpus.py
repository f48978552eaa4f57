"""What a corpus is, pairs of sentences or sentences alone, and what of it a task may choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from kdbench.data.decode.place import find_folder

SOURCE, TARGET = "source", "target"
"""The sides of a pair: what is read and what is written."""


@dataclass(frozen=True)
class Corpus:
    """What is known of a corpus.

    Attributes:
        columns: its languages; the first is read and the last is written unless options say otherwise.
        folders: names below the user's data folder, the first that exists is read.
        hub: id on the hub, its configuration and revision; empty for none.
        nested: on the hub both columns stand in one, of this name.
        parts: files of the training and of the test part.
        megabytes: about what its files take.
        content: of each part sha256 over its pairs, of the columns in order; empty where it is not known.
    """

    name: str
    about: str
    licence: str
    columns: tuple[str, ...]
    folders: tuple[str, ...]
    hub: tuple[str, str | None, str | None] | None = None
    nested: str | None = None
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"train": ("train",), "test": ("test",)})
    megabytes: float = 1.0
    content: Mapping[str, str] = field(default_factory=dict)


class Options(BaseModel):
    """``data.options`` of a corpus.

    Attributes:
        source, target: columns; of the corpus' own where unset. ``source`` is what is read.
        alone: nothing is read, the target column is all there is, as for language models.
        words: pairs of which one side has more words are no part of the task; unset, all are.
        subwords: symbols of each vocabulary at most.
        joint: one vocabulary for both sides.
        vocabulary: file of `tokenizers` that makes both sides' symbols, instead of one trained here; ``hf:<id>`` or
            ``hf:./FOLDER`` is that of a checkpoint, which a teacher ``hf:`` of the same then reads.
        longest: symbols of a sentence at most.
        unfit: training pairs that are empty or too long are an error that names them, or left out. Test pairs never
            are, but for the empty lines of texts that stand alone, which hold nothing to be scored.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    source: str | None = None
    target: str | None = None
    alone: bool = False
    words: int | None = Field(default=None, ge=1)
    subwords: int = Field(default=1000, ge=8, le=200_000)
    joint: bool = False
    vocabulary: str | None = None
    longest: int = Field(default=256, ge=2, le=8192)
    unfit: Literal["refuse", "drop"] = "refuse"


def state(corpus: Corpus, folder: Path | None) -> tuple[Literal["found", "hub", "absent"], str]:
    """Whether a corpus is at hand, and where it is or what to do."""
    if (found := find_folder(folder, corpus.folders)) is not None:
        return "found", f"in {found.name}/ of the data folder"
    if corpus.hub is not None:
        return "hub", f"{corpus.hub[0]} on the hub"
    return "absent", f"put it into {corpus.folders[0]}/ of the data folder"
