"""Search of hyper-parameters on validation rows, as many trials for every method. ``kdbench.tune()`` makes it.

``space`` says what is searched and where, ``points`` which values are tried, ``search`` runs them and keeps what they
gave, ``report`` shows it. Trials are runs of a sweep: recorded, resumed, never run twice.
"""

from kdbench.base.verbs import is_verb

is_verb(__name__, "kdbench.api.runs:tune")
