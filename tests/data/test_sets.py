"""Described data sets: decoding, cache, hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import data_samples as samples
import numpy as np
import pytest
import torch

from kdbench.base.errors import UserError
from kdbench.data import Place
from kdbench.data.decode import cache
from kdbench.data.feed import described
from kdbench.data.feed.loader import Loader

encoded, picture, spec, image_rows = samples.encoded, samples.picture, samples.spec, samples.image_rows
write, as_arrow, as_folder, as_metadata = samples.write, samples.as_arrow, samples.as_folder, samples.as_metadata
Rows = samples.Rows


def test_pictures_and_labels_are_what_was_written(place: Place) -> None:
    assert place.folder is not None
    pixels = [picture() for _ in range(6)]
    rows = {"img": [{"bytes": encoded(p), "path": None} for p in pixels], "label": [0, 1, 2, 2, 1, 0]}
    write(place.folder, rows, image_rows(3))
    data = described.load(spec(), {}, place)
    assert data.train.x["image"].dtype is torch.uint8
    assert torch.equal(data.train.x["image"], torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2))
    assert data.train.y.tolist() == [0, 1, 2, 2, 1, 0]
    assert (data.classes, len(data.test.y)) == (3, 3)


def test_a_second_start_reads_the_cache_and_not_the_files(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place.folder is not None
    write(place.folder, image_rows(6), image_rows(3))
    first = described.load(spec(), {}, place)
    for name in ("cache.sha256_file", "decoded.decode_part"):
        monkeypatch.setattr(f"kdbench.data.decode.{name}", lambda *_: pytest.fail("read the files again"))
    second = described.load(spec(), {}, place)
    assert torch.equal(first.train.x["image"], second.train.x["image"])
    assert first.digest("train") == second.digest("train")


def test_changed_files_and_a_damaged_cache_are_decoded_again(place: Place) -> None:
    assert place.folder is not None
    write(place.folder, image_rows(6), image_rows(3))
    first = described.load(spec(), {}, place)
    write(place.folder, image_rows(6), image_rows(3))
    second = described.load(spec(), {}, place)
    assert first.digest("train") != second.digest("train")
    pixels = second.train.x["image"].clone()
    for file in place.cache.glob("toy-*/train.image.npy"):
        file.write_bytes(file.read_bytes()[:-5])
    third = described.load(spec(), {}, place)
    assert torch.equal(pixels, third.train.x["image"])
    assert list(place.cache.glob("toy-*.damaged-*"))


def test_a_killed_decoder_leaves_nothing_half_used(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place.folder is not None
    write(place.folder, image_rows(6), image_rows(3))

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("kdbench.data.decode.decoded._distinct", killed)
        with pytest.raises(KeyboardInterrupt):
            described.load(spec(), {}, place)
    assert not [f for f in place.cache.glob("toy-*") if f.is_dir() and f.suffix != ".making"]
    assert len(described.load(spec(), {}, place).train.y) == 6


@pytest.mark.parametrize("put", [as_arrow, as_folder, as_metadata])
def test_arrow_files_and_folders_hold_the_same_data(place: Place, put: Callable[[Path, str, Rows], None]) -> None:
    assert place.folder is not None
    rows = {"train": image_rows(6), "test": image_rows(3)}
    write(place.folder, rows["train"], rows["test"])
    expected = described.load(spec(), {}, place)
    other = Place(place.folder.parent / "other", place.cache)
    assert other.folder is not None
    (other.folder / "toy").mkdir(parents=True)
    for part, values in rows.items():
        put(other.folder / "toy", part, values)
    found = described.load(spec(), {}, other)
    order = expected.train.y.argsort(stable=True) if put is as_folder else slice(None)
    assert torch.equal(found.train.x["image"], expected.train.x["image"][order])
    assert torch.equal(found.train.y, expected.train.y[order])


@pytest.mark.parametrize("put", [as_arrow, as_folder])
def test_a_column_read_at_two_sizes_gives_one_crop_in_files_and_folders(
    place: Place, put: Callable[[Path, str, Rows], None]
) -> None:
    assert place.folder is not None
    (place.folder / "toy").mkdir(parents=True)
    for part in ("train", "test"):
        put(place.folder / "toy", part, image_rows(12, size=16))
    shades = {"mean": [0.5] * 3, "std": [0.25] * 3}
    at = {name: {"kind": "picture", "column": "img", "size": n, "resize": n} for name, n in (("small", 8), ("big", 16))}
    about = spec({"small": at["small"] | shades, "big": at["big"] | shades | {"mean": [0.0] * 3}})
    data = described.load(about, {}, place).only(["small", "big"])
    batch = Loader(data, data.train, ["resized_crop25", "flip"], 12, 0, "s", workers=0).draw(0)
    assert batch.x["big"].shape == (12, 3, 16, 16)
    small, big = batch.x["small"] + 2.0, torch.nn.functional.avg_pool2d(batch.x["big"], 2)
    assert float(torch.corrcoef(torch.stack([small.flatten(), big.flatten()]))[0, 1]) > 0.8
    assert abs(float(small.mean() - big.mean())) < 0.1
    assert data.only(["big"]).shows == {}


SHADE = {"mean": [0.5] * 3, "std": [0.25] * 3}
SOUND = {
    "kind": "sound", "column": "wave", "rate_column": "rate", "rate": 8000, "samples": 512, "window": 64, "hop": 32,
    "bands": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        ({"kind": "picture", "column": "img", "size": 8, "resize": 8, **SHADE}, {"white": 4095.0}),
        *((SOUND, {key: value}) for key, value in (("window", 128), ("hop", 16), ("bands", 4), ("samples", 256))),
    ],
)
def test_rows_read_otherwise_are_other_rows_though_their_files_are_the_same(
    place: Place, given: dict[str, Any], changed: dict[str, Any]
) -> None:
    assert place.folder is not None
    waves = {"wave": [[n, -n, 5, 9] for n in range(6)], "rate": [8000] * 6}
    write(place.folder, image_rows(6) | waves, image_rows(6) | waves)

    def identity(**settings: Any) -> str:
        return described.load(spec({"seen": given | settings}), {}, place).identity()

    assert identity() == identity(**{key: given.get(key) for key in changed}) != identity(**changed)


def test_absent_data_say_where_they_belong(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        described.load(spec(), {}, Place(tmp_path, tmp_path / "cache"))
    message = str(caught.value)
    assert "not on the hub" in message
    assert f"{tmp_path}/toy/" in message
    assert "img (pictures), label (0 to 2)" in message


def test_gated_data_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refused(*args: Any, **options: Any) -> None:
        assert "trust_remote_code" not in options
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'someone/toy' is a gated dataset on the Hub.\nMore")

    monkeypatch.setattr(datasets, "load_dataset", refused)
    about = spec(hub={"id": "someone/toy", "gated": True})
    with pytest.raises(UserError) as caught:
        described.load(about, {}, Place(None, tmp_path))
    message = str(caught.value)
    assert "\n" not in message
    assert "someone/toy (gated: accept its terms there and log in)" in message
    assert "label (0 to 2)" in message


def test_the_hub_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []
    held = {}
    for part, count in (("train", 6), ("test", 3)):
        as_arrow(tmp_path, part, image_rows(count))
        held[part] = datasets.Dataset.from_file(str(tmp_path / f"{part}.arrow"))

    def load_dataset(name: str, config: str | None, *, split: str, revision: str | None) -> datasets.Dataset:
        asked.append((name, config, split, revision))
        return held[split]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    about = spec(hub={"id": "someone/toy", "revision": "abc"})
    first = described.load(about, {}, Place(None, tmp_path))
    assert asked == [("someone/toy", None, "train", "abc"), ("someone/toy", None, "test", "abc")]
    second = described.load(about, {}, Place(None, tmp_path))
    assert len(asked) == 2
    assert (first.name, first.official, second.official) == ("toy", True, True)  # a revision is a hash of its content
    assert first.source == second.source == "hub:someone/toy"
    assert cache.peek_hub(about, tmp_path) is not None
    assert cache.peek_hub(spec(hub={"id": "someone/toy", "revision": "abd"}), tmp_path) is None
    pixels = first.train.x["image"].clone()
    for file in tmp_path.glob("toy-*/train.image.npy"):
        file.write_bytes(b"rotten")
    third = described.load(about, {}, Place(None, tmp_path))
    assert len(asked) == 4
    assert torch.equal(pixels, third.train.x["image"])
    assert torch.equal(first.train.x["image"], second.train.x["image"])


def test_fewer_rows_of_each_class(place: Place) -> None:
    assert place.folder is not None
    write(place.folder, image_rows(9), image_rows(6))
    about = spec()
    whole = described.load(about, {}, place)
    data = described.load(about, {"first": {"train": 2, "test": 1}}, place)
    assert data.train.y.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.test.y.tolist() == [0, 1, 2]
    assert data.digest("train") != whole.digest("train")
    with pytest.raises(UserError, match=r"class 0 of toy\S* has 3 train rows, not 4"):
        described.load(about, {"first": {"train": 4, "test": 1}}, place)
