"""Batches depend on (seed, stage, draw) alone, on a device as with worker processes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from stored_rows import smooth, stored
from torch import Tensor
from toy_rows import PLAIN, equal, numbered, toy

from kdbench.base.errors import UserError
from kdbench.contract import Rows, Views
from kdbench.data.feed.dataset import Dataset, Derived, Transform
from kdbench.data.feed.described import one_frame
from kdbench.data.feed.loader import Loader
from kdbench.data.sources import digits


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- device-resident batches ----------------------------------------------------------------------------------------


def test_an_epoch_holds_every_row_once() -> None:
    data = toy()
    loader = Loader(data, data.train, ["crop1", "flip"], 8, 0, "s")
    assert loader.steps == 3
    for epoch in range(2):
        seen = torch.cat([loader.draw(epoch * 3 + i).index for i in range(3)])
        assert sorted(seen.tolist()) == list(range(20))
    assert Loader(data, data.train, [], 8, 0, "s", drop_below=5).steps == 2


def test_batches_depend_on_seed_stage_and_number_alone() -> None:
    data = toy()

    def loader(seed: int = 0, stage: str = "s") -> Loader:
        return Loader(data, data.train, ["crop1", "flip"], 8, seed, stage)

    in_order = [loader().draw(i) for i in range(6)]
    late = loader()
    assert equal(late.draw(4), in_order[4])
    assert equal(late.draw(1), in_order[1])
    assert not equal(loader(1).draw(0), in_order[0])
    assert not equal(loader(stage="t").draw(0), in_order[0])
    assert not equal(in_order[0], in_order[3])


def test_rows_that_nothing_touches_are_normalised_alike() -> None:
    data = digits.load({"inputs": ["image", "image_lr", "profiles"]})
    data = replace(data, train=Rows({"image": data.train.x["image"][:30]}, data.train.y[:30]))
    batch = Loader(data, data.train, [], 10, 0, "s").draw(0)
    expected, _ = data.finish({"image": data.train.x["image"][batch.index]})
    assert set(batch.x) == {"image", "image_lr", "profiles"}
    for name, values in expected.items():
        assert torch.equal(batch.x[name], values)


def test_inputs_of_the_same_pixels_are_augmented_alike() -> None:
    def half(pixels: Tensor, rng: torch.Generator | None) -> Tensor:
        return pixels[:, :, ::2, ::2]

    data = toy(transforms={"image": PLAIN, "small": PLAIN}, derived={"small": Derived("image", half)})
    assert data.shape("small") == (1, 3, 3)
    batch = Loader(data, data.train, ["crop2", "flip"], 20, 0, "s").draw(0)
    assert torch.equal(batch.x["small"], batch.x["image"][:, :, ::2, ::2])
    assert not torch.equal(batch.x["image"], data.finish({"image": data.train.x["image"][batch.index]})[0]["image"])


def test_a_task_reads_only_its_inputs() -> None:
    data = digits.load({"inputs": ["profiles"]})
    assert set(data.only(["profiles"]).train.x) == {"image"}
    assert set(data.only(["image"]).derived) == set()
    with pytest.raises(UserError, match="has no input 'sound'; its inputs are image, profiles"):
        data.only(["sound"])


def test_rows_that_lack_an_input_are_marked() -> None:
    sound = torch.tensor([[1.0, 2.0], [float("nan")] * 2, [3.0, 4.0]])
    rows = Rows({"audio": sound}, torch.arange(3))
    data = Dataset("toy", rows, rows, 3, {"audio": Transform((1.0,), (2.0,))}, optional=frozenset({"audio"}))
    twice = Views(2, lambda x, rng: torch.stack([x, x]), input="image")
    batch = Loader(data, rows, [], 3, 0, "s", twice).draw(0)
    lacking = batch.index == 1
    assert torch.equal(batch.present["audio"], ~lacking)
    assert len(batch.present["audio"]) == 6
    assert batch.x["audio"][lacking].tolist() == [[-0.5, -0.5]] * 2
    assert not batch.x["audio"].isnan().any()


def doubled(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """A view as it is and one with noise."""
    noise = torch.randint(0, 50, pixels.shape, generator=rng, dtype=torch.uint8)
    return torch.stack([pixels, pixels // 2 + noise]) if pixels.dtype is torch.uint8 else torch.stack([pixels, -pixels])


def test_raw_views_are_augmented_one_by_one_and_final_ones_are_not() -> None:
    data = toy()
    raw = Loader(data, data.train, ["crop2"], 20, 0, "s", Views(2, lambda x, _: torch.stack([x, x]), "raw")).draw(0)
    assert (len(raw), raw.views) == (40, 2)
    assert not torch.equal(*raw.unview(raw.x["image"]))
    assert torch.equal(*raw.unview(raw.index))
    final = Loader(data, data.train, ["crop2"], 20, 0, "s", Views(2, doubled, "final")).draw(0)
    assert torch.equal(final.view(0).x["image"], -final.view(1).x["image"])
    owned = Views(2, lambda x, _: torch.stack([x, x.flip(-1)]), "raw", ("flip",))
    both = Loader(data, data.train, ["flip"], 20, 0, "s", owned).draw(0)
    assert torch.equal(both.view(0).x["image"], both.view(1).x["image"].flip(-1))


def test_other_inputs_are_repeated_for_each_view() -> None:
    data = digits.load({"inputs": ["profiles"]})
    rows = Rows({"image": data.train.x["image"][:12]}, data.train.y[:12])
    batch = Loader(data, rows, ["crop1"], 12, 0, "s", Views(2, lambda x, _: torch.stack([x, x]), "raw")).draw(0)
    assert len(batch.x["profiles"]) == len(batch.x["image"]) == len(batch.y) == 24


# ---- inputs of one picture ------------------------------------------------------------------------------------------


def next_row(rows: Tensor, rng: torch.Generator) -> Tensor:
    """The row behind each, or the one behind that."""
    return (rows + 1 + torch.randint(2, rows.shape, generator=rng)) % 20


@pytest.mark.parametrize("batch", [8, 20])
def test_partners_are_the_second_view(batch: int) -> None:
    """Every batch holds its rows and behind them their partners, whose targets, numbers and pixels are their own."""
    data = toy()
    loader = Loader(data, data.train, [], batch, 0, "s", partners=next_row, workers=0)
    alone = Loader(data, data.train, [], batch, 0, "s", workers=0)
    for number in range(2 * loader.steps):
        drawn, rows = loader.draw(number), alone.draw(number)
        own, partner = drawn.view(0), drawn.view(1)
        assert drawn.views == loader.n_views == 2
        assert equal(own, rows), "partners leave the order alone"
        assert set(((partner.index - own.index) % 20).tolist()) <= {1, 2}
        assert torch.equal(partner.y, data.train.y[partner.index])
        assert torch.equal(partner.x["image"], data.finish({"image": data.train.x["image"][partner.index]})[0]["image"])
    assert not torch.equal(loader.draw(0).view(1).index, loader.draw(loader.steps).view(1).index)
    again = Loader(data, data.train, [], batch, 0, "s", partners=next_row, workers=0)
    assert equal(again.draw(1), loader.draw(1)), "a batch depends on its number alone"


def twins(n: int = 64, sizes: tuple[int, int] = (8, 8), **more: object) -> Dataset:
    """Two inputs of one column of pictures, in pixels, the second at a multiple of the first's size."""
    first = numbered(n, sizes[0])
    times = sizes[1] // sizes[0]
    second = first.repeat_interleave(times, -1).repeat_interleave(times, -2)
    other = numbered(n, sizes[0]).flip(0)
    rows = Rows({"other": other, "image": first, "image_t": second}, torch.arange(n) % 4)
    shades = {"other": PLAIN, "image": Transform((0.5,), (0.25,)), "image_t": PLAIN}
    shows = {"other": "depth", "image": "picture", "image_t": "picture"}
    return replace(Dataset("toy", rows, rows, 4, shades, shows=shows), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("names", [("image", "image_t"), ("image_t", "image")])
@pytest.mark.parametrize("sizes", [(8, 8), (8, 16), (8, 24)])
def test_inputs_of_one_picture_show_the_same_crop_at_their_own_size_and_shade(
    names: tuple[str, str], sizes: tuple[int, int]
) -> None:
    data = twins(sizes=sizes).only([*names, "other"])
    times = sizes[1] // sizes[0]
    amount = 2 if names[0] == "image" else 2 * times  # in pixels of the first
    batch = Loader(data, data.train, [f"crop{amount}", "flip"], 32, 0, "s").draw(0)
    small, large = batch.x["image"] * 0.25 + 0.5, batch.x["image_t"]
    if names[0] == "image":
        assert torch.allclose(small.repeat_interleave(times, -1).repeat_interleave(times, -2), large)
    else:  # the first crops by its own, smaller pixels: the other follows to the nearest of its own
        near = torch.nn.functional.avg_pool2d(large, times)
        assert torch.corrcoef(torch.stack([near.flatten(), small.flatten()]))[0, 1] > 0.7
    assert not torch.equal(batch.x["other"].flip(0), small)
    still = (small - data.train.x["image"][batch.index] / 255).abs().flatten(1).amax(1) < 1e-3
    assert int(still.sum()) < 8  # one in 50 is neither moved nor mirrored


def test_a_second_view_of_a_picture_leaves_the_draws_of_the_first_alone() -> None:
    both, alone = twins(), twins().only(["other", "image"])
    for more in ({}, {"views": Views(2, doubled, "raw")}):
        one = Loader(alone, alone.train, ["crop2", "flip"], 32, 0, "s", **more).draw(1)  # type: ignore[arg-type]
        two = Loader(both, both.train, ["crop2", "flip"], 32, 0, "s", **more).draw(1)  # type: ignore[arg-type]
        assert all(torch.equal(one.x[name], two.x[name]) for name in ("other", "image"))


@pytest.mark.parametrize("where", ["raw", "final"])
@pytest.mark.parametrize("host", [False, True])
def test_views_of_a_picture_are_of_all_its_inputs(where: str, host: bool) -> None:
    if host and where == "final":
        return
    data = twins(transforms=dict.fromkeys(("other", "image", "image_t"), PLAIN))
    views = Views(2, pil_views if host else doubled, where, host=host)  # type: ignore[arg-type]
    batch = Loader(data, data.train, ["crop2"], 32, 0, "s", views, workers=0).draw(0)
    assert torch.equal(batch.x["image"], batch.x["image_t"])
    assert not torch.equal(*batch.unview(batch.x["image_t"]))


def test_final_views_of_an_input_and_of_what_is_made_from_it_are_of_both() -> None:
    small = Derived("image", lambda raw, rng: raw[..., ::2, ::2])
    shades = dict.fromkeys(("other", "image", "image_t", "small"), PLAIN)
    data = twins(transforms=shades, derived={"small": small}).only(["small", "image"])
    for name in ("small", "image"):
        batch = Loader(data, data.train, [], 32, 0, "s", Views(2, doubled, "final", input=name), workers=0).draw(0)
        assert not any(torch.equal(*batch.unview(batch.x[seen])) for seen in ("small", "image"))


def alike(small: Tensor, large: Tensor) -> float:
    """Least correlation of pictures with the same pictures at a larger size."""
    near = torch.nn.functional.interpolate(large.flatten(0, -4).float(), small.shape[-1], mode="area").flatten(1)
    return min(
        float(torch.corrcoef(torch.stack([a, b]))[0, 1])
        for a, b in zip(small.flatten(0, -4).float().flatten(1), near, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_stored_inputs_of_one_picture_show_the_same_crop_at_their_own_size(workers: int) -> None:
    pictures = [[smooth(40 + number, 50, number)] for number in range(24)]
    x = {name: stored(pictures, None, size, size) for name, size in (("image", 16), ("image_t", 32))}
    x = {name: column.append(column[torch.arange(4)]) for name, column in x.items()}  # rows made in training too
    rows = Rows(x, torch.arange(28) % 4)  # type: ignore[arg-type]
    shade = Transform((0.5,) * 3, (0.25,) * 3)
    data = Dataset("toy", rows, rows, 4, dict.fromkeys(x, shade), shows=dict.fromkeys(x, "picture"))
    loader = Loader(data, rows, ["resized_crop25", "flip"], 14, 0, "s", workers=workers)
    for number in range(3):
        batch = loader.draw(number)
        assert alike(batch.x["image"], batch.x["image_t"]) > 0.97
    apart = replace(data, shows={})
    batch = Loader(apart, rows, ["resized_crop25", "flip"], 14, 0, "s", workers=0).draw(0)
    assert alike(batch.x["image"], batch.x["image_t"]) < 0.8


def test_clips_of_one_video_show_the_same_frames_and_crop() -> None:
    videos = [[smooth(40, 30, 10 * v + f) for f in range(count)] for v, count in enumerate([6, 4, 2, 9, 5, 7])]
    sizes = {"clip": (4, 8), "large": (4, 16), "short": (2, 8)}
    x = {name: stored(videos, frames, size, size) for name, (frames, size) in sizes.items()}
    rows = Rows(x, torch.arange(6) % 3)  # type: ignore[arg-type]
    shade = Transform((0.5,) * 3, (0.25,) * 3)
    derived = {"frame": Derived("clip", one_frame), "frame_t": Derived("large", one_frame)}
    shades = dict.fromkeys([*x, *derived], shade)
    data = Dataset("toy", rows, rows, 3, shades, derived, dict.fromkeys(x, "video"))
    loader = Loader(data, rows, ["resized_crop25", "flip"], 6, 0, "s", workers=0)
    for number in range(4):
        batch = loader.draw(number)
        frames = {name: value.transpose(1, 2) for name, value in batch.x.items() if value.ndim == 5}
        assert alike(frames["clip"], frames["large"]) > 0.95
        assert alike(batch.x["frame"], batch.x["frame_t"]) > 0.95
        long = batch.index != 2  # of two frames, looped
        assert torch.equal(frames["short"][long], frames["clip"][long][:, 1:3])


# ---- worker processes -----------------------------------------------------------------------------------------------


def pil_views(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """A view as it is and one through PIL, as JDA makes them."""
    turned = []
    for picture, amount in zip(pixels, torch.randint(64, 255, (len(pixels),), generator=rng).tolist(), strict=True):
        turned.append(np.asarray(ImageOps.solarize(Image.fromarray(picture[0].numpy()), amount)))
    return torch.stack([pixels, torch.from_numpy(np.stack(turned))[:, None]])


@pytest.mark.parametrize("workers", [1, 2])
def test_host_views_are_the_same_with_any_number_of_workers(workers: int) -> None:
    data = toy()

    def loader(count: int) -> Loader:
        return Loader(data, data.train, ["crop1"], 8, 0, "s", Views(2, pil_views, "raw", host=True), workers=count)

    alone, helped = loader(0), loader(workers)
    expected = [alone.draw(i) for i in range(5)]
    assert all(equal(helped.draw(i), expected[i]) for i in range(5))
    assert equal(helped.draw(2), expected[2])  # another place: the workers start again
    assert equal(loader(workers).draw(3), expected[3])


def test_workers_leave_the_global_generator_alone() -> None:
    data = toy()
    loader = Loader(data, data.train, [], 8, 0, "s", Views(2, pil_views, "raw", host=True), workers=1)
    torch.manual_seed(5)
    loader.draw(0)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))


def test_host_views_are_of_raw_pixels() -> None:
    with pytest.raises(ValueError, match="views of raw pixels"):
        Views(2, pil_views, "final", host=True)
