"""English user-interface strings and their German translations, from the catalogues of nine Python packages.

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
    name="ui-ende",
    about="user-interface strings of nine packages, English and German",
    licence="BSD-3-Clause and MIT, a row each",
    megabytes=0.2,
    columns=("en", "de"),
    folders=("ui_ende", "ui-ende"),
    content={
        "train": "9e553d9d9956bc938fc5518d0a3a121c7143f10fb6ec8de76dd19535f81c4dda",
        "test": "8359d79d6ded0f03d93f1cf0286690e8e85bfb6aa5e8e94e72ac5b79e5504e40",
    },
)
FACTS = Facts(6623, 1000, {"source": (12,)}, about=CORPUS.about, licence=CORPUS.licence)


def load(options: dict[str, Any], place: Place) -> Dataset:
    """The sentences; see :func:`kdbench.data.decode.sentences.load`."""
    from kdbench.data.feed import corpora

    return corpora.load(CORPUS, parse(Options, options, CORPUS.name), place)
