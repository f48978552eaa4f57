"""``kdbench new``: the files of a new method, task or net, as one that runs as it stands."""

from __future__ import annotations

from kdbench.scaffold.files import Made
from kdbench.scaffold.method import new_method
from kdbench.scaffold.net import new_net
from kdbench.scaffold.task import new_task

__all__ = ["Made", "new_method", "new_net", "new_task"]
