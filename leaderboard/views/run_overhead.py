"""What a run's page says of its measured overhead."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from kdbench.leaderboard.draw.charts import curve
from kdbench.leaderboard.draw.numbers import NONE, between, si, significant, times
from kdbench.leaderboard.model.source import IndexRow
from kdbench.records.counted import FIRST_KEPT
from kdbench.records.schema.overhead import PARTS, QUANTITIES

Pairs = list[tuple[str, str]]
"""Word and value, line by line."""


def overhead_facts(over: dict[str, Any] | None, counted: IndexRow | None) -> Pairs:
    """A line of each quantity that was measured; ``counted``: as of :func:`kdbench.leaderboard.views.run.run_view`."""
    if over is None or counted is None:
        return []
    low, high = over["ci95"]
    flags = [
        word
        for word, on in (
            ("quick", over["mode"] == "quick"),
            ("not converged", not over["converged"]),
            ("noisy machine", over["noise_flag"]),
            ("contended", over["contended"]),
        )
        if on
    ]
    pairs = [
        ("Step-time ratio", f"{times(over['step_ratio'])} {between(low, high, 3)}"),
        *(_as_counted(counted) if over["protocol_version"] <= FIRST_KEPT else []),
        ("Step", f"{significant(over['step_ms'])} ms, plain {significant(over['plain_step_ms'])} ms"),
        ("Throughput", f"{si(over['throughput_samples_s'])} samples/s, {over['views_per_sample']} view(s) a sample"),
        (
            "Measured",
            f"{over['mode']}, batch {over['batch']}, {over['device']}, {over['dtype']}"
            + (f", flags: {', '.join(flags)}" if flags else ""),
        ),
    ]
    for part in PARTS[1:-1]:  # the lines above hold the timing, and the energy has one of its own below
        pairs += [
            (said.name, f"{significant(over[field])} {said.unit}" if said.unit else si(over[field]))
            for field, said in QUANTITIES.items()
            if said.part == part and said.name and over[field] is not None
        ]
    if over["uncounted_ops"]:
        pairs.append(("Operations without a FLOP formula", ", ".join(over["uncounted_ops"])))
    if over["board"]:
        pairs.append(("GPU while timed", _board(over["board"])))
    if over["energy"]:
        energy = over["energy"]
        trust = "" if energy["valid"] else ", not trustworthy"
        pairs.append(("Energy", f"{significant(energy['j_per_step'])} J a step ({energy['source']}{trust})"))
    elif over.get("no_energy"):
        pairs.append(("Energy", f"not read: {over['no_energy']}"))
    return pairs


def _as_counted(counted: IndexRow) -> Pairs:
    """The ratio as tables have it, of a record that holds the first build of the process among the others."""
    interval = between(counted["lo"], counted["hi"], 3)
    return [("Without the first build, as in tables", f"{times(counted['step_ratio'])} {interval}")]


def _board(states: list[dict[str, int | None]]) -> str:
    """Range of clock and temperature over the builds."""

    def span(field: str, unit: str) -> str:
        told = [value for state in states if (value := state[field]) is not None]
        return f"{min(told)} to {max(told)} {unit}" if told else NONE

    return f"{span('sm_clock_mhz', 'MHz')}, {span('temperature_c', '°C')}"


def _builds(over: dict[str, Any] | None) -> list[tuple[str, int, list[list[float]]]]:
    """(phase, number of the build, its timing pairs)."""
    if over is None:
        return []
    phases = [("all", over["builds"])] if over["builds"] else [(p["name"], p["builds"]) for p in over["phases"]]
    return [(name, number, pairs) for name, builds in phases for number, pairs in enumerate(builds, 1)]


def timing_drawn(over: dict[str, Any] | None) -> Markup | None:
    """The ratio of every timed pair, None of fewer than two."""
    ratios = [method / plain for _, _, pairs in _builds(over) for plain, method in pairs]
    if len(ratios) < 2:
        return None
    return curve(
        "timing",
        list(range(1, len(ratios) + 1)),
        ratios,
        title="Step-time ratio of every timed pair",
        label="method / plain",
        x_label="pair of blocks",
    )


def timing_pairs(over: dict[str, Any] | None) -> list[tuple[int, tuple[str, ...]]]:
    """The drawing as a table: number of the pair, then phase, build, milliseconds of plain and method, ratio."""
    every = [(name, build, plain, method) for name, build, pairs in _builds(over) for plain, method in pairs]
    return [
        (i, (name, str(build), significant(plain, 4), significant(method, 4), significant(method / plain, 4)))
        for i, (name, build, plain, method) in enumerate(every, 1)
    ]
