"""Japanese and English sentences of 4 to 16 words: a selection of the Tanaka corpus, in words as it comes.

The dev and the test part are scored together: nothing is chosen on dev.

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
    name="tanaka-enja",
    about="short Japanese and English sentences of the Tanaka corpus",
    licence="CC BY 2.0 FR (Tanaka corpus / Tatoeba)",
    megabytes=1.3,
    columns=("ja", "en"),
    folders=("tanaka_enja", "tanaka-enja"),
    content={
        "train": "77f46560a34332a7ee3072610f20063835f231ec655839613c25627d48c3ed6b",
        "test": "d05636bed2ceb0075d11945ee6469a1a0953a96bde4d749492b9e3c6bce1fcfb",
    },
    parts={"train": ("train",), "test": ("dev", "test")},
)
FACTS = Facts(50000, 1000, {"source": (16,)}, about=CORPUS.about, licence=CORPUS.licence)


def load(options: dict[str, Any], place: Place) -> Dataset:
    """The sentences; see :func:`kdbench.data.decode.sentences.load`."""
    from kdbench.data.feed import corpora

    return corpora.load(CORPUS, parse(Options, options, CORPUS.name), place)
