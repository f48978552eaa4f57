"""Views: rotations and the strong augmentation."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from kdbench.contract import NotApplicable
from kdbench.methods.shared.views import image_input, mirrored_rotations, rotated, rotations, weak_and_strong


def task(**shapes):
    return SimpleNamespace(raw_shape=shapes, alike=lambda one, other: one.rstrip("_hr") == other.rstrip("_hr"))


def net(name):
    return SimpleNamespace(input=name)


def test_rotations_turn_counter_clockwise_view_by_view():
    images = torch.arange(2 * 3 * 4 * 4).view(2, 3, 4, 4)
    views = rotations(images, None)
    assert views.shape == (4, 2, 3, 4, 4)
    assert torch.equal(views[0], images)
    assert torch.equal(views[1][0, 0, 0], images[0, 0, :, -1])  # the last column becomes the first row
    assert torch.equal(views[2], images.flip(-1, -2))


def test_all_rotations_of_an_image_are_mirrored_alike():
    images = torch.randint(256, (32, 1, 4, 4), dtype=torch.uint8)
    views = mirrored_rotations(images, torch.Generator().manual_seed(0))
    mirrored = [not torch.equal(views[0, i], images[i]) for i in range(32)]
    assert 4 < sum(mirrored) < 28
    for i, is_mirrored in enumerate(mirrored):
        upright = images[i].flip(-1) if is_mirrored else images[i]
        assert all(torch.equal(views[r, i], upright.rot90(r, (-2, -1))) for r in range(4))


def test_raw_rotations_own_the_mirroring_and_final_ones_leave_the_tasks_augmentation_alone():
    here = task(image=(3, 8, 8))
    raw, final = rotated(here, net("image"), raw=True), rotated(here, net("image"), net("image"))
    assert (raw.where, raw.replaces) == ("raw", ("flip",))
    assert (final.where, final.replaces) == ("final", ())


def test_oblong_images_and_two_inputs_cannot_be_rotated():
    with pytest.raises(NotApplicable, match="those of 'image' are 8x6"):
        rotated(task(image=(3, 8, 6)), net("image"))
    with pytest.raises(NotApplicable, match="the networks read image and audio"):
        rotated(task(image=(3, 8, 8), audio=(3, 8, 8)), net("image"), net("audio"))


def test_views_of_one_picture_at_two_sizes_are_of_both():
    both = task(image=(3, 8, 8), image_hr=(3, 16, 16))
    for views in (rotated(both, net("image"), net("image_hr"), raw=True), weak_and_strong(both, net("image"))):
        assert views.input == "image"
    with pytest.raises(NotApplicable, match="those of 'image_hr' are 16x8"):
        rotated(task(image=(3, 8, 8), image_hr=(3, 16, 8)), net("image"), net("image_hr"))


def test_an_input_made_from_the_only_image_has_that_images_views():
    assert image_input(task(image=(1, 8, 8)), net("image_lr")) == "image"
    with pytest.raises(NotApplicable, match="'audio' is none"):
        image_input(task(image=(1, 8, 8), audio=(1, 100)), net("audio"))


def test_the_weak_view_is_the_image_and_the_strong_one_depends_on_the_generator_alone():
    views = weak_and_strong(task(image=(3, 8, 8)), net("image"))
    pixels = torch.randint(256, (16, 3, 8, 8), dtype=torch.uint8)
    torch.manual_seed(1)
    first = views.fn(pixels, torch.Generator().manual_seed(5))
    after = torch.rand(())
    torch.manual_seed(2)
    assert torch.equal(first, views.fn(pixels, torch.Generator().manual_seed(5)))
    assert not torch.equal(first, views.fn(pixels, torch.Generator().manual_seed(6)))
    assert torch.equal(first[0], pixels)
    assert not torch.equal(first[1], pixels)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(()))  # the global generator is left as it was


def test_a_strong_view_of_other_than_grey_or_rgb_is_refused():
    with pytest.raises(NotApplicable, match="have 2 channels"):
        weak_and_strong(task(image=(2, 8, 8)), net("image"))
