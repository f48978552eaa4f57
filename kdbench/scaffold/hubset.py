"""Looks at a data set of the hub for what a data set file must say."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from kdbench.base import hub
from kdbench.base.errors import UserError
from kdbench.data.decode.columns import file_content
from kdbench.scaffold import aims, partnames
from kdbench.scaffold.aims import Aim
from kdbench.scaffold.found import SAMPLE, Found, looked, one_part


def on_hub(
    name: str, config: str | None, label: str | None, target: str | None, image: str | None
) -> tuple[str, Found]:
    """A data set of the hub, its first rows streamed; the revision that was looked at, and what is in it.

    Raises:
        UserError: not to be had, no pictures, or it is not plain which column is predicted.
    """
    import datasets  # slow to import, and needed here alone
    from huggingface_hub import HfApi

    try:
        revision = HfApi().dataset_info(name).sha
        splits = datasets.get_dataset_split_names(name, config, revision=revision)
        train, tests = partnames.pair(splits) or (splits[0], [])
        info = datasets.load_dataset_builder(name, config, revision=revision).info

        def some_of(split: str) -> list[dict[str, Any]]:
            stream = datasets.load_dataset(name, config, split=split, streaming=True, revision=revision)
            return list(stream.decode(False).take(SAMPLE))

        rows = some_of(train)
        others = {split: some_of(split) for split in tests}
    except Exception as error:  # the hub's client raises many types, all of which mean: not to be had now
        advice = "is the id right, are you logged in?"
        if hub.unreached(error):
            advice = "connect this machine, or get the files elsewhere and name them with --folder or --parquet"
        raise UserError(f"{name} cannot be had from the hub ({hub.why(error)}); {advice}") from error
    if not rows:
        raise UserError(f"{name}: its part {train} is empty")
    seen = pa.Table.from_pylist(rows)
    column = aims.picture_column(seen.schema, name, image)
    features = info.features or {}
    counts = {key: getattr(feature, "num_classes", None) for key, feature in features.items()}
    named = {key: count for key, count in counts.items() if count and key in seen.schema.names}
    chosen, number = aims.aim_column(
        seen.schema,
        name,
        label,
        target,
        named,
        lambda column: aims.repeats(seen[column].to_pylist()),
        texts=False,
    )
    values = [row[chosen] for row in rows]
    if (missing := next((n for n, value in enumerate(values) if value in (None, -1)), None)) is not None and not number:
        raise UserError(f"{name}: row {missing} has no label in column {chosen!r}; only labelled rows can be used")
    aim = (
        Aim(chosen, low=min(values), high=max(values)) if number else Aim(chosen, named.get(chosen) or max(values) + 1)
    )
    test = next((t for t, of in others.items() if any(row.get(chosen) not in (None, -1) for row in of)), None)
    notes = [f"{hidden}: its rows have no labels, so it is not the test part" for hidden in others if test != hidden][
        :1
    ]
    parts, every = {"train": train, "test": test or train}, None
    if test is None:
        parts, every, note = one_part(train)
        notes.append(note)
    about = info.splits[train].num_examples if info.splits else len(rows)
    some = ((f"{name} row {n}", file_content(row[column], f"{name} row {n}")) for n, row in enumerate(rows))
    about -= about // every if every else 0
    return str(revision), Found(parts, every, about, aim, column, *looked(some, notes))
