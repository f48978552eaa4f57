"""Small data sets, made up, for the tests of ``kdbench.data``."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from kdbench.data import Place
from kdbench.data.decode.specification import SetSpec

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


def contents(place: Place) -> dict[str, Any]:
    """Facts of the one decoded data set of a cache."""
    return json.loads(next(place.cache.glob("toy-*/facts.json")).read_text())  # type: ignore[no-any-return]


def opened(file: bytes) -> Image.Image:
    """A picture file's picture."""
    return Image.open(io.BytesIO(file))
