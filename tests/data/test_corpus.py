"""Corpora from files: what they may be, and the one line on what they may not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdbench.base.errors import UserError
from kdbench.data import load
from kdbench.data.decode.place import Place
from kdbench.specs.data import Data

pytest.importorskip("tokenizers", reason="text is an extra: pip install 'kdbench[text]'")
pytest.importorskip("sacrebleu", reason="text is an extra: pip install 'kdbench[text]'")

EN = ["the dog sees the cat", "a cat sleeps", "the dog sleeps", "a dog sees a cat"]
DE = ["der Hund sieht die Katze", "eine Katze schläft", "der Hund schläft", "ein Hund sieht eine Katze"]


def corpus(folder: Path, form: str, train: Mapping[str, list[str]] | None = None, **parts: Any) -> Path:
    """A data folder with one corpus, ``mine``."""
    own = folder / "mine"
    own.mkdir(parents=True, exist_ok=True)
    both = {"en": EN, "de": DE}
    for part, columns in {"train": train or both, "test": parts.get("test", both)}.items():
        if form == "parquet":
            pq.write_table(pa.table(dict(columns)), own / f"{part}.parquet")
        elif form == "csv":
            rows = ["en,de", *(f'"{one}","{other}"' for one, other in zip(*columns.values(), strict=True))]
            (own / f"{part}.csv").write_text("\n".join(rows) + "\n")
        else:
            for name, lines in columns.items():
                (own / f"{part}.{name}").write_text("".join(f"{line}\n" for line in lines))
    return folder


def read(folder: Path, **options: Any) -> Any:
    given = {"folder": "mine", "source": "en", "target": "de", "subwords": 60, **options}
    return load(Data(source="parallel-text", options=given), Place(folder, folder / "cache"))


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        read(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("form", ["parquet", "csv", "txt"])
def test_three_forms_of_files_give_the_same_rows(form: str, tmp_path: Path) -> None:
    found = read(corpus(tmp_path, form))
    assert found.test.y.written() == DE
    assert found.train.x["source"].shape[0] == 4
    assert found.name.startswith("mine-other-")
    other = read(corpus(tmp_path / "again", "parquet"))
    assert found.identity() == other.identity()


@pytest.mark.parametrize("form", ["csv", "txt"])
def test_a_byte_order_mark_is_no_part_of_a_text(form: str, tmp_path: Path) -> None:
    folder = corpus(tmp_path, form)
    plain = read(folder).identity()
    for path in (folder / "mine").glob("t*.*"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read(folder).identity() == plain


def test_sentences_are_chosen_by_their_words(tmp_path: Path) -> None:
    folder = corpus(tmp_path, "txt")
    assert read(folder, words=3).test.y.written() == ["eine Katze schläft", "der Hund schläft"]
    assert "no train pair of at most 1 words" in refused(folder, words=1)
    empty = corpus(tmp_path / "empty", "txt", {"en": [""], "de": [""]})
    assert "train.en line 1: no train pair is there" in refused(empty, unfit="drop")


def test_one_vocabulary_for_both_sides(tmp_path: Path) -> None:
    found = read(corpus(tmp_path, "txt"), joint=True)
    assert found.vocabularies["source"] == found.vocabularies["target"]


def test_an_empty_line_is_named(tmp_path: Path) -> None:
    folder = corpus(tmp_path, "txt", {"en": [*EN[:2], " ", EN[3]], "de": DE})
    assert "train.en line 3, en: an empty line; leave the pair out, or set data.options.unfit=drop" in refused(folder)
    assert len(read(folder, unfit="drop").train.y) == 3
    folder = corpus(tmp_path / "test", "parquet", test={"en": EN, "de": ["", *DE[1:]]})
    line = refused(folder, unfit="drop")
    assert "test.parquet row 0, de: an empty line; leave the pair out" in line
    assert "unfit" not in line  # test rows are never left out in silence


def test_a_sentence_longer_than_the_limit_is_named(tmp_path: Path) -> None:
    folder = corpus(tmp_path, "csv", {"en": [*EN[:3], "dog " * 30], "de": DE})
    line = refused(folder, longest=20)
    assert "train.csv line 5, en:" in line
    assert "at most 20 go; raise data.options.longest" in line
    assert len(read(folder, longest=20, unfit="drop").train.y) == 3


def test_a_target_without_a_symbol_is_named(tmp_path: Path) -> None:
    folder = corpus(tmp_path, "txt", {"en": EN, "de": [*DE[:3], "ö"]})
    from tokenizers import Tokenizer, models

    symbols = {name: n for n, name in enumerate(["[PAD]", "[BOS]", "[EOS]", "[UNK]", *"abcdefghijklmn"])}
    words = Tokenizer(models.BPE(symbols, []))  # what it does not know it leaves out
    words.save(str(tmp_path / "words.json"))
    line = refused(folder, vocabulary=str(tmp_path / "words.json"))
    assert "train.en line 4, de: not one symbol of the vocabulary" in line


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    folder = corpus(tmp_path, "txt")
    (tmp_path / "broken.json").write_text("{")
    assert "not a file of `tokenizers`" in refused(folder, vocabulary=str(tmp_path / "broken.json"))
    assert "no vocabulary there" in refused(folder, vocabulary=str(tmp_path / "none.json"))
    from tokenizers import Tokenizer, models

    other = tmp_path / "other.json"
    Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]")).save(str(other))
    assert "first 4 symbols are not [PAD], [BOS], [EOS], [UNK]" in refused(folder, vocabulary=str(other))


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    folder = corpus(tmp_path, "txt")
    with (folder / "mine" / "train.de").open("ab") as file:
        file.write("fünf\n".encode("latin-1"))
    assert "train.de line 5: byte 0xfc is not UTF-8; write the file as UTF-8" in refused(folder)
    folder = corpus(tmp_path / "table", "parquet")
    wrong = pa.StringArray.from_buffers(1, pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xfc"))
    table = pa.table({"en": pa.array(["a"]), "de": wrong})
    pq.write_table(table, folder / "mine" / "train.parquet")
    assert "train.parquet row 0, column 'de': not UTF-8" in refused(folder)


def test_columns_of_unequal_length_are_named(tmp_path: Path) -> None:
    folder = corpus(tmp_path, "txt", {"en": EN[:3], "de": DE})
    line = refused(folder)
    assert "train.en has 3 lines" in line
    assert "train.de has 4 lines: line 4 has one side only" in line
    (corpus(tmp_path / "sheet", "csv") / "mine" / "train.csv").write_text("en,de\na,b\nc\n")
    assert "train.csv line 3: no 'de'" in refused(tmp_path / "sheet")


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (["en,de", "a,b", "c,d,e"], "train.csv line 3: 3 values for 2 columns; write a value that holds a comma in"),
        (["en,de,de", "a,b,c"], "train.csv: column 'de' stands there 2 times"),
        (["en,de", "a" * 200_000 + ",b"], "train.csv line 2: no CSV (field larger than field limit"),
        (["en,de"], "mine: its train part holds no pair"),
        ([], "column 'en' is missing; there are none"),
    ],
)
def test_a_sheet_that_would_lose_texts_is_refused(rows: list[str], line: str, tmp_path: Path) -> None:
    folder = corpus(tmp_path, "csv")
    (folder / "mine" / "train.csv").write_text("".join(f"{row}\n" for row in rows))
    assert line in refused(folder)


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "column 'dee' is missing" in refused(corpus(tmp_path, "parquet"), target="dee")
    line = refused(corpus(tmp_path / "lines", "txt"), target="fr")
    assert "no train.parquet, no train.csv, and no train.en and train.fr" in line


def test_a_vocabulary_that_was_changed_is_made_again(tmp_path: Path) -> None:
    folder = corpus(tmp_path, "txt")
    found = read(folder)
    (kept,) = (tmp_path / "cache").glob("mine-*/target.json")
    kept.write_text("{}")
    assert read(folder).identity() == found.identity()
    assert len(list((tmp_path / "cache").glob("*.damaged-*"))) == 1
