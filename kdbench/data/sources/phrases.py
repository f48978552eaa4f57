"""English sentences of a small grammar and their German translations: nothing is downloaded.

A sentence has a subject, a verb and mostly an object, each noun with an article and at times an adjective, and may say
when, deny, ask, or give a reason. German needs more than a word for a word: three genders and cases decide articles and
endings, the verb stands second, in a reason last, and in a question first. Every sentence comes from one fixed seed; no
test sentence stands in the training part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from kdbench.data.decode.facts import Facts
from kdbench.data.decode.options import parse
from kdbench.data.decode.place import Place

if TYPE_CHECKING:
    from kdbench.data.feed.dataset import Dataset

TRAIN, TEST, SUBWORDS = 2400, 300, 300
FACTS = Facts(TRAIN, SUBWORDS, {"source": (18,)}, about="generated here by a small grammar", licence="none needed")
PEOPLE = (
    ("dog", "Hund", 0), ("teacher", "Lehrer", 0), ("man", "Mann", 0), ("baker", "Bäcker", 0), ("king", "König", 0),
    ("woman", "Frau", 1), ("cat", "Katze", 1), ("sister", "Schwester", 1), ("nurse", "Schwester", 1),
    ("child", "Kind", 2), ("girl", "Mädchen", 2), ("horse", "Pferd", 2),
)  # fmt: skip
"""English, German, and gender: 0 der, 1 die, 2 das."""
THINGS = (
    ("letter", "Brief", 0), ("apple", "Apfel", 0), ("key", "Schlüssel", 0), ("table", "Tisch", 0), ("tree", "Baum", 0),
    ("flower", "Blume", 1), ("lamp", "Lampe", 1), ("door", "Tür", 1), ("city", "Stadt", 1), ("bag", "Tasche", 1),
    ("book", "Buch", 2), ("house", "Haus", 2), ("bread", "Brot", 2), ("picture", "Bild", 2), ("boat", "Boot", 2),
)  # fmt: skip
VERBS = (
    ("sees", "see", "sieht"), ("finds", "find", "findet"), ("buys", "buy", "kauft"), ("paints", "paint", "malt"),
    ("looks for", "look for", "sucht"), ("brings", "bring", "bringt"), ("knows", "know", "kennt"),
    ("carries", "carry", "trägt"), ("loves", "love", "liebt"), ("forgets", "forget", "vergisst"),
)  # fmt: skip
"""With an object: English after a name and in a question, German."""
ALONE = (
    ("sleeps", "sleep", "schläft"), ("sings", "sing", "singt"), ("waits", "wait", "wartet"),
    ("laughs", "laugh", "lacht"), ("comes", "come", "kommt"),
)  # fmt: skip
QUALITIES = (
    ("old", "alt"), ("small", "klein"), ("red", "rot"), ("new", "neu"), ("quiet", "leis"), ("beautiful", "schön"),
    ("heavy", "schwer"), ("young", "jung"), ("green", "grün"), ("strange", "seltsam"),
)  # fmt: skip
TIMES = (
    ("today", "heute"), ("tomorrow", "morgen"), ("in the evening", "am Abend"), ("often", "oft"),
    ("on monday", "am Montag"), ("in winter", "im Winter"),
)  # fmt: skip
ARTICLES = {("the", 0): ("der", "die", "das"), ("the", 1): ("den", "die", "das"),
            ("a", 0): ("ein", "eine", "ein"), ("a", 1): ("einen", "eine", "ein")}  # fmt: skip
"""By English article and case, 0 subject, 1 object; then by gender."""
ENDINGS = {("the", 0): ("e", "e", "e"), ("the", 1): ("en", "e", "e"),
           ("a", 0): ("er", "e", "es"), ("a", 1): ("en", "e", "es")}  # fmt: skip
"""Of adjectives."""
NONE = {0: ("kein", "keine", "kein"), 1: ("keinen", "keine", "kein")}


class PhrasesOptions(BaseModel):
    """``train`` and ``test``: numbers of sentences; ``subwords``: symbols of each vocabulary at most.

    ``alone``: the German side with nothing that is read.
    """

    model_config = ConfigDict(extra="forbid")
    train: int = Field(default=TRAIN, ge=2, le=100_000)
    test: int = Field(default=TEST, ge=2, le=10_000)
    subwords: int = Field(default=SUBWORDS, ge=60, le=5000)
    alone: bool = False


class Noun(NamedTuple):
    """A noun with what stands before it, in both languages."""

    english: str
    german: str


def _noun(rng: np.random.Generator, nouns: tuple[tuple[str, str, int], ...], case: int, denied: bool = False) -> Noun:
    english, german, gender = nouns[rng.integers(len(nouns))]
    article = "a" if denied or rng.random() < 0.4 else "the"
    before, ending = ARTICLES[article, case][gender], ENDINGS[article, case][gender]
    if denied:
        before = NONE[case][gender]
    words, german_words = [], []
    if rng.random() < 0.35:
        quality, own = QUALITIES[rng.integers(len(QUALITIES))]
        words, german_words = [quality], [own + ending]
    first = (words or [english])[0]
    shown = "no" if denied else "an" if article == "a" and first[0] in "aeiou" else article
    return Noun(" ".join([shown, *words, english]), " ".join([before, *german_words, german]))


def _clause(rng: np.random.Generator) -> tuple[list[str], str, str, list[str], str]:
    """English words of a statement, the verb of a question, German subject, what follows the verb, German verb."""
    who = _noun(rng, PEOPLE, 0)
    if rng.random() < 0.25:
        does, asks, verb = ALONE[rng.integers(len(ALONE))]
        return [who.english, does], f"{who.english} {asks}", who.german, [], verb
    does, asks, verb = VERBS[rng.integers(len(VERBS))]
    what = _noun(rng, THINGS if rng.random() < 0.75 else PEOPLE, 1, denied=rng.random() < 0.15)
    return [who.english, does, what.english], f"{who.english} {asks} {what.english}", who.german, [what.german], verb


def sentence(rng: np.random.Generator) -> tuple[str, str]:
    """An English sentence and its German translation."""
    english, asked, subject, rest, verb = _clause(rng)
    form = rng.random()
    if form < 0.15:
        return f"does {asked} ?", " ".join([verb, subject, *rest, "?"])
    when, wann = TIMES[rng.integers(len(TIMES))]
    if form < 0.35:  # what comes first in German pushes the subject behind the verb
        return " ".join([when, *english, "."]), " ".join([wann, verb, subject, *rest, "."])
    if form < 0.5:
        return " ".join([*english, when, "."]), " ".join([subject, verb, wann, *rest, "."])
    if form < 0.7:
        other, _, who, what, does = _clause(rng)
        return (
            " ".join([*english, "because", *other, "."]),
            " ".join([subject, verb, *rest, ", weil", who, *what, does, "."]),
        )
    return " ".join([*english, "."]), " ".join([subject, verb, *rest, "."])


def pairs(count: int) -> list[tuple[str, str]]:
    """So many sentences, all different in English."""
    rng, found = np.random.default_rng(7), dict[str, str]()
    while len(found) < count:
        english, german = sentence(rng)
        found.setdefault(english, german)
    return list(found.items())


def load(options: dict[str, Any], place: Place) -> Dataset:
    """The sentences; input ``source``.

    Raises:
        UserError: a package that text needs is not installed.
    """
    from dataclasses import replace

    from kdbench.base import subwords
    from kdbench.data.decode import sentences
    from kdbench.data.decode.corpus import Corpus, Options
    from kdbench.data.decode.texts import Part
    from kdbench.data.feed import corpora

    subwords.require()
    given = parse(PhrasesOptions, options, "phrases")
    every = pairs(given.train + given.test)
    parts = {"train": every[: given.train], "test": every[given.train :]}
    texts = {
        name: Part({"en": [one for one, _ in rows], "de": [other for _, other in rows]}, "row {}".format)
        for name, rows in parts.items()
    }
    about = Corpus("phrases", FACTS.about, FACTS.licence, ("en", "de"), ())
    own = Options(subwords=given.subwords, alone=given.alone)
    found = sentences.made(about, texts, None if given.alone else "en", "de", own, place, "generated")
    return replace(corpora.data_set(found), name="phrases", official=True)
