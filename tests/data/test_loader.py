"""Augmentation has torchvision's distribution; batches depend on (seed, stage, draw) alone."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

from kdbench.base.errors import UserError
from kdbench.contract import Batch, Rows, Views
from kdbench.data.feed.augment import augmentation, crop, flip
from kdbench.data.feed.dataset import Dataset, Derived, Transform
from kdbench.data.feed.described import one_frame
from kdbench.data.feed.loader import InOrder, Loader
from kdbench.data.feed.stored import Geometry, Stored
from kdbench.data.sources import digits

PLAIN = Transform((0.0,), (1.0,))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(n: int = 20, size: int = 6, channels: int = 1) -> Tensor:
    """Pictures whose every pixel tells its picture and place."""
    return (torch.arange(n * channels * size * size) % 251 + 1).to(torch.uint8).view(n, channels, size, size)


def toy(n: int = 20, **more: object) -> Dataset:
    rows = Rows({"image": numbered(n)}, torch.arange(n) % 4)
    data = Dataset("toy", rows, rows, 4, {"image": PLAIN})
    return replace(data, **more)  # type: ignore[arg-type]


def equal(a: Batch, b: Batch) -> bool:
    same = all(torch.equal(a.x[name], b.x[name]) for name in a.x)
    return same and a.x.keys() == b.x.keys() and torch.equal(a.y, b.y) and torch.equal(a.index, b.index)


# ---- augmentation ----------------------------------------------------------------------------------------------------


def offsets(cropped: Tensor, picture: Tensor, pad: int) -> list[tuple[int, int]]:
    """Which window of the padded picture each crop is."""
    padded = torch.nn.functional.pad(picture, (pad,) * 4)
    _, h, w = picture.shape
    windows = {padded[:, y : y + h, x : x + w].numpy().tobytes(): (y, x) for y in range(9) for x in range(9)}
    return [windows[c.numpy().tobytes()] for c in cropped]


def test_crop_draws_every_window_as_often_as_torchvision() -> None:
    from torchvision.transforms import RandomCrop

    picture = torch.arange(1, 65, dtype=torch.uint8).view(1, 8, 8)
    n = 8100
    ours = Counter(offsets(crop(picture.expand(n, 1, 8, 8), generator(), 4), picture, 4))
    theirs = Counter(offsets(torch.stack([RandomCrop(8, padding=4)(picture) for _ in range(n)]), picture, 4))
    every = {(y, x) for y in range(9) for x in range(9)}
    assert set(ours) == set(theirs) == every
    for counts in (ours, theirs):  # 80 degrees of freedom: the 99.9 % point is 125
        assert sum((counts[o] - 100) ** 2 / 100 for o in every) < 125


def test_flip_mirrors_half_and_each_picture_by_itself() -> None:
    pixels = numbered(4000, 4)
    flipped = flip(pixels, generator())
    mirrored = (flipped == pixels.flip(-1)).flatten(1).all(1)
    assert torch.equal(flipped[~mirrored], pixels[~mirrored])
    assert 1850 < int(mirrored.sum()) < 2150  # 5 standard deviations of a fair coin


def test_flip_turns_all_frames_of_a_clip_alike() -> None:
    clips = numbered(50, 4).view(25, 1, 2, 4, 4)
    flipped = flip(clips, generator())
    for clip, turned in zip(clips, flipped, strict=True):
        assert torch.equal(turned, clip) or torch.equal(turned, clip.flip(-1))


@pytest.mark.parametrize("name", ["crop", "flip4", "crop0", "croop4", "resized_crop"])
def test_unknown_augmentations(name: str) -> None:
    with pytest.raises(UserError, match=f"unknown augmentation '{name}'.*crop<pixels>"):
        augmentation([name])


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


# ---- stored pictures ------------------------------------------------------------------------------------------------


def smooth(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture without fine detail, so that resampling twice changes little."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def stored(rows: list[list[Image.Image]], frames: int | None, size: int = 24, resize: int = 32) -> Stored:
    files = []
    for row in rows:
        for picture in row:
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            files.append(buffer.getvalue())
    bounds = np.cumsum([0, *map(len, files)])
    first = np.cumsum([0, *map(len, rows)])
    blob = np.frombuffer(b"".join(files), np.uint8)
    return Stored(blob, bounds, first, np.arange(len(rows)), Geometry(size, resize), frames, "0" * 64, "toy train")


@pytest.mark.parametrize(("width", "height"), [(64, 48), (40, 90), (32, 32), (20, 30)])
def test_test_geometry_is_torchvisions(width: int, height: int) -> None:
    from torchvision.transforms import CenterCrop, Compose, Resize
    from torchvision.transforms.functional import pil_to_tensor

    picture = smooth(width, height)
    ours = stored([[picture]], None)[torch.tensor([0])][0].float()
    theirs = pil_to_tensor(Compose([Resize(32), CenterCrop(24)])(picture)).float()
    assert (ours - theirs).abs().mean() < 2.0


def test_random_boxes_have_torchvisions_distribution() -> None:
    from torchvision.transforms import RandomResizedCrop

    from kdbench.data.feed.stored import random_box

    width, height, n = 60, 40, 3000
    rng = np.random.default_rng(0)
    ours = np.array([random_box(width, height, 0.08, rng) for _ in range(n)], float)
    ours = np.stack([ours[:, 0], ours[:, 1], ours[:, 2] - ours[:, 0], ours[:, 3] - ours[:, 1]], 1)
    blank = torch.zeros(3, height, width)
    drawn = [RandomResizedCrop.get_params(blank, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(n)]
    theirs = np.array([[left, top, w, h] for top, left, h, w in drawn], float)
    for ours_of, theirs_of in zip(ours.T, theirs.T, strict=True):
        error = np.hypot(ours_of.std(), theirs_of.std()) / np.sqrt(n)
        assert abs(ours_of.mean() - theirs_of.mean()) < 4 * error
        assert 0.92 < ours_of.std() / theirs_of.std() < 1.08
        for share in (0.1, 0.5, 0.9):
            assert abs(np.quantile(ours_of, share) - np.quantile(theirs_of, share)) <= 2
    assert (ours[:, 0] + ours[:, 2] <= width).all()
    assert (ours[:, 1] + ours[:, 3] <= height).all()


def clips() -> Dataset:
    videos = [[smooth(40, 30, 10 * v + f) for f in range(count)] for v, count in enumerate([6, 4, 2, 9, 5, 7])]
    column = stored(videos, 4, size=8, resize=10)
    rows = Rows({"clip": column}, torch.arange(6) % 3)  # type: ignore[dict-item]
    shades = {"clip": Transform((0.5,) * 3, (0.25,) * 3), "frame": Transform((0.5,) * 3, (0.25,) * 3)}
    return Dataset("toy", rows, rows, 3, shades, {"frame": Derived("clip", one_frame)})


@pytest.mark.parametrize("workers", [0, 2])
def test_clips_stream_alike_with_any_number_of_workers(workers: int) -> None:
    data = clips()
    assert data.shape("clip") == (3, 4, 8, 8)
    assert data.shape("frame") == (3, 8, 8)
    loader = Loader(data, data.train, ["resized_crop25", "flip"], 4, 0, "s", workers=workers)
    again = Loader(data, data.train, ["resized_crop25", "flip"], 4, 0, "s", workers=0)
    for number in (0, 1, 2):
        batch = loader.draw(number)
        assert equal(batch, again.draw(number))
        shown = (batch.x["frame"][:, :, None] == batch.x["clip"]).flatten(3).all(3).all(1)
        assert shown.any(1).all()  # the frame is one of the same, augmented clip
    assert not equal(loader.draw(0), loader.draw(2))


def test_test_clips_are_the_middle_frames_of_the_centre() -> None:
    data = clips()
    batches = list(InOrder(data, data.test, workers=0))
    x = torch.cat([batch.x["clip"] for batch in batches])
    assert torch.equal(x, torch.cat([batch.x["clip"] for batch in InOrder(data, data.test, workers=2)]))
    pixels = data.test.x["clip"][torch.arange(6)]
    assert torch.equal(x, data.finish({"clip": pixels})[0]["clip"])
    assert torch.equal(pixels[2, :, 0], pixels[2, :, 2])  # two frames, looped to four


def test_a_damaged_picture_is_named_from_a_worker_too() -> None:
    data = clips()
    column = data.train.x["clip"]
    assert isinstance(column, Stored)
    blob = column.blob.copy()
    blob[column.bounds[column.first[3]] : column.bounds[column.first[4]]] = 0
    rows = Rows({"clip": replace(column, blob=blob)}, data.train.y)  # type: ignore[dict-item]
    for workers in (0, 1):
        with pytest.raises(UserError, match=r"^toy train row 3: a picture cannot be decoded"):
            Loader(data, rows, [], 6, 0, "s", workers=workers).draw(0)


def test_resized_crop_is_for_pictures_on_disk() -> None:
    data = toy()
    with pytest.raises(UserError, match="resized_crop needs pictures that are read from disk"):
        Loader(data, data.train, ["resized_crop8"], 8, 0, "s")
