"""Detectors: torchvision's own models with the same weights give the same losses, and nothing unread is computed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torchvision.models.detection import FCOS, RetinaNet

from kdbench import models
from kdbench.base.errors import UserError
from kdbench.contract import Batch, NotApplicable, Objects
from kdbench.identity import sourcecode
from kdbench.models.detector import Detector, FCOSDetector

SIZE = (96, 128)
PICTURES = [[[0, 10, 10, 60, 60], [1, 5, 6, 30, 35], [2, 60, 30, 126, 90]], [], [[1, 2.5, 3.5, 50, 20]]]
NETS = ["fcos_c32s8-32h2:cell_w4d1", "retinanet_c32s8-32h2a2:cell_w4d1"]


def batch(pictures: list[Any] = PICTURES, **more: Any) -> Batch:
    y = Objects.of(pictures, SIZE)
    y = Objects(y.boxes, y.labels, y.counts, y.sizes, **more)
    return Batch({"image": torch.randn(len(pictures), 3, *SIZE)}, y, torch.arange(len(pictures)))


def detector(name: str) -> Detector:
    torch.manual_seed(0)
    made = models.build(name, (3, *SIZE), 3)
    assert isinstance(made, Detector)
    return made


class Levels(torch.nn.Module):
    """What torchvision calls a backbone."""

    def __init__(self, net: Detector) -> None:
        super().__init__()
        self.net, self.out_channels = net, 32

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return dict(enumerate(self.net.encode(x).dense.fpn))  # type: ignore[arg-type]


def torchvisions(net: Detector) -> Any:
    """torchvision's model of a detector's parts."""
    of = FCOS if isinstance(net, FCOSDetector) else RetinaNet
    own = copy.deepcopy(net)
    made: Any = of(
        Levels(own), 3, min_size=SIZE[0], max_size=SIZE[1], image_mean=[0.0] * 3, image_std=[1.0] * 3,
        anchor_generator=own._anchors, head=own.head,
    )  # fmt: skip
    return made


@pytest.mark.parametrize("name", NETS)
def test_losses_are_those_of_torchvisions_own_model(name):
    net, given = detector(name), batch()
    theirs = torchvisions(net)(list(given.x["image"]), given.y.listed())
    ours = net(given).dense.losses
    assert ours.keys() == theirs.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key])


@pytest.mark.parametrize("name", NETS)
def test_a_batch_of_empty_pictures_has_losses_with_gradients(name):
    net = detector(name)
    net.asked = frozenset({"assigned"})
    out = net(batch([[], []]))
    torch.stack(list(out.dense.losses.values())).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    assert all((level == -1).all() for level in out.dense.assigned)


@pytest.mark.parametrize("name", NETS)
def test_order_of_a_pictures_objects_changes_no_loss(name):
    net, given = detector(name).eval().train(), batch()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    turned = Batch(given.x, Objects.of([p[::-1] for p in PICTURES], SIZE), given.index)
    one, other = net(given).dense, net(turned).dense
    for key in one.losses:
        torch.testing.assert_close(one.losses[key], other.losses[key], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", NETS)
def test_assignment_counts_packed_objects_and_leaves_out_ignored_ones(name):
    net = detector(name)
    net.asked = frozenset({"assigned"})
    given = batch()
    plain = torch.cat(net(given).dense.assigned, 1)
    assert plain.shape[0] == 3
    assert set(plain[0].tolist()) <= {-2, -1, 0, 1, 2}
    assert set(plain[2].tolist()) <= {-2, -1, 3}
    assert (plain >= 0).any(1).tolist() == [True, False, True]
    crowd = Batch(given.x, batch(ignore=torch.tensor([True, False, False, False])).y, given.index)
    left = torch.cat(net(crowd).dense.assigned, 1)
    assert not (left == 0).any()
    without = Batch(given.x, given.y.keep(torch.tensor([False, True, True, True])), given.index)
    fewer = torch.cat(net(without).dense.assigned, 1)
    assert torch.equal(torch.where(left > 0, left - 1, left), fewer)


def test_a_teacher_computes_what_is_asked_for_alone():
    net, given = detector(NETS[0]).eval(), batch()
    calls: list[str] = []
    for part, module in (("neck", net.neck), ("class", net.head.classification_head.cls_logits),
                         ("box", net.head.regression_head.bbox_reg)):  # fmt: skip
        module.register_forward_hook(lambda *_, part=part: calls.append(part))
    for layer in net.head.classification_head.conv:
        layer.register_forward_hook(lambda *_: calls.append("block"))
    net.sparing, net.asked = True, frozenset({"fpn"})
    assert net(given).words >= {"fpn", "maps"}
    assert calls == ["neck"]
    calls.clear()
    net.asked = frozenset({"cls"})
    assert not net(given).dense.has("box")
    assert set(calls) == {"neck", "block", "class"}
    calls.clear()
    net.asked = frozenset({"taps:1"})
    out = net(given).dense
    assert out.has("taps:1")
    assert "class" not in calls
    assert calls.count("block") == 2 * 3  # convolution and norm of the first of two blocks, on three levels
    net.asked = frozenset({"assigned"})
    assert net(given).dense.words == {"fpn", "strides", "decode", "anchors", "assigned"}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("block", [0, 1, 2])
def test_the_head_entered_at_a_block_gives_what_it_gives_whole(name, block):
    net = detector(name).eval()
    net.asked = frozenset({f"taps:{block}"})
    dense = net(batch()).dense
    features = dense.taps[block]
    cls, box = net.head_from(block)([one for one, _ in features], [other for _, other in features])
    for ours, theirs in zip((*cls, *box), (*dense.cls, *dense.box), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(NotApplicable, match="its head has 2 blocks"):
        net.head_from(3)


def test_decoded_boxes_are_torchvisions():
    net = detector(NETS[1]).eval()
    dense = net(batch()).dense
    box, anchors = torch.cat(dense.box, 1) * 30, torch.cat(dense.anchors)
    theirs = net.head.regression_head.box_coder.decode_single(box[0], anchors)
    torch.testing.assert_close(dense.decode(box, anchors)[0], theirs)


def test_neck_and_head_start_as_another_networks_where_shapes_agree():
    net, other = detector(NETS[0]), models.build("fcos_c32s8-32h2:cell_w8d1", (3, *SIZE), 3)
    before = copy.deepcopy(net.body.state_dict())
    wide = models.build("fcos_c64s8-32h2:cell_w4d1", (3, *SIZE), 3)
    for part in ("neck", "head"):
        with pytest.raises(NotApplicable, match=f"its {part} cannot start from the teacher's: size mismatch"):
            net.init_from(wide, [part])
    lateral = net.neck.fpn.inner_blocks[0][0].weight.clone()
    net.init_from(other, ["neck", "head"])
    assert torch.equal(net.neck.fpn.layer_blocks[0][0].weight, other.neck.fpn.layer_blocks[0][0].weight)
    assert torch.equal(net.neck.fpn.inner_blocks[0][0].weight, lateral)  # it reads a backbone of another width
    assert all(torch.equal(v, other.head.state_dict()[k]) for k, v in net.head.state_dict().items())
    assert all(torch.equal(v, before[k]) for k, v in net.body.state_dict().items())
    with pytest.raises(NotApplicable, match="parts body, neck, head, no tail"):
        net.init_from(other, ["tail"])


def test_backbones_of_the_zoo_and_of_timm_and_levels_behind_them():
    net = models.build("fcos_c8s2-16h1:resnet8", (3, *SIZE), 3)
    out = net(batch())
    assert out.dense.strides == (2, 4, 8, 16)
    assert [x.shape[-1] for x in out.dense.fpn] == [64, 32, 16, 8]
    assert len(out.maps) == len(out.preact) == 3
    assert net.norm(0)[0].shape == (out.maps[0].shape[1],)
    timm = models.build("retinanet_c8s8-32h1:timm:resnet10t", (3, *SIZE), 2)
    assert timm(batch([[[0, 1, 1, 40, 40]]])).dense.strides == (8, 16, 32)
    with pytest.raises(NotApplicable, match="no batch norm"):
        timm.norm(0)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("fcos_c8s8-48h1:cell_w4d1", "strides double from 8, and never become 48"),
        ("fcos_c8s2-8h1:cell_w4d1", "stages at strides 4, 8, 16, 32, no pyramid from 2 to 8"),
        ("fcos_c8s8-32h5:cell_w4d1", "1 to 4 blocks, h5"),
        ("fcos_c8s1-4h1:resnet8", "stride 2 or more"),
        ("fcos_c8s8-32h1:mlp_w8", "reads inputs of"),
        ("fcos_c8s8-32h1:timm:resnet10x", "timm has no net 'resnet10x' .did you mean"),
    ],
)
def test_a_detector_that_cannot_be_is_refused_in_a_line(name, line):
    with pytest.raises(UserError, match=line):
        models.build(name, (3, *SIZE), 3)


def test_names_are_those_of_a_pyramid_and_the_code_of_the_backbone_counts():
    assert models.family(NETS[0]) == "fcos_<pyramid>:<net>"
    assert models.recipe("fcos_cell_w8d1").settings == {"detector": "fcos", "net": "cell_w8d1"}
    assert models.work(NETS[0], (3, *SIZE)) > models.work("cell_w4d1", (3, *SIZE)) > 0  # type: ignore[operator]
    of_parts = sourcecode.of_nets(["fcos_resnet8"])
    assert of_parts != sourcecode.of_nets(["fcos_cell_w8d1"])


def test_work_of_a_backbone_is_what_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    net = models.build("cell_w8d2", (3, 64, 64), 10).eval()
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        net.encode(torch.randn(1, 3, 64, 64))
    assert models.work("cell_w8d2", (3, 64, 64)) == pytest.approx(counted.get_total_flops() / 2e6, rel=0.01)
