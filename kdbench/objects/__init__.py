"""Python objects in memory as methods, nets and tasks: each becomes a folder or file of the home, named by its content.

What was made is known by its path, like a folder of one's own (:mod:`kdbench.specs.local`): in an order to another
process, in a resumed run, in a record. A changed object has another folder, and so another identity.
"""

from __future__ import annotations

from kdbench.objects.method import method
from kdbench.objects.net import net, session_nets
from kdbench.objects.task import task

__all__ = ["method", "net", "session_nets", "task"]
