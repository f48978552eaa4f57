"""One question of one person: which method is worth its cost for my pair on my data. ``kdbench.distill()`` asks it."""

from kdbench.base.verbs import is_verb

is_verb(__name__, "kdbench.api.runs:distill")
