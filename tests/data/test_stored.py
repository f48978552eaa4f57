"""Rows read from disk with rows made in training behind them: as if all were held on the device."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from kdbench.checks.tiny import Tiny, method_config, tiny
from kdbench.contract import Rows, Views
from kdbench.data.feed.dataset import Dataset, Transform
from kdbench.data.feed.loader import Loader
from kdbench.data.feed.stored import Geometry, Stored
from kdbench.engine.assemble import hyper_parameters
from kdbench.engine.trainer import Trainer
from kdbench.specs import registry

PLAIN = Transform((0.0,) * 3, (1.0,) * 3)


def colours(n: int, size: int = 8, seed: int = 0) -> Tensor:
    """(n, 3, size, size) random pixels."""
    return torch.randint(256, (n, 3, size, size), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def png(pixels: Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def stored(pixels: Tensor) -> Stored:
    """(N, 3, S, S) or (N, 3, T, S, S) pixels as a column of lossless pictures of their own size."""
    frames = pixels.shape[2] if pixels.ndim == 5 else None
    files = [png(picture) for row in pixels for picture in (row.transpose(0, 1) if frames else [row])]
    bounds = np.cumsum([0, *map(len, files)])
    first = np.arange(len(pixels) + 1) * (frames or 1)
    blob = np.frombuffer(b"".join(files), np.uint8)
    size = pixels.shape[-1]
    return Stored(blob, bounds, first, np.arange(len(pixels)), Geometry(size, size), frames, "0" * 64, "toy train")


def toy(image: Tensor | Stored) -> Dataset:
    rows = Rows({"image": image}, torch.arange(len(image)) % 4)  # type: ignore[dict-item]
    return Dataset("toy", rows, rows, 4, {"image": PLAIN})


def test_rows_behind_a_stored_column_are_read_like_its_own() -> None:
    pixels, more, last = colours(6), colours(3, seed=1), colours(2, seed=2)
    whole = torch.cat([pixels[[4, 1]], more, last])
    column = stored(pixels).select(torch.tensor([4, 1])).append(more).append(last)
    assert column.shape == (7, 3, 8, 8)
    assert torch.equal(column[torch.arange(7)], whole)
    assert torch.equal(column.select(torch.tensor([6, 0, 3]))[torch.arange(3)], whole[[6, 0, 3]])


@pytest.mark.parametrize("frames", [None, 4])
def test_a_random_crop_is_drawn_for_rows_in_memory_too(frames: int | None) -> None:
    pixels = colours(5, 16) if frames is None else colours(20, 16).view(5, 4, 3, 16, 16).transpose(1, 2)
    on_disk, behind = stored(pixels), stored(pixels[:0]).append(pixels)
    index = torch.arange(5)
    drawn = [column.read(index, np.random.default_rng(3), 0.3) for column in (on_disk, behind)]
    assert drawn[0].shape == pixels.shape
    assert not torch.equal(drawn[1], pixels)
    if frames is None:  # of a clip the stored column draws a window as well
        assert torch.equal(*drawn)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_with_extra_rows_are_those_of_rows_on_the_device(workers: int) -> None:
    pixels, more = colours(12), colours(6, seed=1)
    resident, streamed = toy(torch.cat([pixels, more])), toy(stored(pixels).append(more))
    streamed = replace(streamed, train=Rows(streamed.train.x, resident.train.y))
    loaders = [Loader(data, data.train, ["crop1", "flip"], 5, 0, "s", workers=workers) for data in (resident, streamed)]
    for number in range(5):
        ours, theirs = (loader.draw(number) for loader in loaders)
        assert torch.equal(ours.x["image"], theirs.x["image"])
        assert torch.equal(ours.y, theirs.y)


@pytest.mark.parametrize("workers", [0, 1])
def test_views_that_are_drawn_anew_are_cropped_each_by_itself(workers: int) -> None:
    def repeated(pixels: Tensor, rng: torch.Generator) -> Tensor:
        raise AssertionError("stored pictures are read for each view")

    data, views = toy(stored(colours(6))), Views(2, repeated, "raw", anew=True)
    batches = [
        Loader(data, data.train, some, 4, 0, "s", views, workers=workers).draw(0) for some in (["resized_crop20"], [])
    ]
    assert [len(batch.x["image"]) for batch in batches] == [8, 8]
    cropped, still = ([batch.view(v).x["image"] for v in range(2)] for batch in batches)
    assert not torch.equal(*cropped)
    assert torch.equal(*still)
    with pytest.raises(ValueError, match="drawn anew are views of raw pixels"):
        Views(2, repeated, anew=True)


def small(name: str, kind: str) -> Tiny:
    """A method on a tiny task of two epochs."""
    config = method_config(registry.method(name))
    found = tiny(config.ref, config, config.ref.adapter().needs(hyper_parameters(config)), kind)
    train = found.config.task.train.model_copy(update={"epochs": 2})
    return replace(found, config=replace(found.config, task=found.config.task.model_copy(update={"train": train})))


def trained(found: Tiny, folder: Path) -> dict[str, Tensor]:
    """The deployed student's weights after all stages."""
    prepared = found.prepare(folder)
    Trainer(prepared.method, prepared.task, folder / "checkpoints", lambda net: {}).run()
    return prepared.method.deployed.state_dict()


@pytest.mark.filterwarnings("ignore:the teacher agrees")  # an untrained generator's fakes look like nothing
@pytest.mark.parametrize(
    ("name", "kind"), [("cgan_kd", "classification"), ("cgan_kd+kd", "classification"), ("cgan_kd", "regression")]
)
def test_a_method_with_rows_of_its_own_learns_alike_from_disk(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdbench.data.feed.loader.default_workers", lambda: 0)
    resident = small(name, kind)
    train, test = resident.data.train, resident.data.test
    assert set(train.x) == {"image"}
    column = Rows({"image": stored(train.x["image"])}, train.y)  # type: ignore[dict-item]
    streamed = replace(resident, data=replace(resident.data, train=column, test=test))
    ours, theirs = trained(resident, tmp_path / "a"), trained(streamed, tmp_path / "b")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
