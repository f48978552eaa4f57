"""Described data sets: decoding, identity, and what bad input says."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from kdbench.data import Place, tabular
from kdbench.data.setspec import SetSpec
from kdbench.errors import UserError

Rows = dict[str, list[Any]]
RNG = np.random.default_rng(0)


def encoded(pixels: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def picture(size: int = 4, channels: int = 3) -> np.ndarray:
    shape = (size, size, 3) if channels == 3 else (size, size)
    return np.random.default_rng(int(RNG.integers(1 << 30))).integers(0, 256, shape, dtype=np.uint8)


IMAGE = {"kind": "image", "column": "img", "size": 4, "mean": [0.5] * 3, "std": [0.5] * 3}
CLIP = {"kind": "clip", "column": "frames", "frames": 3, "size": 4, "resize": 5, "mean": [0.5] * 3, "std": [0.5] * 3}
VECTOR = {"kind": "vector", "column": "feature", "size": 3}
SOUND = {
    "kind": "sound", "column": "audio", "rate_column": "rate", "rate": 8000, "samples": 256, "window": 64, "hop": 32,
    "bands": 8,
}  # fmt: skip


def spec(inputs: dict[str, Any] | None = None, **more: Any) -> SetSpec:
    body = {
        "name": "toy",
        "title": "toy",
        "folders": ["toy"],
        "inputs": inputs or {"image": IMAGE},
        "label": {"column": "label", "classes": 3},
        "licence": "none",
        "megabytes": 1,
    }
    return SetSpec.model_validate({k: v for k, v in (body | more).items() if v is not None})


def image_rows(count: int, size: int = 4) -> Rows:
    files = [{"bytes": encoded(picture(size)), "path": None} for _ in range(count)]
    return {"img": files, "label": [i % 3 for i in range(count)]}


def write(folder: Path, train: Rows, test: Rows, types: dict[str, pa.DataType] | None = None) -> Path:
    (folder / "toy").mkdir(parents=True, exist_ok=True)
    for part, rows in (("train", train), ("test", test)):
        arrays = {name: pa.array(values, type=(types or {}).get(name)) for name, values in rows.items()}
        pq.write_table(pa.table(arrays), folder / "toy" / f"{part}.parquet", row_group_size=4)
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "data", tmp_path / "cache")


def refusal(place: Place, about: SetSpec, train: Rows, test: Rows | None = None, **types: pa.DataType) -> str:
    assert place.folder is not None
    write(place.folder, train, test or train, types)
    with pytest.raises(UserError) as caught:
        tabular.load(about, {}, place)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_pictures_and_labels_are_what_was_written(place: Place) -> None:
    assert place.folder is not None
    pixels = [picture() for _ in range(6)]
    rows = {"img": [{"bytes": encoded(p), "path": None} for p in pixels], "label": [0, 1, 2, 2, 1, 0]}
    write(place.folder, rows, image_rows(3))
    data = tabular.load(spec(identity={"rows": {"train": 6, "test": 3}}), {}, place)
    assert data.train.x["image"].dtype is torch.uint8
    assert torch.equal(data.train.x["image"], torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2))
    assert data.train.y.tolist() == [0, 1, 2, 2, 1, 0]
    assert (data.name, data.classes, data.official, len(data.test.y)) == ("toy", 3, True, 3)


def test_a_second_start_reads_the_cache_and_not_the_files(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place.folder is not None
    write(place.folder, image_rows(6), image_rows(3))
    first = tabular.load(spec(), {}, place)
    for name in ("sha256_file", "_decode_part"):
        monkeypatch.setattr(f"kdbench.data.decoded.{name}", lambda *_: pytest.fail("read the files again"))
    second = tabular.load(spec(), {}, place)
    assert torch.equal(first.train.x["image"], second.train.x["image"])
    assert first.digest("train") == second.digest("train")


def test_changed_files_and_a_damaged_cache_are_decoded_again(place: Place) -> None:
    assert place.folder is not None
    write(place.folder, image_rows(6), image_rows(3))
    first = tabular.load(spec(), {}, place)
    write(place.folder, image_rows(6), image_rows(3))
    second = tabular.load(spec(), {}, place)
    assert first.digest("train") != second.digest("train")
    pixels = second.train.x["image"].clone()
    for file in place.cache.glob("toy-*/train.image.npy"):
        file.write_bytes(file.read_bytes()[:-5])
    third = tabular.load(spec(), {}, place)
    assert torch.equal(pixels, third.train.x["image"])
    assert list(place.cache.glob("toy-*.damaged-*"))


def test_a_killed_decoder_leaves_nothing_half_used(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place.folder is not None
    write(place.folder, image_rows(6), image_rows(3))

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("kdbench.data.decoded._distinct", killed)
        with pytest.raises(KeyboardInterrupt):
            tabular.load(spec(), {}, place)
    assert not [f for f in place.cache.glob("toy-*") if f.is_dir() and f.suffix != ".making"]
    assert len(tabular.load(spec(), {}, place).train.y) == 6


def as_arrow(folder: Path, part: str, rows: Rows) -> None:
    table = pa.table(rows)
    with pa.OSFile(str(folder / f"{part}.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def as_folder(folder: Path, part: str, rows: Rows) -> None:
    for label in range(3):
        (folder / part / f"c{label}").mkdir(parents=True)
    for number, (file, label) in enumerate(zip(rows["img"], rows["label"], strict=True)):
        (folder / part / f"c{label}" / f"{number:03}.png").write_bytes(file["bytes"])


def as_metadata(folder: Path, part: str, rows: Rows) -> None:
    (folder / part).mkdir(parents=True)
    with (folder / part / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "label"])
        for number, (picture_file, label) in enumerate(zip(rows["img"], rows["label"], strict=True)):
            (folder / part / f"{number}.png").write_bytes(picture_file["bytes"])
            writer.writerow([f"{number}.png", label])


@pytest.mark.parametrize("put", [as_arrow, as_folder, as_metadata])
def test_arrow_files_and_folders_hold_the_same_data(place: Place, put: Callable[[Path, str, Rows], None]) -> None:
    assert place.folder is not None
    rows = {"train": image_rows(6), "test": image_rows(3)}
    write(place.folder, rows["train"], rows["test"])
    expected = tabular.load(spec(), {}, place)
    other = Place(place.folder.parent / "other", place.cache)
    assert other.folder is not None
    (other.folder / "toy").mkdir(parents=True)
    for part, values in rows.items():
        put(other.folder / "toy", part, values)
    found = tabular.load(spec(), {}, other)
    order = expected.train.y.argsort(stable=True) if put is as_folder else slice(None)
    assert torch.equal(found.train.x["image"], expected.train.x["image"][order])
    assert torch.equal(found.train.y, expected.train.y[order])


def contents(place: Place) -> dict[str, Any]:
    """Facts of the one decoded data set of a cache."""
    return json.loads(next(place.cache.glob("toy-*/facts.json")).read_text())  # type: ignore[no-any-return]


def test_equal_pixels_have_one_content_hash_whatever_the_file_format_and_order(tmp_path: Path) -> None:
    pixels, labels = [picture() for _ in range(6)], [0, 1, 2, 0, 1, 2]
    found = []
    for name, form, options, order in (
        ("a", "PNG", {}, range(6)),
        ("b", "WEBP", {"lossless": True}, range(6)),
        ("c", "PNG", {"compress_level": 1}, reversed(range(6))),
        ("d", "JPEG", {"quality": 75}, range(6)),
    ):
        ids = list(order)
        rows = {"img": [{"bytes": encoded(pixels[i], form, **options), "path": None} for i in ids]}
        rows["label"] = [labels[i] for i in ids]
        place = Place(write(tmp_path / name, rows, rows), tmp_path / name / "cache")
        tabular.load(spec(), {}, place)
        found.append(contents(place)["parts"]["train"])
    png, webp, turned, jpeg = found
    assert png["content"] == webp["content"] == turned["content"] != jpeg["content"]
    assert png["ordered"] == webp["ordered"] != turned["ordered"]
    assert [f["jpeg"] for f in found] == [False, False, False, True]


def test_known_copies_are_told_apart_and_unknown_ones_named(tmp_path: Path) -> None:
    kinds = {name: {"train": image_rows(6), "test": image_rows(3)} for name in ("official", "copy", "unknown")}
    places = {n: Place(write(tmp_path / n, r["train"], r["test"]), tmp_path / n / "cache") for n, r in kinds.items()}
    hashes = {}
    for name, place in places.items():
        tabular.load(spec(), {}, place)
        hashes[name] = {part: contents(place)["parts"][part]["content"] for part in ("train", "test")}
    about = {"about": "drawn anew", "folders": ["toy"], "identity": {"content": hashes["copy"]}}
    known = spec(identity={"content": hashes["official"]}, copies={"redrawn": about})
    official = tabular.load(known, {}, places["official"])
    assert (official.name, official.official) == ("toy", True)
    copy = tabular.load(known, {"copy": "redrawn"}, places["copy"])
    assert (copy.name, copy.official) == ("toy-redrawn", True)
    other = tabular.load(known, {}, places["unknown"])
    assert other.name.startswith("toy-other-")
    assert not other.official
    with pytest.raises(UserError, match=r"holds toy-redrawn \(drawn anew\), not toy; run the tasks toy-redrawn/"):
        tabular.load(known, {}, places["copy"])
    with pytest.raises(UserError, match="holds toy, not toy-redrawn"):
        tabular.load(known, {"copy": "redrawn"}, places["official"])
    with pytest.raises(UserError, match=r"no copy 'redrawm' \(did you mean 'redrawn'"):
        tabular.load(known, {"copy": "redrawm"}, places["official"])


def test_a_copy_with_all_that_is_known_of_the_official_data_is_still_that_copy(place: Place) -> None:
    """CIFAR-100 under another split has the official pool, and only the pool of the official data is known."""
    assert place.folder is not None
    write(place.folder, image_rows(6), image_rows(3))
    tabular.load(spec(), {}, place)
    facts = contents(place)
    content = {part: facts["parts"][part]["content"] for part in ("train", "test")}
    copy = {"about": "another split", "folders": ["toy"], "identity": {"content": content}}
    known = spec(identity={"pool": facts["pool"]}, copies={"resplit": copy})
    with pytest.raises(UserError, match="holds toy-resplit"):
        tabular.load(known, {}, place)
    assert tabular.load(spec(identity={"pool": facts["pool"]}), {}, place).official
    assert not tabular.load(spec(identity={"pool": "0" * 64}), {}, place).official


def test_jpeg_files_are_not_a_lossless_original(place: Place) -> None:
    assert place.folder is not None
    rows = {"img": [{"bytes": encoded(picture(), "JPEG"), "path": None} for _ in range(3)], "label": [0, 1, 2]}
    write(place.folder, rows, rows)
    rows = {"train": 3, "test": 3}
    assert tabular.load(spec(identity={"rows": rows}), {}, place).official
    assert not tabular.load(spec(identity={"rows": rows, "lossless": True}), {}, place).official


def test_where_nothing_is_known_nothing_is_official(place: Place) -> None:
    assert place.folder is not None
    write(place.folder, image_rows(3), image_rows(3))
    found = tabular.load(spec(), {}, place)
    assert not found.official
    assert found.name.startswith("toy-other-")


def test_absent_data_say_where_they_belong(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        tabular.load(spec(), {}, Place(tmp_path, tmp_path / "cache"))
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
        tabular.load(about, {}, Place(None, tmp_path))
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
    first = tabular.load(about, {}, Place(None, tmp_path))
    assert asked == [("someone/toy", None, "train", "abc"), ("someone/toy", None, "test", "abc")]
    second = tabular.load(about, {}, Place(None, tmp_path))
    assert len(asked) == 2
    assert first.source == second.source == "hub:someone/toy"
    assert torch.equal(first.train.x["image"], second.train.x["image"])


# ---- bad input: one line each, naming file and row -------------------------------------------------------------------


def test_missing_column(place: Place) -> None:
    rows = image_rows(3)
    message = refusal(place, spec(), {"img": rows["img"], "labels": rows["label"]})
    assert (
        "train.parquet: column 'label' (0 to 2) is missing (did you mean 'labels'?); there are img, labels" in message
    )


def test_wrong_type(place: Place) -> None:
    message = refusal(place, spec(), image_rows(3) | {"label": ["0", "1", "2"]})
    assert "train.parquet: column 'label' is of type string, whole numbers are expected" in message


def test_label_out_of_range(place: Place) -> None:
    message = refusal(place, spec(), image_rows(3) | {"label": [0, 3, 1]})
    assert message == "train.parquet row 1, column 'label': label 3 is not one of 0 to 2"


def test_missing_label(place: Place) -> None:
    assert "row 2, column 'label': label None" in refusal(place, spec(), image_rows(3) | {"label": [0, 1, None]})


def test_empty_part(place: Place) -> None:
    empty = {"img": [], "label": []}
    kinds = {"img": pa.struct([("bytes", pa.binary()), ("path", pa.string())]), "label": pa.int64()}
    message = refusal(place, spec(), image_rows(3), empty, **kinds)
    assert message.endswith("test.parquet: the test part is empty")


def test_zero_byte_picture(place: Place) -> None:
    rows = image_rows(6)
    rows["img"][4]["bytes"] = b""
    assert refusal(place, spec(), rows).startswith("train.parquet row 4, column 'img': a picture of zero bytes")


def test_cut_off_picture(place: Place) -> None:
    rows = image_rows(3)
    whole = encoded(picture(64))
    rows["img"][1]["bytes"] = whole[: len(whole) // 2]
    about = spec({"image": IMAGE | {"size": 64}})
    rows["img"][0]["bytes"] = rows["img"][2]["bytes"] = whole
    assert refusal(place, about, rows).startswith("train.parquet row 1, column 'img': the picture is cut off")


def test_bytes_that_are_no_picture(place: Place) -> None:
    rows = image_rows(3)
    rows["img"][2]["bytes"] = b"not a picture"
    assert "row 2, column 'img': 13 bytes that are no picture" in refusal(place, spec(), rows)
    rows["img"][2] = None
    assert "row 2, column 'img': no picture there" in refusal(place, spec(), rows)


def test_grey_pictures_for_a_colour_input(place: Place) -> None:
    rows = image_rows(3)
    rows["img"][1]["bytes"] = encoded(picture(channels=1))
    message = refusal(place, spec(), rows)
    assert message == "train.parquet row 1, column 'img': a 1-channel picture (L), 3 channels expected"
    assert len(tabular.load(spec({"image": IMAGE | {"convert": True}}), {}, place).train.y) == 3


def test_pictures_of_another_size(place: Place) -> None:
    rows = image_rows(3)
    rows["img"][2]["bytes"] = encoded(picture(5))
    assert "row 2, column 'img': a picture of 5x5 pixels, 4x4 expected" in refusal(place, spec(), rows)


def test_repeated_ids(place: Place) -> None:
    rows = image_rows(3) | {"file": ["a", "b", "a"]}
    message = refusal(place, spec(id="file"), rows)
    assert message == "train.parquet row 2, column 'file': 'a' stands at train.parquet row 0 already; ids must differ"
    message = refusal(
        place, spec(id="file"), image_rows(2) | {"file": ["a", "b"]}, image_rows(2) | {"file": ["c", "b"]}
    )
    assert message.startswith("test.parquet row 1, column 'file': 'b' stands at train.parquet row 1 too")


def test_a_video_shorter_than_the_clip(place: Place) -> None:
    frames = [[encoded(picture(6)) for _ in range(count)] for count in (4, 2, 3)]
    rows = {"frames": frames, "label": [0, 1, 2]}
    message = refusal(place, spec({"clip": CLIP}), rows)
    assert message == "train.parquet row 1, column 'frames': a video of 2 frames, the clip takes 3"
    looped = tabular.load(spec({"clip": CLIP | {"loop": True}}), {}, place)
    clip = looped.train.x["clip"][torch.tensor([1])]
    assert clip.shape == (1, 3, 3, 4, 4)
    assert torch.equal(clip[:, :, 0], clip[:, :, 2])
    rows["frames"][0] = []
    assert "row 0, column 'frames': a video of 0 frames" in refusal(place, spec({"clip": CLIP | {"loop": True}}), rows)


def test_vectors(place: Place) -> None:
    def rows(last: Any) -> Rows:
        return {"feature": [[1.0, 2.0, 3.0], last], "label": [0, 1]}

    about = spec({"audio": VECTOR})
    assert "row 1, column 'feature': 3 numbers are expected, found shape (2,)" in refusal(
        place, about, rows([1.0, 2.0])
    )
    assert "row 1, column 'feature': number 2 is not finite" in refusal(place, about, rows([0.0, 0.0, float("nan")]))
    assert "row 1, column 'feature': 3 numbers are expected" in refusal(place, about, rows(None))
    data = tabular.load(spec({"audio": VECTOR | {"optional": True}}), {}, place)
    x, present = data.finish(data.train.x)
    assert present["audio"].tolist() == [True, False]
    assert x["audio"].tolist() == [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]


def test_sound(place: Place) -> None:
    wave = [int(v) for v in RNG.integers(-100, 100, 300)]
    rows = {"audio": [wave, wave], "rate": [8000, 16000], "label": [0, 1]}
    about = spec({"audio": SOUND})
    assert "row 1, column 'audio': 16000 samples a second, 8000 expected" in refusal(place, about, rows)
    rows["rate"] = [8000, 8000]
    rows["audio"] = [wave, []]
    assert "row 1, column 'audio': a list of int16 samples is expected" in refusal(place, about, rows)
    rows["audio"] = [wave, [*wave, 40000]]
    assert "row 1, column 'audio': sample 300 is outside int16" in refusal(place, about, rows)


def test_targets(place: Place) -> None:
    rows = {"img": image_rows(4)["img"], "age": [10, 20, 70, 30]}
    about = spec(label=None, target={"column": "age", "range": [1, 60]})
    assert refusal(place, about, rows) == "train.parquet row 2, column 'age': 70 is not within 1 to 60"
    dropped = tabular.load(spec(label=None, target={"column": "age", "range": [1, 60], "outside": "drop"}), {}, place)
    assert dropped.train.y.tolist() == [10.0, 20.0, 30.0]
    assert len(dropped.train.x["image"]) == 3
    assert dropped.label_range == (1, 60)


def test_cut_off_parquet_file(place: Place) -> None:
    assert place.folder is not None
    write(place.folder, image_rows(6), image_rows(3))
    path = place.folder / "toy" / "train.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"train\.parquet: cut off or not readable"):
        tabular.load(spec(), {}, place)


def test_a_missing_shard(place: Place) -> None:
    assert place.folder is not None
    write(place.folder, image_rows(6), image_rows(3))
    folder = place.folder / "toy"
    (folder / "train.parquet").rename(folder / "train-00000-of-00002.parquet")
    with pytest.raises(UserError, match="shard 1 of 00002 is missing"):
        tabular.load(spec(), {}, place)


def test_folders_of_classes(place: Place) -> None:
    assert place.folder is not None
    as_folder(place.folder / "toy", "train", image_rows(3))
    with pytest.raises(UserError, match="no test part"):
        tabular.load(spec(), {}, place)
    as_folder(place.folder / "toy", "test", image_rows(3))
    (place.folder / "toy" / "test" / "c2" / "002.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"test/c2/002\.png, column 'img': a picture of zero bytes"):
        tabular.load(spec(), {}, place)
    (place.folder / "toy" / "test" / "c3").mkdir()
    with pytest.raises(UserError, match="4 class folders, toy has 3 classes"):
        tabular.load(spec(), {}, place)


def test_fewer_rows_of_each_class(place: Place) -> None:
    assert place.folder is not None
    write(place.folder, image_rows(9), image_rows(6))
    about = spec(identity={"rows": {"train": 9, "test": 6}})
    whole = tabular.load(about, {}, place)
    data = tabular.load(about, {"first": {"train": 2, "test": 1}}, place)
    assert data.train.y.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.test.y.tolist() == [0, 1, 2]
    assert data.digest("train") != whole.digest("train")
    with pytest.raises(UserError, match="class 0 of toy has 3 train rows, not 4"):
        tabular.load(about, {"first": {"train": 4, "test": 1}}, place)


def test_a_class_absent_from_the_subset(place: Place) -> None:
    from kdbench.spec import Subset

    assert place.folder is not None
    rows = image_rows(6)
    write(place.folder, rows | {"label": [0, 0, 1, 1, 1, 1]}, rows)
    data = tabular.load(spec(identity={"rows": {"train": 6, "test": 6}}), {}, place)
    with pytest.raises(UserError, match="class 2 of toy has 0 training rows, 1 a class are asked for"):
        data.subset(Subset(per_class=1), 0)
    with pytest.raises(UserError, match="class 0 of toy has 2 training rows, 10% of them are asked for"):
        data.subset(Subset(fraction=0.1), 0)
