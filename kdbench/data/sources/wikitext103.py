"""WikiText-103: articles of Wikipedia, a paragraph a text (Merity et al., ICLR 2017).

Options are those of :class:`kdbench.data.decode.corpus.Options`; ``alone`` is set.
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
    name="wikitext103",
    about="paragraphs of good and featured Wikipedia articles, English",
    licence="CC BY-SA 3.0",
    megabytes=320,
    columns=("text",),
    folders=("wikitext103", "wikitext-103-raw-v1"),
    hub=("Salesforce/wikitext", "wikitext-103-raw-v1", None),
)
FACTS = Facts(1_165_029, 50_257, {"source": (0,)}, about=CORPUS.about, licence=CORPUS.licence)


def load(options: dict[str, Any], place: Place) -> Dataset:
    """The texts; see :func:`kdbench.data.decode.sentences.load`."""
    from kdbench.data.feed import corpora

    return corpora.load(CORPUS, parse(Options, {**options, "alone": True}, CORPUS.name), place)
