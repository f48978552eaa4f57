"""Video files: decoded once, read like lists of pictures; what bad ones say. Skipped where av is not installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import data_samples as samples
import numpy as np
import pyarrow as pa
import pytest
import torch

from kdbench.base.errors import UserError
from kdbench.data import Place
from kdbench.data.decode.video import pictures
from kdbench.data.feed import described

av = pytest.importorskip("av", reason="the video extra (av) is not installed")

CLIP, VECTOR, spec, write, contents = samples.CLIP, samples.VECTOR, samples.spec, samples.write, samples.contents
VIDEO = CLIP | {"column": "video", "size": 32, "resize": 32}
STEP = 20
"""Grey levels between two frames."""


def film(path: Path, frames: int, size: tuple[int, int] = (48, 32), codec: str = "mpeg4") -> bytes:
    """A video whose frame i is of the grey STEP * i, in the format of the path's suffix."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            grey = np.full((size[1], size[0], 3), STEP * number % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def levels(pixels: torch.Tensor) -> list[int]:
    """Number of each frame of a clip (3, T, S, S), by its grey."""
    return [round(float(frame.float().mean()) / STEP) for frame in pixels.transpose(0, 1)]


@pytest.fixture
def clip(tmp_path: Path) -> Any:
    """Makes a short video once for each form."""
    return lambda frames=5, form="avi", **more: film(tmp_path / f"{frames}.{form}", frames, **more)


def column(files: list[Any], kind: Any = None) -> dict[str, Any]:
    return {"video": files, "label": [n % 3 for n in range(len(files))]}


@pytest.mark.parametrize(("form", "codec"), [("avi", "mpeg4"), ("mp4", "libx264"), ("webm", "libvpx-vp9")])
def test_frames_come_in_order(clip: Any, form: str, codec: str) -> None:
    found = list(pictures(clip(5, form, codec=codec), 256, "here"))
    shown = [np.asarray(samples.opened(file)) for file in found]
    assert [frame.shape for frame in shown] == [(32, 48, 3)] * 5
    assert [round(frame.mean() / STEP) for frame in shown] == [0, 1, 2, 3, 4]


def test_large_frames_are_kept_small(clip: Any) -> None:
    found = list(pictures(clip(3, size=(120, 80)), 20, "here"))
    assert [samples.opened(file).size for file in found] == [(30, 20)] * 3


@pytest.mark.parametrize("hold", [lambda file: file, lambda file: {"bytes": file, "path": None}])
def test_a_column_of_videos_is_decoded_once(
    hold: Any, place: Place, clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert place.folder is not None
    files = [hold(clip(count)) for count in (3, 7, 5)]
    write(place.folder, column(files), column(files))
    data = described.load(spec({"clip": VIDEO}), {}, place)
    found = data.train.x["clip"][torch.arange(3)]
    assert (found.shape, found.dtype) == ((3, 3, 3, 32, 32), torch.uint8)
    assert [levels(row) for row in found] == [[0, 1, 2], [2, 3, 4], [1, 2, 3]]  # the middle frames
    monkeypatch.setitem(sys.modules, "av", None)  # later starts do without
    again = described.load(spec({"clip": VIDEO}), {}, place)
    assert torch.equal(again.train.x["clip"][torch.arange(3)], found)
    assert again.digest("train") == data.digest("train")


def test_a_folder_of_videos_with_features_beside_them(place: Place, tmp_path: Path) -> None:
    assert place.folder is not None
    for part in ("train", "test"):
        for label in range(3):
            folder = place.folder / "toy" / part / f"c{label}"
            folder.mkdir(parents=True)
            film(folder / f"{part}{label}.avi", 3 + label)
            if label:
                np.save(folder / f"{part}{label}.npy", np.full(3, label, np.float32))
    about = spec({"clip": VIDEO, "audio": VECTOR | {"optional": True}}, id="name")
    data = described.load(about, {}, place)
    assert data.train.y.tolist() == [0, 1, 2]
    x, present = data.finish({"audio": data.train.x["audio"]})
    assert present["audio"].tolist() == [False, True, True]
    assert x["audio"].tolist() == [[0.0] * 3, [1.0] * 3, [2.0] * 3]
    assert levels(data.test.x["clip"][torch.tensor([2])][0]) == [1, 2, 3]
    first = contents(place)["parts"]["train"]["content"]
    np.save(place.folder / "toy" / "train" / "c1" / "train1.npy", np.full(3, 9, np.float32))
    assert not torch.equal(described.load(about, {}, place).train.x["audio"], data.train.x["audio"])
    assert first in {path.read_text().split('"content": "')[1][:64] for path in place.cache.glob("toy-*/facts.json")}
    with pytest.raises(UserError, match=r"c0/train0\.npy: missing; it holds the 3 numbers of 'feature'"):
        described.load(spec({"clip": VIDEO, "audio": VECTOR}), {}, place)
    (place.folder / "toy" / "train" / "c2" / "train2.npy").write_bytes(b"no array")
    with pytest.raises(UserError, match=r"train2\.npy: not an array of numbers, or cut off"):
        described.load(about, {}, place)


# ---- bad input -------------------------------------------------------------------------------------------------------


def refusal(place: Place, files: list[Any], about: Any = None) -> str:
    assert place.folder is not None
    write(place.folder, column(files), column(files), {"video": pa.binary()})
    with pytest.raises(UserError) as caught:
        described.load(about or spec({"clip": VIDEO}), {}, place)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_video_shorter_than_the_clip(place: Place, clip: Any) -> None:
    message = refusal(place, [clip(4), clip(2), clip(3)])
    assert message == "train.parquet row 1, column 'video': a video of 2 frames, the clip takes 3"
    looped = described.load(spec({"clip": VIDEO | {"loop": True}}), {}, place)
    assert levels(looped.train.x["clip"][torch.tensor([1])][0]) == [0, 1, 0]


def test_bytes_that_are_no_video(place: Place, clip: Any) -> None:
    assert refusal(place, [clip(), b"not a video"]).startswith("train.parquet row 1, column 'video': no video, or a")
    assert refusal(place, [clip(), b""]).startswith("train.parquet row 1, column 'video': a video of zero bytes")
    assert refusal(place, [clip(), None]).startswith("train.parquet row 1, column 'video': no video there")


@pytest.mark.parametrize(("form", "codec"), [("avi", "mpeg4"), ("mp4", "libx264"), ("mkv", "libx264")])
def test_a_cut_off_video(place: Place, clip: Any, form: str, codec: str) -> None:
    whole = clip(80, form, codec=codec)
    message = refusal(place, [whole, whole[: len(whole) // 2]])
    assert message.startswith("train.parquet row 1, column 'video': ")
    assert message.endswith("get the file again")


def test_without_the_library(place: Place, clip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = clip()
    monkeypatch.setitem(sys.modules, "av", None)
    assert refusal(place, [whole]) == (
        "train.parquet row 0, column 'video': a video file, read by the package av: pip install 'kdbench[video]', "
        "or give lists of pictures"
    )
