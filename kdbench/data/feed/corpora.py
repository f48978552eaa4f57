"""Corpora as data sets."""

from __future__ import annotations

from kdbench.data.decode import sentences
from kdbench.data.decode.corpus import SOURCE, TARGET, Corpus, Options
from kdbench.data.decode.place import Place
from kdbench.data.decode.sentences import Found
from kdbench.data.feed.dataset import Dataset, Symbols


def load(of: Corpus, options: Options, place: Place) -> Dataset:
    """The data set of a corpus; see :func:`kdbench.data.decode.sentences.load`."""
    return data_set(sentences.load(of, options, place))


def data_set(found: Found) -> Dataset:
    """Rows with their vocabularies, which are part of what identifies them."""
    return Dataset(
        name=found.name,
        train=found.rows["train"],
        test=found.rows["test"],
        classes=found.vocabularies[TARGET].size,
        transforms={SOURCE: Symbols()},
        vocabularies=found.vocabularies,
        made={SOURCE: {side: vocabulary.digest for side, vocabulary in found.vocabularies.items()}},
        source=found.origin,
        official=found.official,
    )
