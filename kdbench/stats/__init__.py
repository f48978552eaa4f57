"""Statistics of the board: NumPy and SciPy only, SciPy imported where it is used.

Scores are last-epoch metrics. Nothing missing is imputed and no NaN reaches SciPy: a :class:`Suite` refuses numbers
that are not finite and names the kind of every missing cell; :func:`common_set` takes the complete part of it.
"""

from kdbench.stats.aggregate import (
    BOOTSTRAP_WARNING,
    CriticalDifference,
    Estimate,
    Friedman,
    critical_difference,
    friedman,
    iqm,
    mean_ranks,
    mean_ranks_with_failures,
    nemenyi_cd,
    probability_of_improvement,
    win_rates,
)
from kdbench.stats.cell import CellStat, SeedScores, clipped, clipped_difference, item_noise, summarise, t_quantile
from kdbench.stats.gap import Gap, gap_recovered, total_gap
from kdbench.stats.layout import Common, Direction, Layout, Suite, TaskScale, common_set
from kdbench.stats.missing import Missing
from kdbench.stats.paired import PairedDelta, paired_delta, verdict
from kdbench.stats.pooled import PooledDelta, pooled_delta
from kdbench.stats.spearman import spearman
from kdbench.stats.ties import TieGroups, tie_groups
from kdbench.stats.told import Told, told
from kdbench.stats.with_best import WithBest, with_best

STATISTICS_VERSION = 5
"""Bumped whenever the same records would give other numbers, groups or words; printed by the board."""

__all__ = [
    "BOOTSTRAP_WARNING",
    "STATISTICS_VERSION",
    "CellStat",
    "Common",
    "CriticalDifference",
    "Direction",
    "Estimate",
    "Friedman",
    "Gap",
    "Layout",
    "Missing",
    "PairedDelta",
    "PooledDelta",
    "SeedScores",
    "Suite",
    "TaskScale",
    "TieGroups",
    "Told",
    "WithBest",
    "clipped",
    "clipped_difference",
    "common_set",
    "critical_difference",
    "friedman",
    "gap_recovered",
    "iqm",
    "item_noise",
    "mean_ranks",
    "mean_ranks_with_failures",
    "nemenyi_cd",
    "paired_delta",
    "pooled_delta",
    "probability_of_improvement",
    "spearman",
    "summarise",
    "t_quantile",
    "tie_groups",
    "told",
    "total_gap",
    "verdict",
    "win_rates",
    "with_best",
]
