"""A corpus as rows of symbols, decoded once: rows and vocabularies lie under the hash of what they are made of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.base import subwords
from kdbench.base.cache import Damaged, build_once
from kdbench.base.errors import UserError
from kdbench.base.files import canonical_json, read_facts, sha256, write_atomic
from kdbench.data.decode import pairs
from kdbench.data.decode.corpus import SOURCE, TARGET, Corpus, Options
from kdbench.data.decode.place import Place, find_folder
from kdbench.data.decode.texts import Part, digest, read

if TYPE_CHECKING:
    from kdbench.contract import Rows, Vocabulary

DECODER = 1
"""Raised when the same texts would become other rows."""
FACTS, ROWS = "facts.json", "{part}.safetensors"


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
    source = None if options.alone else options.source or corpus.columns[0]
    wanted = [name for name in (source, target) if name is not None]
    if source == target:
        raise UserError(f"data.options: source and target are both {target!r}; name two columns of {corpus.name}")
    found = find_folder(place.folder, corpus.folders)
    texts = read(corpus, found, wanted)
    online = found is None and corpus.hub is not None
    origin = f"hub:{corpus.hub[0]}" if online and corpus.hub is not None else f"folder:{corpus.folders[0]}"
    return made(corpus, texts, source, target, options, place, origin)


def made(
    corpus: Corpus,
    texts: Mapping[str, Part],
    source: str | None,
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
    given = pairs.given_file(options.vocabulary)
    key = {
        "content": content, "read": source, "target": target, "options": options.model_dump(exclude={"vocabulary"}),
        "vocabulary": None if given is None else sha256(given), "decoder": DECODER, "tokenizers": _version(),
    }  # fmt: skip
    folder = place.cache / f"{corpus.name}-{sha256(canonical_json(key))[:32]}"

    def build(path: Path) -> None:
        _build(path, texts, source, target, options, given, place)

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


def _version() -> str:
    from importlib.metadata import version

    return version("tokenizers")


def _build(
    path: Path, texts: Mapping[str, Part], source: str | None, target: str, options: Options, given: bytes | None,
    place: Place,
) -> None:  # fmt: skip
    for left in path.iterdir():  # of a decoder that was killed
        left.unlink()
    chosen = {part: pairs.chosen(part, texts[part], options, place) for part in texts}

    def lines(part: str, column: str) -> list[str]:
        return [texts[part].columns[column][row] for row in chosen[part]]

    sides = {SOURCE: source, TARGET: target} if source is not None else {TARGET: target}
    files = pairs.vocabularies({side: lines("train", column) for side, column in sides.items()}, options, given)
    for part in texts:
        made_rows = {side: subwords.encoder(files[side])(lines(part, column)) for side, column in sides.items()}
        fit = pairs.fit(part, texts[part], chosen[part], made_rows, sides, options, place)
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
        facts = read_facts(folder / FACTS, "vocabularies")
        names = [name for name in facts["vocabularies"] if (folder / f"{name}.json").is_file()]
        wrong = [
            name
            for name in names
            if sha256((folder / f"{name}.json").read_bytes()) != facts["vocabularies"][name]["sha256"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(str(error)) from error
    if wrong or not names:
        raise Damaged("its vocabulary is not the one that it was made with")
