"""Which pairs of a corpus belong to a task, and the symbols of their sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from kdbench.base import subwords
from kdbench.base.errors import UserError
from kdbench.data.decode.corpus import Options
from kdbench.data.decode.place import Place
from kdbench.data.decode.texts import Part


def chosen(part: str, texts: Part, options: Options, place: Place) -> list[int]:
    """Rows of the task: those of so many words, none with an empty side.

    Raises:
        UserError: an empty side that may not be left out, or no row is there; names file and row.
    """
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
        few = "" if options.words is None else f" of at most {options.words} words"
        raise UserError(f"{texts.at(0)}: no {part} pair{few} is there")
    return found


def given_file(vocabulary: str | None) -> bytes | None:
    """The file of a vocabulary that an option names, None without one."""
    if vocabulary is None:
        return None
    if vocabulary.startswith(subwords.HUB):
        return subwords.borrowed(vocabulary.removeprefix(subwords.HUB))
    return subwords.given(Path(vocabulary).expanduser())


def vocabularies(lines: Mapping[str, list[str]], options: Options, given: bytes | None) -> dict[str, bytes]:
    """Of each side the file of its vocabulary."""
    if given is not None:
        return dict.fromkeys(lines, given)
    if options.joint:
        return dict.fromkeys(
            lines, subwords.trained([text for side in lines.values() for text in side], options.subwords)
        )
    return {side: subwords.trained(texts, options.subwords) for side, texts in lines.items()}


def fit(
    part: str, texts: Part, chosen: Sequence[int], rows: Mapping[str, Sequence[Sequence[int]]],
    sides: Mapping[str, str], options: Options, place: Place,
) -> list[int]:  # fmt: skip
    """Places of the chosen rows that have symbols on each side, and no more than there may be.

    Args:
        part: its name.
        texts: all its rows.
        chosen: rows of them.
        rows: of each side the symbols of the chosen rows.
        sides: of each side its column.

    Raises:
        UserError: a row that has none or too many, where it may not be left out; names file and row.
    """
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
