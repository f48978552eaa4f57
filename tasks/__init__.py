"""Task files; ``kdbench.tasks()`` reads them."""

from kdbench.base.verbs import is_verb

is_verb(__name__, "kdbench.api.names:tasks")
