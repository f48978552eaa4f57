"""The types a method adapter sees, and nothing else.

An adapter is one class derived from :class:`Method` in ``methods/<name>/adapter.py``. The engine knows no method by
name: what a method needs, trains and keeps is said with the types of this module.

Shapes use N for the rows of a batch before views, V for views, C for classes (or channels of a map), D for widths.
"""

from kdbench.contract.batch import At, Batch, Rows
from kdbench.contract.dense import Dense
from kdbench.contract.errors import NotApplicable
from kdbench.contract.maps import Maps
from kdbench.contract.method import Inner, Method
from kdbench.contract.needs import ALL_TEACHERS, ANY_TEACHER, TEACHER_INPUT, UNSHOWN, VALUES, Needs
from kdbench.contract.network import Network
from kdbench.contract.objects import Objects
from kdbench.contract.oriented import OrientedObjects
from kdbench.contract.out import Out, bits
from kdbench.contract.patches import Hide, grown, hidden_error, kept, lowest, patched, spread
from kdbench.contract.sentences import Sentences, Vocabulary
from kdbench.contract.stage import Group, Losses, Partners, Stage, Step, Terms, Update, Views
from kdbench.contract.targets import Kept, Placed, Ragged, Targets
from kdbench.contract.task import TaskInfo

__all__ = [
    "ALL_TEACHERS",
    "ANY_TEACHER",
    "TEACHER_INPUT",
    "UNSHOWN",
    "VALUES",
    "At",
    "Batch",
    "Dense",
    "Group",
    "Hide",
    "Inner",
    "Kept",
    "Losses",
    "Maps",
    "Method",
    "Needs",
    "Network",
    "NotApplicable",
    "Objects",
    "OrientedObjects",
    "Out",
    "Partners",
    "Placed",
    "Ragged",
    "Rows",
    "Sentences",
    "Stage",
    "Step",
    "Targets",
    "TaskInfo",
    "Terms",
    "Update",
    "Views",
    "Vocabulary",
    "bits",
    "grown",
    "hidden_error",
    "kept",
    "lowest",
    "patched",
    "spread",
]  # fmt: skip
