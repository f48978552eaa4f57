"""What bad input says: one line, naming file and row."""

from __future__ import annotations

from typing import Any

import data_samples as samples
import pyarrow as pa
import pytest
import torch

from kdbench.base.errors import UserError
from kdbench.data import Place
from kdbench.data.feed import described

encoded, picture, IMAGE, CLIP = samples.encoded, samples.picture, samples.IMAGE, samples.CLIP
VECTOR, SOUND, spec, image_rows = samples.VECTOR, samples.SOUND, samples.spec, samples.image_rows
write, as_folder, Rows = samples.write, samples.as_folder, samples.Rows
RNG = samples.RNG


def refusal(place: Place, about: Any, train: Rows, test: Rows | None = None, **types: pa.DataType) -> str:
    assert place.folder is not None
    write(place.folder, train, test or train, types)
    with pytest.raises(UserError) as caught:
        described.load(about, {}, place)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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


def test_a_picture_is_named_as_its_row_names_it(place: Place) -> None:
    rows = image_rows(6)
    rows["img"][4] = {"bytes": b"x", "path": "cats/04.png"}
    assert refusal(place, spec(), rows).startswith(
        "train.parquet row 4 (cats/04.png), column 'img': 1 bytes that are no"
    )


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
    assert len(described.load(spec({"image": IMAGE | {"convert": True}}), {}, place).train.y) == 3


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
    looped = described.load(spec({"clip": CLIP | {"loop": True}}), {}, place)
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
    data = described.load(spec({"audio": VECTOR | {"optional": True}}), {}, place)
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
    dropped = described.load(spec(label=None, target={"column": "age", "range": [1, 60], "outside": "drop"}), {}, place)
    assert dropped.train.y.tolist() == [10.0, 20.0, 30.0]
    assert len(dropped.train.x["image"]) == 3
    assert dropped.label_range == (1, 60)


def test_cut_off_parquet_file(place: Place) -> None:
    assert place.folder is not None
    write(place.folder, image_rows(6), image_rows(3))
    path = place.folder / "toy" / "train.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"train\.parquet: cut off or not readable"):
        described.load(spec(), {}, place)


def test_a_missing_shard(place: Place) -> None:
    assert place.folder is not None
    write(place.folder, image_rows(6), image_rows(3))
    folder = place.folder / "toy"
    (folder / "train.parquet").rename(folder / "train-00000-of-00002.parquet")
    with pytest.raises(UserError, match="shard 1 of 00002 is missing"):
        described.load(spec(), {}, place)


def test_folders_of_classes(place: Place) -> None:
    assert place.folder is not None
    as_folder(place.folder / "toy", "train", image_rows(3))
    with pytest.raises(UserError, match="no test part"):
        described.load(spec(), {}, place)
    as_folder(place.folder / "toy", "test", image_rows(3))
    (place.folder / "toy" / "test" / "c2" / "002.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"test/c2/002\.png, column 'img': a picture of zero bytes"):
        described.load(spec(), {}, place)
    (place.folder / "toy" / "test" / "c3").mkdir()
    with pytest.raises(UserError, match="4 class folders, toy has 3 classes"):
        described.load(spec(), {}, place)


def test_a_class_absent_from_the_subset(place: Place) -> None:
    from kdbench.specs.data import Subset

    assert place.folder is not None
    rows = image_rows(6)
    rows |= {"label": [0, 0, 1, 1, 1, 1]}
    write(place.folder, rows, rows)
    data = described.load(spec(), {}, place)
    with pytest.raises(UserError, match=r"class 2 of toy\S* \(folder:toy\) has 0 training rows, 1 a class"):
        data.subset(Subset(per_class=1), 0)
    with pytest.raises(UserError, match=r"class 0 of toy\S* \(folder:toy\) has 2 training rows, 10% of them"):
        data.subset(Subset(fraction=0.1), 0)
