"""Pictures of more than 8 bits, turned ones, and damaged ones: as they look to a person, or refused by name."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kdbench.base.errors import UserError
from kdbench.data import Place
from kdbench.data.decode.picture import eight_bit, opened, upright
from kdbench.data.feed import described

GREY = {"kind": "image", "column": "img", "size": 16, "channels": 1, "mean": [0.5], "std": [0.5]}
STORED = {"kind": "picture", "column": "img", "size": 16, "resize": 16, "mean": [0.5] * 3, "std": [0.5] * 3}
RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.fixture
def samples(load):
    return load("support/data_samples.py")


def file(pixels: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def read(samples: Any, tmp_path: Path, content: bytes, given: dict[str, Any], form: str = "png") -> np.ndarray:
    """The first training row, (channels, 16, 16)."""
    for part in ("train", "test"):
        for label in range(3):
            (tmp_path / "data" / "toy" / part / f"c{label}").mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / "toy" / part / f"c{label}" / f"a.{form}").write_bytes(content)
    data = described.load(samples.spec({"image": given}), {}, Place(tmp_path / "data", tmp_path / "cache"))
    return data.train.x["image"][torch.tensor([0])][0].numpy()


@pytest.mark.parametrize("given", [GREY, STORED], ids=["dense", "stored"])
@pytest.mark.parametrize(
    ("pixels", "form", "white"),
    [
        (RAMP.astype(np.uint16) * 257, "png", None),
        (RAMP.astype(np.uint16) * 257, "tiff", None),
        (RAMP.astype(">u2") * 257, "tiff", None),
        (RAMP.astype(np.int32) * 257, "tiff", None),
        (RAMP.astype(np.uint16) * 16, "png", 4080),
        (RAMP.astype(np.float32) / 255, "tiff", 1.0),
    ],
)
def test_deep_pictures_are_scaled(
    pixels: np.ndarray, form: str, white: float | None, given: dict[str, Any], samples: Any, tmp_path: Path
) -> None:
    more = {"white": white} if white is not None else {}
    found = read(samples, tmp_path, file(pixels, form.upper()), given | more, form)
    assert np.array_equal(found[0], RAMP)


@pytest.mark.parametrize("given", [GREY, STORED], ids=["dense", "stored"])
@pytest.mark.parametrize(
    ("pixels", "white", "said"),
    [
        (RAMP.astype(np.float32) / 255, None, r"train/c0/a\.tiff.* \(F\): write `white: VALUE`"),
        (RAMP.astype(np.uint16) * 16, 2000, r"train/c0/a\.tiff.*grey values of 0 to 4080 .*0 to 2000 are read"),
        (RAMP.astype(np.float32) - 1, 255, r"train/c0/a\.tiff.*grey values of -1 to 254"),
        (np.full((16, 16), np.nan, np.float32), 1, r"train/c0/a\.tiff.*grey values of nan"),
    ],
)
def test_deep_pictures_without_a_scale_are_refused(
    pixels: np.ndarray, white: float | None, said: str, given: dict[str, Any], samples: Any, tmp_path: Path
) -> None:
    more = {"white": white} if white is not None else {}
    with pytest.raises(UserError, match=said):
        read(samples, tmp_path, file(pixels, "TIFF"), given | more, "tiff")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_their_exif_says(orientation: int, form: str) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.zeros((8, 16, 3), np.uint8)
    stored[:4, :8] = 255
    made = opened(file(stored, form, exif=exif), "x")[0]
    shown = ImageOps.exif_transpose(opened(file(stored, form, exif=exif), "x")[0])
    assert np.array_equal(np.asarray(upright(made)), np.asarray(shown))
    assert upright(made).size == ((8, 16) if orientation > 4 else (16, 8))


@pytest.mark.parametrize("given", [GREY | {"convert": True}, STORED], ids=["dense", "stored"])
def test_a_picture_stored_sideways_is_read_upright(given: dict[str, Any], samples: Any, tmp_path: Path) -> None:
    pixels = np.zeros((16, 16), np.uint8)
    pixels[:, 8:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    found = read(samples, tmp_path, file(np.rot90(pixels), exif=exif), given)  # turned back by a quarter to the right
    assert np.array_equal(found[0], pixels)


def test_broken_exif_is_no_reason_to_refuse_a_picture() -> None:
    made = opened(file(RAMP, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), "x")[0]
    assert upright(made).size == (16, 16)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_a_cut_picture_of_a_compressed_column_is_found_before_the_run_and_named(
    form: str, samples: Any, tmp_path: Path
) -> None:
    whole = file(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), form)
    with pytest.raises(UserError, match=r"train/c0/a\.png, column 'img': "):
        read(samples, tmp_path, whole[: len(whole) // 2], STORED)


def test_a_picture_that_goes_bad_later_is_named_by_its_file(samples: Any, tmp_path: Path) -> None:
    place = Place(tmp_path / "data", tmp_path / "cache")
    read(samples, tmp_path, file(RAMP), STORED)
    data = described.load(samples.spec({"image": STORED}), {}, place)
    (blob,) = place.cache.glob("toy-*/train.image.bin")
    blob.write_bytes(b"\0" * blob.stat().st_size)
    with pytest.raises(UserError, match=r"row 1 \(train/c1/a\.png\): a picture cannot be decoded"):
        data.train.x["image"][torch.tensor([1])]


def test_a_picture_of_too_many_pixels_says_so() -> None:
    buffer = io.BytesIO()
    Image.new("1", (20000, 10000)).save(buffer, "PNG")
    with pytest.raises(UserError, match="x: a picture of more than 89 million pixels; make it smaller"):
        opened(buffer.getvalue(), "x")


def test_pictures_of_8_bits_are_not_touched() -> None:
    for mode in ("L", "RGB", "RGBA", "P", "1", "CMYK"):
        picture = Image.new(mode, (4, 4))
        assert eight_bit(picture, None) is picture
