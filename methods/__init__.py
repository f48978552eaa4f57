"""One folder a method; ``kdbench.methods()`` lists them."""

from kdbench.base.verbs import is_verb

is_verb(__name__, "kdbench.api.names:methods")
