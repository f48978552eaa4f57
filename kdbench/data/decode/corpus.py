"""Corpora: pairs of sentences, or sentences alone, from files of a folder or the hub, as symbols of a vocabulary.

A part of a corpus is ``<part>.parquet`` or ``<part>.csv`` with a column a language, or text files ``<part>.<language>``
of a sentence a line. Decoded rows and the files of their vocabularies are kept under the hash of the content.
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from kdbench.base import hub, subwords
from kdbench.base.cache import Damaged, build_once
from kdbench.base.errors import UserError, nearest
from kdbench.base.files import canonical_json, sha256, write_atomic
from kdbench.data.decode.place import Place, find_folder

if TYPE_CHECKING:
    from kdbench.contract import Rows, Vocabulary

DECODER = 1
"""Raised when the same texts would become other rows."""
SOURCE, TARGET = "source", "target"
FACTS, ROWS = "facts.json", "{part}.safetensors"


@dataclass(frozen=True)
class Corpus:
    """What is known of a corpus.

    Attributes:
        columns: its languages; the first is read and the last is written unless options say otherwise.
        folders: names below the user's data folder, the first that exists is read.
        hub: id on the hub, its configuration and revision; empty for none.
        nested: on the hub both columns stand in one, of this name.
        parts: files of the training and of the test part.
        megabytes: about what its files take.
        content: of each part sha256 over its pairs, of the columns in order; empty where it is not known.
    """

    name: str
    about: str
    licence: str
    columns: tuple[str, ...]
    folders: tuple[str, ...]
    hub: tuple[str, str | None, str | None] | None = None
    nested: str | None = None
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"train": ("train",), "test": ("test",)})
    megabytes: float = 1.0
    content: Mapping[str, str] = field(default_factory=dict)


class Options(BaseModel):
    """``data.options`` of a corpus.

    Attributes:
        source, target: columns; of the corpus' own where unset. ``source`` is what is read.
        alone: nothing is read, the target column is all there is, as for language models.
        words: pairs of which one side has more words are no part of the task; unset, all are.
        subwords: symbols of each vocabulary at most.
        joint: one vocabulary for both sides.
        vocabulary: file of `tokenizers` that makes both sides' symbols, instead of one trained here; ``hf:<id>`` or
            ``hf:./FOLDER`` is that of a checkpoint, which a teacher ``hf:`` of the same then reads.
        longest: symbols of a sentence at most.
        unfit: training pairs that are empty or too long are an error that names them, or left out. Test pairs never
            are, but for the empty lines of texts that stand alone, which hold nothing to be scored.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    source: str | None = None
    target: str | None = None
    alone: bool = False
    words: int | None = Field(default=None, ge=1)
    subwords: int = Field(default=1000, ge=8, le=200_000)
    joint: bool = False
    vocabulary: str | None = None
    longest: int = Field(default=256, ge=2, le=8192)
    unfit: Literal["refuse", "drop"] = "refuse"


class Part(NamedTuple):
    """Texts of a part, a list a column, and where the rows of it stand."""

    columns: Mapping[str, list[str]]
    at: Callable[[int], str]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


def state(corpus: Corpus, folder: Path | None) -> tuple[Literal["found", "hub", "absent"], str]:
    """Whether a corpus is at hand, and where it is or what to do."""
    if (found := find_folder(folder, corpus.folders)) is not None:
        return "found", f"in {found.name}/ of the data folder"
    if corpus.hub is not None:
        return "hub", f"{corpus.hub[0]} on the hub"
    return "absent", f"put it into {corpus.folders[0]}/ of the data folder"


@dataclass(frozen=True)
class Found:
    """A corpus as rows.

    Attributes:
        rows: of each part, input ``source`` and target sentences.
        vocabularies: of ``source`` and ``target``.
        official: whether these are the texts that the name stands for.
        origin: where they came from.
    """

    name: str
    rows: Mapping[str, Rows]
    vocabularies: Mapping[str, Vocabulary]
    official: bool
    origin: str


def load(corpus: Corpus, options: Options, place: Place) -> Found:
    """The rows: input ``source``, of no symbols where nothing is read, and target sentences.

    Raises:
        UserError: the corpus is not at hand, or has a row that cannot be; names file and row.
    """
    subwords.require()
    target = options.target or corpus.columns[-1]
    read = None if options.alone else options.source or corpus.columns[0]
    wanted = [name for name in (read, target) if name is not None]
    if read == target:
        raise UserError(f"data.options: source and target are both {target!r}; name two columns of {corpus.name}")
    found = find_folder(place.folder, corpus.folders)
    texts = {
        part: _joined([_read(corpus, found, name, wanted) for name in names]) for part, names in corpus.parts.items()
    }
    online = found is None and corpus.hub is not None
    origin = f"hub:{corpus.hub[0]}" if online and corpus.hub is not None else f"folder:{corpus.folders[0]}"
    return made(corpus, texts, read, target, options, place, origin)


def made(
    corpus: Corpus,
    texts: Mapping[str, Part],
    read: str | None,
    target: str,
    options: Options,
    place: Place,
    origin: str,
) -> Found:
    """The rows of some texts; see :func:`load`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from kdbench.contract import Vocabulary

    content = {part: digest(part_texts) for part, part_texts in texts.items()}
    given = _given(options.vocabulary)
    key = {
        "content": content, "read": read, "target": target, "options": options.model_dump(exclude={"vocabulary"}),
        "vocabulary": None if given is None else sha256(given), "decoder": DECODER, "tokenizers": _version(),
    }  # fmt: skip
    folder = place.cache / f"{corpus.name}-{sha256(canonical_json(key))[:32]}"

    def build(path: Path) -> None:
        _build(path, texts, read, target, options, given, place)

    build_once(folder, _check, build, place.progress.say)
    facts = json.loads((folder / FACTS).read_text())
    try:
        rows = {part: _rows(load_file(folder / ROWS.format(part=part))) for part in texts}
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(f"{folder}: not readable ({error}); remove the folder, and it is made again") from error
    known = {name: Vocabulary(int(one["size"]), one["sha256"]) for name, one in facts["vocabularies"].items()}
    official = bool(corpus.content) and all(content[part] == one for part, one in corpus.content.items())
    name = corpus.name if official else f"{corpus.name}-other-{sha256(canonical_json(content))[:8]}"
    return Found(name, rows, known, official, origin)


def _given(vocabulary: str | None) -> bytes | None:
    """The file of a vocabulary that an option names, None without one."""
    if vocabulary is None:
        return None
    if vocabulary.startswith(subwords.HUB):
        return subwords.borrowed(vocabulary.removeprefix(subwords.HUB))
    return subwords.given(Path(vocabulary).expanduser())


def _version() -> str:
    from importlib.metadata import version

    return version("tokenizers")


# Files


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
    """The lines of a text file."""
    found = []
    for number, line in enumerate(path.read_bytes().removesuffix(b"\n").split(b"\n"), start=1):
        try:
            found.append(line.decode("utf-8").rstrip("\r"))
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path} line {number}: byte {line[error.start]:#04x} is not UTF-8; write the file as UTF-8"
            ) from error
    return found


def _sheet(path: Path, columns: Sequence[str]) -> Part:
    reader = csv.DictReader(io.StringIO("\n".join(_decoded(path))))
    _there(path, columns, list(reader.fieldnames or []))
    found: dict[str, list[str]] = {column: [] for column in columns}
    lines = []
    for row in reader:
        lines.append(reader.line_num)
        for column in columns:
            if row[column] is None:
                raise UserError(f"{path} line {reader.line_num}: no {column!r}; every row has all columns")
            found[column].append(row[column])
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
                f"{path}: column {column!r} is missing{nearest(column, names)}; there are {', '.join(names)}"
            )


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


def digest(part: Part) -> str:
    """sha256 over the texts of a part, whatever files they came in."""
    return sha256(json.dumps([list(part.columns[name]) for name in sorted(part.columns)], ensure_ascii=False))


# Rows


def _build(
    path: Path, texts: Mapping[str, Part], read: str | None, target: str, options: Options, given: bytes | None,
    place: Place,
) -> None:  # fmt: skip
    for left in path.iterdir():  # of a decoder that was killed
        left.unlink()
    chosen = {part: _chosen(part, texts[part], options, place) for part in texts}

    def lines(part: str, column: str) -> list[str]:
        return [texts[part].columns[column][row] for row in chosen[part]]

    sides = {SOURCE: read, TARGET: target} if read is not None else {TARGET: target}
    files = _vocabularies({side: lines("train", column) for side, column in sides.items()}, options, given)
    for part in texts:
        made_rows = {side: subwords.encoder(files[side])(lines(part, column)) for side, column in sides.items()}
        fit = _fit(part, texts[part], chosen[part], made_rows, sides, options, place)
        kept = {side: [rows[place] for place in fit] for side, rows in made_rows.items()}
        written = lines(part, target)
        _save(path / ROWS.format(part=part), kept, [written[place] for place in fit], files[TARGET])
    facts = {
        "vocabularies": {
            name: {"size": subwords.size(content), "sha256": sha256(content)}
            for name, content in {SOURCE: files[TARGET], **files}.items()
        }
    }
    for name, content in files.items():
        write_atomic(path / f"{name}.json", content)
    write_atomic(path / FACTS, json.dumps(facts, indent=1))


def _chosen(part: str, texts: Part, options: Options, place: Place) -> list[int]:
    """Rows of the task: those of so many words."""
    found, empty = [], []
    for row in range(len(texts)):
        sides = {name: lines[row] for name, lines in texts.columns.items()}
        if blank := next((name for name, text in sides.items() if not text.strip()), None):
            if (part == "test" and not options.alone) or options.unfit == "refuse":
                raise UserError(
                    f"{texts.at(row)}, {blank}: an empty line; leave the pair out"
                    + (", or set data.options.unfit=drop" if part == "train" else "")
                )
            empty.append(row)
        elif options.words is None or all(len(text.split()) <= options.words for text in sides.values()):
            found.append(row)
    if empty:
        place.progress.say(f"{len(empty)} {part} pairs with an empty side are left out, {texts.at(empty[0])} first")
    if not found:
        raise UserError(
            f"{texts.at(0) if len(texts) else part}: no {part} pair of at most {options.words} words is there"
        )
    return found


def _vocabularies(lines: Mapping[str, list[str]], options: Options, given: bytes | None) -> dict[str, bytes]:
    """Of each side the file of its vocabulary."""
    if given is not None:
        return dict.fromkeys(lines, given)
    if options.joint:
        return dict.fromkeys(
            lines, subwords.trained([text for side in lines.values() for text in side], options.subwords)
        )
    return {side: subwords.trained(texts, options.subwords) for side, texts in lines.items()}


def _fit(
    part: str, texts: Part, chosen: Sequence[int], rows: Mapping[str, Sequence[Sequence[int]]],
    sides: Mapping[str, str], options: Options, place: Place,
) -> list[int]:  # fmt: skip
    """Places of the chosen rows that have symbols on each side, and no more than there may be."""
    found, left = [], []
    for number, row in enumerate(chosen):
        wrong = None
        for side, symbols in rows.items():
            if not symbols[number]:
                wrong = f"{sides[side]}: not one symbol of the vocabulary; leave the pair out"
            elif len(symbols[number]) + 1 > options.longest:
                wrong = (
                    f"{sides[side]}: {len(symbols[number])} symbols and their end, at most {options.longest} go; raise "
                    "data.options.longest, or leave the pair out"
                )
        if wrong is None:
            found.append(number)
        elif part == "test" or options.unfit == "refuse":
            drop = ", or set data.options.unfit=drop" if part == "train" else ""
            raise UserError(f"{texts.at(row)}, {wrong}{drop}")
        else:
            left.append(row)
    if left:
        place.progress.say(f"{len(left)} {part} pairs do not fit and are left out, {texts.at(left[0])} first")
    return found


def _save(path: Path, rows: Mapping[str, list[list[int]]], texts: Sequence[str], vocabulary: bytes) -> None:
    import torch
    from safetensors.torch import save

    from kdbench.contract import Sentences
    from kdbench.contract.sentences import EOS, pad_rows

    y = Sentences.of(rows[TARGET], texts, vocabulary)
    read = [[*row, EOS] for row in rows[SOURCE]] if SOURCE in rows else [[] for _ in texts]
    tensors = {SOURCE: pad_rows(read), **y.tensors()}
    write_atomic(
        path,
        save(
            {
                name: held.contiguous() if held.numel() else torch.empty(held.shape, dtype=held.dtype)
                for name, held in tensors.items()
            }
        ),
    )


def _rows(tensors: Mapping[str, object]) -> Rows:
    from kdbench.contract import Ragged, Rows, Sentences

    held: dict[str, object] = dict(tensors)
    texts = Ragged(held["texts.values"], held["texts.counts"])  # type: ignore[arg-type]
    y = Sentences(held["symbols"], held["counts"], held["begins"], texts, held["subwords"])  # type: ignore[arg-type]
    return Rows({SOURCE: held[SOURCE]}, y)  # type: ignore[dict-item]


def _check(folder: Path) -> None:
    try:
        facts = json.loads((folder / FACTS).read_text())
        names = [name for name in facts["vocabularies"] if (folder / f"{name}.json").is_file()]
        wrong = [
            name
            for name in names
            if sha256((folder / f"{name}.json").read_bytes()) != facts["vocabularies"][name]["sha256"]
        ]
    except (OSError, ValueError, KeyError) as error:
        raise Damaged(str(error)) from error
    if wrong or not names:
        raise Damaged("its vocabulary is not the one that it was made with")
