"""A measured quantity is stated once: terminal, run page, costs and columns say what its field says."""

from __future__ import annotations

import records as factory

from kdbench.leaderboard.tables.columns import COLUMNS
from kdbench.leaderboard.views.overview import _COSTS
from kdbench.leaderboard.views.run_overhead import overhead_facts
from kdbench.records.schema.overhead import PARTS, QUANTITIES, Measured
from kdbench.terminal import tables


def _block():
    block = Measured.model_validate(factory.make_overhead("0" * 32, 2.0), strict=False)
    full = {
        name: 5.0 for name, value in block.model_dump().items() if value is None and name not in ("energy", "contended")
    }
    return block.model_dump() | full


def test_every_quantity_is_read_everywhere():
    block = _block()
    printed = tables.overhead(block, "")
    labels = list(printed.columns[0].cells)
    page = [name for name, _ in overhead_facts(block, block)]
    heads = [cost.head for cost in _COSTS]
    for field, said in QUANTITIES.items():
        assert said.part in PARTS
        assert said.name or said.head
        assert any(label.startswith(said.name or said.head) for label in labels)
        if said.name and said.part not in ("timing", "energy"):
            assert said.name in page, field
        if said.head and field != "step_ratio":
            assert said.head in heads, field


def test_a_column_explains_its_quantity_in_the_fields_words():
    abouts = {column.about for column in COLUMNS}
    assert {said.about for said in QUANTITIES.values() if said.about} <= abouts
