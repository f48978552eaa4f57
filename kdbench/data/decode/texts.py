"""Texts of a corpus from its files or the hub, each line known by file and row.

A part of a corpus is ``<part>.parquet`` or ``<part>.csv`` with a column a language, or text files ``<part>.<language>``
of a sentence a line.
"""

from __future__ import annotations

import codecs
import io
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kdbench.base import hub
from kdbench.base.errors import UserError, nearest
from kdbench.base.files import sha256
from kdbench.data.decode.corpus import Corpus
from kdbench.data.decode.sheets import sheet


class Part(NamedTuple):
    """Texts of a part, a list a column, and where the rows of it stand."""

    columns: Mapping[str, list[str]]
    at: Callable[[int], str]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


def read(corpus: Corpus, folder: Path | None, columns: Sequence[str]) -> dict[str, Part]:
    """The texts of each part of a corpus.

    Args:
        folder: where its files lie; None reads the hub.
        columns: those wanted.

    Raises:
        UserError: a file is not there or not readable, lacks a column, or holds what is no text; names file and row.
    """
    found = {
        part: _joined([_read(corpus, folder, name, columns) for name in names]) for part, names in corpus.parts.items()
    }
    if empty := next((part for part, texts in found.items() if not len(texts)), None):
        raise UserError(f"{folder or corpus.name}: its {empty} part holds no pair; put some there")
    return found


def digest(part: Part) -> str:
    """sha256 over the texts of a part, whatever files they came in."""
    return sha256(json.dumps([list(part.columns[name]) for name in sorted(part.columns)], ensure_ascii=False))


def _read(corpus: Corpus, folder: Path | None, name: str, columns: Sequence[str]) -> Part:
    """A part's texts."""
    if folder is None:
        return _from_hub(corpus, name, columns)
    table, sheet = folder / f"{name}.parquet", folder / f"{name}.csv"
    if table.is_file():
        return _parquet(table, columns)
    if sheet.is_file():
        return _sheet(sheet, columns)
    lines = {column: folder / f"{name}.{column}" for column in columns}
    if all(path.is_file() for path in lines.values()):
        return _lines(lines)
    raise UserError(
        f"{folder}: no {name}.parquet, no {name}.csv, and no {' and '.join(path.name for path in lines.values())}; "
        f"put one of them there"
    )


def _parquet(path: Path, columns: Sequence[str]) -> Part:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        _there(path, columns, schema.names)
        table = pq.read_table(path, columns=list(columns))
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path}: cut off or not readable ({str(error).splitlines()[0]}); get the file again"
        ) from error
    at = _at(path, "row", 0)
    return Part({column: _texts(table.column(column), column, at) for column in columns}, at)


def _texts(column: Iterable[Any], name: str, at: Callable[[int], str]) -> list[str]:
    """The texts of an Arrow column."""
    found: list[str] = []
    for number, value in enumerate(column):
        try:
            text = value.as_py()
        except UnicodeDecodeError as error:
            raise UserError(f"{at(number)}, column {name!r}: not UTF-8 ({error.reason}); write it as UTF-8") from error
        if text is not None and not isinstance(text, str):
            raise UserError(f"{at(number)}, column {name!r}: {type(text).__name__} {text!r}, a text is expected")
        found.append(text or "")
    return found


def _decoded(path: Path) -> list[str]:
    """The lines of a text file, without the mark that some editors begin it with."""
    found = []
    content = path.read_bytes().removeprefix(codecs.BOM_UTF8).removesuffix(b"\n")
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            found.append(line.decode("utf-8").rstrip("\r"))
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path} line {number}: byte {line[error.start]:#04x} is not UTF-8; write the file as UTF-8"
            ) from error
    return found


def _sheet(path: Path, columns: Sequence[str]) -> Part:
    names, rows = sheet(path, io.StringIO("\n".join(_decoded(path))))
    _there(path, columns, names)
    found: dict[str, list[str]] = {column: [] for column in columns}
    lines = []
    for line, row in rows:
        lines.append(line)
        for column in columns:
            if (text := row[column]) is None:
                raise UserError(f"{path} line {line}: no {column!r}; every row has all columns")
            found[column].append(text)
    return Part(found, lambda number: f"{path} line {lines[number]}")


def _lines(paths: Mapping[str, Path]) -> Part:
    found = {column: _decoded(path) for column, path in paths.items()}
    counts = {paths[column]: len(lines) for column, lines in found.items()}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{path} has {count} lines" for path, count in counts.items())
        raise UserError(f"{said}: line {min(counts.values()) + 1} has one side only; give every line its pair")
    first = next(iter(paths.values()))
    return Part(found, _at(first, "line", 1))


def _at(path: Path, word: str, begin: int) -> Callable[[int], str]:
    return lambda number: f"{path} {word} {number + begin}"


def _there(path: Path, columns: Sequence[str], names: Sequence[str]) -> None:
    for column in columns:
        if column not in names:
            raise UserError(
                f"{path}: column {column!r} is missing{nearest(column, names)}; there are {', '.join(names) or 'none'}"
            )
        if list(names).count(column) > 1:
            raise UserError(f"{path}: column {column!r} stands there {list(names).count(column)} times; leave one")


def _from_hub(corpus: Corpus, name: str, columns: Sequence[str]) -> Part:
    folder = f"{corpus.folders[0]}/{{{','.join(n for names in corpus.parts.values() for n in names)}}}.parquet"
    how = f"put <data folder>/{folder} with columns {', '.join(columns)}, and name the data folder with --data"
    if corpus.hub is None:
        raise UserError(f"{corpus.name} is not at hand, and it is not on the hub; {how}")
    import datasets  # slow to import, and needed at the first use alone

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries would stand before the one line
    id, config, revision = corpus.hub
    try:
        table = datasets.load_dataset(id, config, split=name, revision=revision)
    except Exception as error:  # the hub's client raises many types, all of which mean: not to be had now
        raise UserError(f"{corpus.name} is not at hand ({hub.why(error)}): hub id {id}; or {how}") from error
    at = _at(Path(f"{id} {name}"), "row", 0)
    if corpus.nested is not None:
        pairs = table[corpus.nested]
        return Part({column: [pair[column] or "" for pair in pairs] for column in columns}, at)
    return Part({column: [text or "" for text in table[column]] for column in columns}, at)


def _joined(parts: Sequence[Part]) -> Part:
    """Several files as one part."""
    columns = {name: [text for part in parts for text in part.columns[name]] for name in parts[0].columns}

    def at(number: int) -> str:
        for part in parts:
            if number < len(part):
                return part.at(number)
            number -= len(part)
        raise IndexError(number)

    return Part(columns, at)
