"""Real data: what lies in ``KDBENCH_DATA`` loads, is what it should be, and trains; full-size tasks run on tiny
generated folders of the same columns, through the same code, because their data are not here.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from kdbench import data
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.contract import Rows
from kdbench.data import Place
from kdbench.data.decode.inputs import ClipInput, ImageInput, PictureInput, SoundInput, VectorInput
from kdbench.data.decode.specification import SetSpec, set_spec
from kdbench.data.feed.dataset import Dataset
from kdbench.records.files import Record
from kdbench.runs.run import Request, run_seed
from kdbench.specs import registry
from kdbench.specs.config import run_config
from kdbench.specs.data import Data

FOLDER = os.environ.get("KDBENCH_DATA")
slow = pytest.mark.slow
here = [pytest.mark.data, slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """One home for the module: each data set is decoded once."""
    return Home(tmp_path_factory.mktemp("real"))


@pytest.fixture
def folder() -> Path:
    if FOLDER is None:
        pytest.skip("KDBENCH_DATA names no data folder")
    return Path(FOLDER)


def load(task: str, folder: Path, home: Home) -> Dataset:
    source = registry.task(task).data
    name = set_spec(source.source).places(source.options.get("copy")) if source.source != "av-digits" else ["fsdd"]
    if not any((folder / place).is_dir() for place in name):
        pytest.skip(f"no {' or '.join(name)} in KDBENCH_DATA")
    return data.load(source, Place(folder, home.data))


def run(method: str, task: str, folder: Path, home: Home, *overrides: str, smoke: bool = False) -> Record:
    config = run_config(method, task, list(overrides), smoke=smoke)
    request = Request(config, 0, torch.device("cpu"), home, folder, overhead="off", progress=Progress.silent())
    return run_seed(request)


def md5_of_idx(magic: int, values: np.ndarray) -> str:
    """MD5 of an IDX file: magic number, sizes, bytes."""
    head = b"".join(int(n).to_bytes(4, "big") for n in (magic, *values.shape))
    return hashlib.md5(head + values.astype(np.uint8).tobytes()).hexdigest()


@pytest.mark.parametrize("_", [pytest.param(0, marks=here)])
def test_mnist_is_the_original(folder: Path, home: Home, _: int) -> None:
    found = load("mnist", folder, home)
    assert (found.name, found.official) == ("mnist", True)
    assert md5_of_idx(2051, found.test.x["image"][:, 0].numpy()) == "2646ac647ad5339dbf082846283269ea"
    assert md5_of_idx(2049, found.train.y.numpy()) == "a25bea736e30d166cdddb491f175f624"
    assert md5_of_idx(2049, found.test.y.numpy()) == "27ae3e4e09519cfbb04c329615203637"


@pytest.mark.parametrize(
    ("task", "rows", "name"),
    [
        pytest.param("cifar10-jpeg/small", (4000, 1000), "cifar10-jpeg", marks=here),
        pytest.param("cifar100-resplit/resnet56-resnet20", (50000, 10000), "cifar100-resplit", marks=here),
        pytest.param("utkface/vgg13-resnet20", (8984, 1788), "utkface", marks=here),
        pytest.param("ucf101-audio", (4893, 1944), "ucf101-audio", marks=here),
        pytest.param("av-digits", (2700, 300), "av-digits", marks=here),
    ],
)
def test_real_data_load_fast_the_second_time(
    task: str, rows: tuple[int, int], name: str, folder: Path, home: Home
) -> None:
    first = load(task, folder, home)
    assert (len(first.train.y), len(first.test.y)) == rows
    assert (first.name, first.official) == (name, True)
    begin = time.perf_counter()
    second = load(task, folder, home)
    assert time.perf_counter() - begin < 1.0
    assert first.digest("train") == second.digest("train")


def sums_of(rows: Rows) -> tuple[list[int], list[int]]:
    """Sums of the pixel values and of their squares, by channel."""
    pixels = rows.x["image"].numpy().astype(np.uint16)
    return pixels.sum((0, 2, 3), dtype=np.int64).tolist(), np.square(pixels).sum((0, 2, 3), dtype=np.int64).tolist()


@pytest.mark.parametrize("_", [pytest.param(0, marks=here)])
def test_sources_of_rows_from_elsewhere_are_what_they_should_be(folder: Path, home: Home, _: int) -> None:
    for name in ("digits/few-shot", "utkface/few-shot"):
        task, place = registry.task(name), Place(folder, home.data)
        own = data.load(task.data, place)
        for given in (one for one in task.score.external.values() if one.source is not None):
            other = data.load(Data(source=str(given.source), options=given.options), place)
            assert other.official
            assert not set(own.test.x) - set(other.test.x)
            assert not {row.tobytes() for row in other.test.x["image"].numpy()} & {
                row.tobytes() for part in (own.train, own.test) for row in part.x["image"].numpy()
            }


@pytest.mark.parametrize("_", [pytest.param(0, marks=here)])
def test_official_sums_are_means_times_pixels(folder: Path, home: Home, _: int) -> None:
    """The way the sums of CIFAR and Fashion-MNIST were reckoned, on the set whose original is here."""
    mean, deviation, pixels = 0.1306604762738429, 0.30810780385646264, 60000 * 784  # published, of the training part
    found = load("mnist", folder, home)
    (total,), (squares,) = sums_of(found.train)
    assert round(mean * 255 * pixels) == total
    assert round((deviation**2 + mean**2) * 255**2 * pixels) == pytest.approx(squares, abs=1)


@pytest.mark.parametrize("_", [pytest.param(0, marks=here)])
def test_official_sums_of_cifar_agree_with_the_copies(folder: Path, home: Home, _: int) -> None:
    """Both parts of CIFAR-100 under another split sum up to the official ones; JPEG hardly moves a mean."""
    about = set_spec("cifar100").identity
    resplit = load("cifar100-resplit/resnet56-resnet20", folder, home)
    pool = np.array(sums_of(resplit.train)[0]) + np.array(sums_of(resplit.test)[0])
    assert pool.tolist() == (np.array(about.sums["train"]) + np.array(about.sums["test"])).tolist()
    copy = data.load(registry.task("cifar10-jpeg/vgg13-vgg8").data, Place(folder, home.data))
    about = set_spec("cifar10").identity
    for rows, part in ((copy.train, "train"), (copy.test, "test")):
        total, squares = sums_of(rows)
        assert total == pytest.approx(about.sums[part], rel=5e-4)
        assert squares == pytest.approx(about.squares[part], rel=5e-3)


@pytest.mark.parametrize("_", [pytest.param(0, marks=here)])
def test_the_jpeg_copy_is_not_taken_for_the_original(folder: Path, home: Home, _: int) -> None:
    from kdbench.base.errors import UserError

    load("cifar10-jpeg/small", folder, home)
    if (folder / "cifar10-jpeg").is_dir():
        pytest.skip("the copy lies in a folder of its own")
    with pytest.raises(UserError, match="holds cifar10-jpeg"):
        load("cifar10/vgg13-vgg8", folder, home)


@pytest.mark.parametrize(
    ("task", "overrides", "least"),
    [
        pytest.param("mnist/few-shot", ["train.epochs=60", "pair.teachers.image.train.epochs=3"], 30, marks=here),
        pytest.param("cifar10-jpeg/small", ["train.epochs=2", "data.options.first.train=100"], 12, marks=here),
        pytest.param(
            "cifar100-resplit/small",
            ["train.epochs=2", "data.options.first.train=10", "pair.student.net=convnet_w8",
             "pair.teachers.image.net=convnet_w16"],
            1.0, marks=here,
        ),
        pytest.param("ucf101-audio", ["train.epochs=3"], 15, marks=here),
        pytest.param("av-digits", ["train.epochs=20", "pair.teachers.image.train.epochs=2"], 20, marks=here),
    ],
)  # fmt: skip
def test_kd_trains_on_real_data(task: str, overrides: list[str], least: float, folder: Path, home: Home) -> None:
    load(task, folder, home)
    roles = registry.task(task).pair.teachers
    lenient = [f"pair.teachers.{role}.min_score=0" for role in roles]
    record = run("kd", task, folder, home, *overrides, *lenient)
    assert record.status == "ok", record.error
    assert record.score is not None
    assert record.score > least  # a few epochs, well above chance


@pytest.mark.parametrize("_", [pytest.param(0, marks=here)])
def test_plain_learns_ages_in_years(folder: Path, home: Home, _: int) -> None:
    load("utkface/small", folder, home)
    record = run("plain", "utkface/small", folder, home, "train.epochs=2", "data.options.first.train=1000")
    assert record.status == "ok", record.error
    assert record.score is not None
    assert 5 < record.score < 14  # the mean age alone is 11.6 years off


# ---- full-size tasks on tiny generated folders ----------------------------------------------------------------------


def picture(rng: np.random.Generator, size: int, channels: int, form: str = "PNG") -> bytes:
    shape = (size, size, 3) if channels == 3 else (size, size)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(buffer, form)
    return buffer.getvalue()


def value(given: Any, rng: np.random.Generator) -> Any:
    """A random value of an input's column."""
    if isinstance(given, ImageInput):
        return {"bytes": picture(rng, given.size, given.channels), "path": None}
    if isinstance(given, PictureInput):
        return {"bytes": picture(rng, int(rng.integers(40, 80)), 3, "JPEG"), "path": None}
    if isinstance(given, ClipInput):
        return [{"bytes": picture(rng, 40, 3, "JPEG"), "path": None} for _ in range(int(rng.integers(10, 20)))]
    if isinstance(given, VectorInput):
        return rng.random(given.size).astype(np.float32).tolist()
    assert isinstance(given, SoundInput)
    return rng.integers(-100, 100, 500).tolist()


def generate(spec: SetSpec, folder: Path, rows: int) -> Path:
    """A data folder with a few random rows of a set's columns; some lack an optional input."""
    rng = np.random.default_rng(0)
    (folder / spec.folders[0]).mkdir(parents=True)
    for part, names in spec.parts.items():
        columns: dict[str, list[Any]] = {g.column: [value(g, rng) for _ in range(rows)] for g in spec.inputs.values()}
        for given in spec.inputs.values():
            if isinstance(given, VectorInput) and given.optional:
                columns[given.column][0] = None
            if isinstance(given, SoundInput):
                columns[given.rate_column] = [given.rate] * rows
        if spec.label is not None:
            columns[spec.label.column] = [int(n) for n in np.arange(rows) % spec.label.classes]
        if spec.target is not None:
            columns[spec.target.column] = [int(v) for v in np.linspace(*spec.target.range, rows)]
        if spec.id is not None:
            columns[spec.id] = [f"{part}-{n}" for n in range(rows)]
        pq.write_table(pa.table(columns), folder / spec.folders[0] / f"{names[0]}-00000-of-00001.parquet")
    return folder


FULL_SIZE = {
    "cifar100/resnet32x4-shufflenetv1": [], "cifar10/resnet56-resnet20": [], "tiny-imagenet/vgg13-vgg8": [],
    "ucf101/features": [], "vggsound/features": [], "activitynet/features": [], "fashion-mnist": [],
    "rc49/vgg19-resnet20": [], "steering/vgg19-resnet20": [],
    "imagenet/resnet34-resnet18": ["pair.teachers.image.weights=auto"],
    "ucf101/audio-image-r2plus1d": ["pair.teachers.image.weights=auto", "pair.student.net=r2plus1d_tiny"],
    "vggsound/audio-image-r2plus1d": ["pair.teachers.image.weights=auto", "pair.student.net=r2plus1d_tiny"],
    "activitynet/audio-image-r2plus1d": ["pair.teachers.image.weights=auto", "pair.student.net=r2plus1d_tiny"],
}  # fmt: skip


@pytest.mark.parametrize("task", [pytest.param(t, marks=[slow, pytest.mark.timeout(600)]) for t in FULL_SIZE])
def test_full_size_tasks_run_on_a_tiny_folder_of_their_columns(task: str, tmp_path: Path) -> None:
    """A generated folder stands in for data that are not here; what is trained on it means nothing."""
    spec = registry.task(task)
    folder = generate(set_spec(spec.data.source), tmp_path / "data", rows=8)
    method = "kd" if spec.kind != "regression" else "plain"
    record = run(method, task, folder, Home(tmp_path / "home"), *FULL_SIZE[task], smoke=True)
    assert record.status == "ok", record.error
    assert not record.task.ranked  # other rows than the task's
    name = record.task.data[0].name  # of a set whose rows are not known, they are the user's own
    assert name.startswith((f"{spec.data.source}-other-", f"{spec.data.source}-yours-"))
    assert record.task.data[0].n == 8


@slow
@pytest.mark.timeout(600)
def test_a_video_task_runs_on_a_folder_of_video_files(tmp_path: Path) -> None:
    """Raw clips in a folder a class, stored features beside most of them."""
    av = pytest.importorskip("av", reason="the video extra (av) is not installed")
    film = tmp_path / "film.avi"
    with av.open(str(film), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(12):  # shorter than the clip: looped, as the task asks
            grey = np.full((48, 64, 3), 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    for part in ("train", "test"):
        for label in range(51):
            place = tmp_path / "data" / "ucf101" / part / f"class{label:02}"
            place.mkdir(parents=True)
            (place / f"{part}_{label}.avi").write_bytes(film.read_bytes())
            if label:
                np.save(place / f"{part}_{label}.npy", np.random.default_rng(label).random(512, np.float32))
    task = "ucf101/audio-image-r2plus1d"
    changes = [*FULL_SIZE[task], "method.unequal_widths=project"]
    record = run("ccl", task, tmp_path / "data", Home(tmp_path / "home"), *changes, smoke=True)
    assert record.status == "ok", record.error
    assert record.task.data[0].n == 16  # the smoke budget's
