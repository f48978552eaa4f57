"""Sweeps: methods x tasks x seeds through Hydra's launchers, in rounds over what has no record.

``names`` reads lists of names, ``known`` what the index holds, ``devices`` finds where runs go, ``plan`` decides which,
``rounds`` sees to it that it has run, ``launch`` calls a launcher, ``job`` is what a launcher's worker does, ``runner``
and ``process`` are the two ends of the process that trains, ``progress`` and ``report`` show it all. Workers write
records; the parent alone opens the index.
"""

from kdbench.base.verbs import is_verb

is_verb(__name__, "kdbench.api.runs:sweep")
