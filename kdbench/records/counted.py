"""The builds of a measurement that count: all but the first of a process.

The first build of both arms in a process runs faster than those after it, the method's more than plain's. In the 125
published measurements of protocol 2 with one phase its ratio lies below the mean of the four others in 82 %, by 1.5 %
in the median; in later phases, whose first build runs after all that is probed of the phase before, in 19 of 22; the
four others show no trend. Builds that differ in kind make no t-interval, so from protocol 3 on a record does not hold
the first. Those of protocol 2 do, and their own figures (``step_ratio``, ``ci95``, ``step_ms``) count it; the index,
the board and costs leave it out, by this module.
"""

from __future__ import annotations

from functools import lru_cache

from kdbench.records.files import Record
from kdbench.records.schema.overhead import Build, Measured
from kdbench.stats.step_ratio import RatioEstimate, estimate_ratio, weighted_ratio

FIRST_KEPT = 2
"""The last protocol whose records hold the first build of a process."""
FEWEST = 2
"""Builds that an interval needs."""


def builds_of(builds: tuple[Build, ...], protocol_version: int) -> tuple[Build, ...]:
    """Those that count; two are both kept, for one alone has no interval."""
    return builds[1:] if protocol_version <= FIRST_KEPT and len(builds) > FEWEST else builds


def estimate(block: Measured) -> RatioEstimate:
    """Ratio, interval and step times of the builds that count."""
    phases = [(phase.steps, phase.builds) for phase in block.phases] or [(1, block.builds)]
    return _weighted(tuple((steps, builds_of(builds, block.protocol_version)) for steps, builds in phases))


def step_ms(block: Measured) -> dict[str, float]:
    """Name of each phase to the step time of the method; {} of a method of one phase."""
    return {
        phase.name: estimate_ratio(builds_of(phase.builds, block.protocol_version)).method_ms for phase in block.phases
    }


def as_stated(record: Record) -> Record:
    """A record whose measurement counts every build it holds, as its own figures do."""
    block = record.measured
    if block is None or block.protocol_version > FIRST_KEPT:
        return record
    whole = block.model_copy(update={"protocol_version": FIRST_KEPT + 1})
    return record.model_copy(update={"overhead": whole})


@lru_cache(maxsize=10_000)
def _weighted(phases: tuple[tuple[int, tuple[Build, ...]], ...]) -> RatioEstimate:
    """All seeds of a cell hold the same builds."""
    return weighted_ratio(phases)
