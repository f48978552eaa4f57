"""Pairs of sentences, or texts alone, of one's own: a folder with a column, or a text file, a language.

``folder`` names it, ``source`` and ``target`` its columns; the other options are those of
:class:`kdbench.data.decode.corpus.Options`. The files are ``train`` and ``test``, each ``.parquet``, ``.csv``, or a
text file a language (``train.en``, ``train.de``) of a sentence a line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import StringConstraints, model_validator

from kdbench.data.decode.corpus import Corpus, Options
from kdbench.data.decode.facts import Facts
from kdbench.data.decode.options import parse
from kdbench.data.decode.place import Place

if TYPE_CHECKING:
    from kdbench.data.feed.dataset import Dataset

FACTS = Facts(0, 1000, {"source": (20,)}, about="pairs of sentences in a folder of yours", licence="yours")


class OwnOptions(Options):
    """``folder``: its name below the data folder."""

    folder: Annotated[str, StringConstraints(pattern=r"^[^./\\][^/\\]*$", max_length=100)]
    target: str

    @model_validator(mode="after")
    def _one_or_two(self) -> OwnOptions:
        if (self.source is None) != self.alone:
            raise ValueError("name source, the column that is read, or set alone: true where nothing is")
        return self


def load(options: dict[str, Any], place: Place) -> Dataset:
    """The sentences; see :func:`kdbench.data.decode.sentences.load`."""
    from kdbench.data.feed import corpora

    given = parse(OwnOptions, options, "parallel-text")
    name = given.folder.lower().replace("_", "-").replace(" ", "-")
    own = Corpus(name, FACTS.about, "yours", (given.source or given.target, given.target), (given.folder,))
    return corpora.load(own, Options.model_validate(given.model_dump(exclude={"folder"})), place)
