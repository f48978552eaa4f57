"""The result record's blocks: one run of one method on one task with one seed on one device.

Units are in the names, numbers are finite, nothing unknown is accepted. ``kdbench.records.files`` reads and writes.
"""

from kdbench.records.schema.asked import ComputeMatch, DataUsed, MethodUsed, Paper, Protocol, SearchUsed, TaskUsed
from kdbench.records.schema.machine import Environment, Flags, Gpu
from kdbench.records.schema.networks import Ensemble, Models, Net, Teacher, TrainingCost
from kdbench.records.schema.origin import Identity, PluginUsed, Provenance
from kdbench.records.schema.outcome import CurvePoint, Deploy, Digest, ExternalScore, Failure, Metrics, StageCost
from kdbench.records.schema.record import MAX_CURVE, Record
from kdbench.records.schema.side import SideFile, Verification, Withdrawn
from kdbench.records.schema.version import SCHEMA_VERSION

__all__ = [
    "MAX_CURVE", "SCHEMA_VERSION", "ComputeMatch", "CurvePoint", "DataUsed", "Deploy", "Digest", "Ensemble",
    "Environment", "ExternalScore", "Failure", "Flags", "Gpu", "Identity", "MethodUsed", "Metrics", "Models", "Net",
    "Paper", "PluginUsed", "Protocol", "Provenance", "Record", "SearchUsed", "SideFile", "StageCost", "TaskUsed",
    "Teacher", "TrainingCost", "Verification", "Withdrawn",
]  # fmt: skip
