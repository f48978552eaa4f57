"""Objects of pictures as targets, and what a detector returns."""

from __future__ import annotations

import pytest
import torch

from kdbench.contract import Batch, Dense, NotApplicable, Objects, Out

PICTURES = [[[0, 1, 2, 5, 6], [2, 0, 0, 3, 3]], [], [[1, 4, 4, 8, 7]]]


def objects(**more: torch.Tensor) -> Objects:
    made = Objects.of(PICTURES, (8, 10))
    return Objects(made.boxes, made.labels, made.counts, made.sizes, **more)


def test_rows_are_picked_in_any_order_and_pictures_may_be_empty():
    held = objects(area=torch.tensor([1.0, 2.0, 3.0]), ignore=torch.tensor([False, True, False]))
    picked = held[torch.tensor([2, 1, 0, 2])]
    assert picked.tolist() == [PICTURES[2], [], PICTURES[0], PICTURES[2]]
    assert picked.image.tolist() == [0, 2, 2, 3]
    assert picked.area is not None
    assert picked.area.tolist() == [3, 1, 2, 3]
    assert held[1:].tolist() == PICTURES[1:]
    assert len(held[1:2].boxes) == 0
    assert len(held[1:2]) == 1


def test_views_stand_one_after_the_other_and_a_batch_splits():
    held = objects()
    twice = held.repeat(2)
    assert twice.tolist() == PICTURES + PICTURES
    batch = Batch({"image": torch.zeros(6, 1, 8, 10)}, twice, torch.arange(3).repeat(2), 2)
    assert batch.view(1).y.tolist() == PICTURES


def test_what_is_sliced_and_joined_is_what_it_was():
    held = objects(ignore=torch.tensor([False, True, False]), origin=torch.full((3, 2), 20.0))
    back = held[:1].join(held[1:])
    assert {name: tensor.tolist() for name, tensor in back.tensors().items()} == {
        name: tensor.tolist() for name, tensor in held.tensors().items()
    }


def test_a_part_without_areas_is_joined_by_those_of_its_boxes():
    other = objects(area=torch.tensor([7.0, 7.0, 7.0]), ignore=torch.tensor([True, True, True]))
    both = objects().join(other)
    assert both.area is not None
    assert both.area.tolist() == [16, 9, 12, 7, 7, 7]
    assert both.ignore is not None
    assert both.ignore.tolist() == [False] * 3 + [True] * 3


def test_some_objects_are_left_out_and_lists_hold_no_ignored_ones():
    held = objects(ignore=torch.tensor([False, True, False]))
    kept = held.keep(held.labels > 0)
    assert kept.counts.tolist() == [1, 0, 1]
    assert kept.tolist() == [[PICTURES[0][1]], [], PICTURES[2]]
    listed = held.listed()
    assert [entry["labels"].tolist() for entry in listed] == [[0], [], [1]]
    assert listed[1]["boxes"].shape == (0, 4)


def test_fields_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="area are 2, the other fields are of 3 objects"):
        objects(area=torch.zeros(2))
    with pytest.raises(ValueError, match="origin are 1, counts are of 3 pictures"):
        objects(origin=torch.zeros(1, 2))


def test_what_a_detector_gives_is_named_and_what_it_does_not_give_is_refused():
    level = torch.zeros(2, 4, 3, 3, dtype=torch.float16)
    dense = Dense((level,), (8,), cls=(torch.zeros(2, 9, 1),), taps={2: ((level, level),)})
    out = Out(None, (level,), dense=dense)
    assert out.words == {"maps", "fpn", "strides", "cls", "taps:2"}
    assert out.dense.has("taps:2")
    assert not out.dense.has("box")
    with pytest.raises(NotApplicable, match="gives no box, but cls, fpn, strides, taps:2"):
        _ = out.dense.box
    with pytest.raises(NotApplicable, match="gives no dense, but logits"):
        _ = Out(torch.zeros(2, 3)).dense
    whole = out.float().dense
    assert whole.fpn[0].dtype is whole.taps[2][0][0].dtype is torch.float32
    assert whole.words == dense.words


def test_outs_without_a_pyramid_have_as_many_fields_as_before():
    logits = torch.zeros(2, 3)
    assert len(list(Out(logits))) == 5
    assert len(list(Out(logits, code=logits))) == 6
    assert Out(logits, dense=Dense((logits,), (1,)))._asdict()["dense"].strides == (1,)
