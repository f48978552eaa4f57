"""IWSLT 2014, German and English: transcripts of talks, cleaned and split as fairseq's script does.

Options are those of :class:`kdbench.data.decode.corpus.Options`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdbench.data.decode.corpus import Corpus, Options
from kdbench.data.decode.facts import Facts
from kdbench.data.decode.options import parse
from kdbench.data.decode.place import Place

if TYPE_CHECKING:
    from kdbench.data.feed.dataset import Dataset

CORPUS = Corpus(
    name="iwslt14",
    about="transcripts of talks, German and English (IWSLT 2014)",
    licence="CC BY-NC-ND 4.0 (TED)",
    megabytes=20,
    columns=("de", "en"),
    folders=("iwslt14", "iwslt14_deen"),
    hub=("bbaaaa/iwslt14-de-en-preprocess", None, "refs/convert/parquet"),  # main holds a script, which is not run
    nested="translation",
)
FACTS = Facts(160239, 1000, {"source": (30,)}, about=CORPUS.about, licence=CORPUS.licence)


def load(options: dict[str, Any], place: Place) -> Dataset:
    """The sentences; see :func:`kdbench.data.decode.sentences.load`."""
    from kdbench.data.feed import corpora

    return corpora.load(CORPUS, parse(Options, options, CORPUS.name), place)
