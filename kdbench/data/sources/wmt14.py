"""WMT 2014, English and German: news, parliament and web texts; newstest2014 is the test part.

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
    name="wmt14",
    about="news, parliament and web texts, English and German (WMT 2014)",
    licence="of its parts, see statmt.org/wmt14",
    megabytes=1300,
    columns=("en", "de"),
    folders=("wmt14", "wmt14_ende"),
    hub=("wmt/wmt14", "de-en", None),
    nested="translation",
)
FACTS = Facts(4508785, 1000, {"source": (35,)}, about=CORPUS.about, licence=CORPUS.licence)


def load(options: dict[str, Any], place: Place) -> Dataset:
    """The sentences; see :func:`kdbench.data.decode.sentences.load`."""
    from kdbench.data.feed import corpora

    return corpora.load(CORPUS, parse(Options, options, CORPUS.name), place)
