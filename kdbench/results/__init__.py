"""What records say: cells, differences, costs, claims. ``kdbench.results()`` reads them."""

from kdbench.base.verbs import is_verb

is_verb(__name__, "kdbench.api.results:results")
