"""Hidden patches: what is drawn, what nets see, the loss, the ordinary net that stays, and what is refused."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kdbench import cli, kinds, models
from kdbench.base.errors import UserError
from kdbench.checks.tiny import Setting, Tiny, declared, method_config, rows, task_spec, tiny
from kdbench.contract import (
    Batch,
    Hide,
    Network,
    NotApplicable,
    Out,
    Rows,
    Stage,
    grown,
    hidden_error,
    kept,
    patched,
    spread,
)
from kdbench.engine.assemble import needs_of
from kdbench.engine.task import Keeper, Task
from kdbench.specs import registry

KIND = kinds.kind("representation").trained({"name": "masked", "patch": 4, "hide": 0.5})
NETS = ["mae8d1:vit_w8d2h2p2", "spark8:convnet_w4_s3", "spark8:resnet8"]
SIDE = 16


def batch(rows_: int = 3, patch: int = 4, channels: int = 3) -> Batch:
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(rows_, channels, SIDE, SIDE, generator=rng)
    hide = Hide(patch, 0.5)
    visible = hide.draw(rows_, x.shape[1:], rng)
    return Batch({"image": x}, None, torch.arange(rows_), visible=visible, seen=hide.seen(hide.grid(x.shape[1:])))


def fresh(name: str, side: int = SIDE) -> Network:
    torch.manual_seed(0)
    return models.build(name, (3, side, side), 2)


def masked_task() -> Task:
    setting = Setting(
        "representation", ("image",), False, "image", *kinds.kind("representation").tinies[1].pairs[0][1:], version=1
    )
    spec = task_spec(setting)
    return Task(spec, rows(setting), torch.device("cpu"), 0, Keeper(Path("x"), Path("x"), {}))


def test_patches_are_cut_by_the_pictures_rows_and_come_back() -> None:
    x = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    cut = patched(x, 2)
    assert cut.shape == (2, 6, 12)
    assert torch.equal(cut[1, 4], x[1, :, 2:4, 2:4].permute(1, 2, 0).flatten())
    visible = torch.tensor([[1, 0, 1, 0, 0, 1], [0, 1, 1, 1, 0, 0]], dtype=torch.bool).view(2, 1, 2, 3)
    back = spread(kept(cut, visible, 3), visible, torch.zeros(12))
    assert torch.equal(back, cut * visible.flatten(1)[..., None])


def test_as_many_patches_are_hidden_of_every_picture_and_each_has_its_own() -> None:
    visible = Hide(2, 0.6).draw(50, (1, 8, 8), torch.Generator().manual_seed(0))
    assert visible.shape == (50, 1, 4, 4)
    assert visible.flatten(1).sum(1).tolist() == [6] * 50  # 16 * 0.4 = 6.4
    assert len({tuple(one.flatten().tolist()) for one in visible}) > 40


def test_the_loss_is_that_of_standardised_hidden_patches_by_hand() -> None:
    torch.manual_seed(0)
    predicted, told = torch.randn(2, 4, 8, dtype=torch.float64), torch.randn(2, 4, 8, dtype=torch.float64)
    visible = torch.tensor([[1, 0, 0, 1], [0, 1, 1, 0]], dtype=torch.bool).view(2, 1, 2, 2)
    total = 0.0
    for row, place in (~visible.flatten(1)).nonzero().tolist():
        own = told[row, place]
        total += float((predicted[row, place] - (own - own.mean()) / (own.var() + 1e-6).sqrt()).square().mean()) / 4
    assert float(hidden_error(predicted, told, visible, standardise=True)) == pytest.approx(total, rel=1e-12)


def test_masks_depend_on_seed_and_step_alone_whatever_the_method() -> None:
    task = masked_task()
    net = task.build_student()
    own = [task.loader(Stage("distill", [], lambda *_: {}, epochs=1), 1).draw(n) for n in (0, 1)]
    other = [task.loader(Stage("distill", [], lambda *_: {}, epochs=9), 2).draw(n) for n in (0, 1)]
    assert net is not None
    assert all(torch.equal(a.visible, b.visible) for a, b in zip(own, other, strict=True))
    assert not torch.equal(own[0].visible, own[1].visible)
    assert own[0].view(0).visible is not None


@pytest.mark.parametrize("name", NETS)
def test_what_is_hidden_changes_nothing_that_is_predicted(name: str) -> None:
    net, seen = fresh(name).train(), batch()
    places = grown(seen.visible, SIDE, SIDE)
    noise = torch.randn_like(seen.x["image"])
    other = replace(seen, x={"image": seen.x["image"].where(places, noise)})
    assert torch.equal(net(seen).patches[0], net(other).patches[0])
    assert not torch.equal(net(seen).patches[1], net(other).patches[1])


@pytest.mark.parametrize("name", NETS)
def test_all_but_a_classifier_learns_and_none_is_there(name: str) -> None:
    net, seen = fresh(name), batch()
    KIND.loss(net(seen), seen).backward()
    assert [key for key, p in net.named_parameters() if p.grad is None] == []
    assert not net(seen).has("logits")


@pytest.mark.parametrize("name", NETS)
def test_hidden_places_stay_zero_in_every_map(name: str) -> None:
    net, seen = fresh(name).train(), batch()
    out = net(seen)
    for one in (*out.maps, *out.preact):
        assert not (one * ~grown(seen.visible, *one.shape[2:])).any()
        assert one.any()


def ordinary(net: torch.nn.Module, name: str) -> Tensor:
    """Embeddings of the zoo's own net with the weights of a net's body."""
    bare = fresh(name.partition(":")[2])
    bare.load_state_dict(net.body.state_dict(), strict=False)
    bare.eval()
    return bare.encode(batch().x["image"]).emb


@pytest.mark.parametrize("name", NETS)
def test_without_hidden_patches_it_is_the_ordinary_net_with_the_same_weights(name: str) -> None:
    net, seen = fresh(name).train(), batch()
    net(seen)  # running statistics follow
    whole = net.eval()(replace(seen, visible=None))
    assert torch.equal(whole.emb, ordinary(net, name))
    assert not whole.has("patches")


def made(method: str) -> Tiny:
    ref = registry.method(method)
    scene, chosen = next(one for one in declared(ref) if one[0] == "representation")
    return tiny(ref, chosen, needs_of(chosen), scene)


@pytest.mark.parametrize("method", ["spark", pytest.param("h_gkd", marks=pytest.mark.slow)])
def test_what_is_deployed_is_the_dense_network_with_the_same_weights(method: str, tmp_path: Path) -> None:
    prepared = made(method).prepare(tmp_path)
    before = copy.deepcopy(prepared.method.deployed)
    stage = next(prepared.method.stages())
    seen = prepared.task.loader(stage, 1).draw(0)
    optimizer = torch.optim.SGD(stage.groups[0].params, lr=0.1)
    terms = stage.losses(seen, None)
    torch.stack(list(terms.values())).sum().backward()
    optimizer.step()
    deployed = prepared.method.deployed.eval()
    assert deployed is prepared.method.student
    plain = copy.deepcopy(before).eval()
    assert not torch.equal(deployed(replace(seen, visible=None)).emb, plain(replace(seen, visible=None)).emb)
    plain.load_state_dict(deployed.state_dict())
    assert torch.equal(deployed(replace(seen, visible=None)).emb, plain(replace(seen, visible=None)).emb)
    assert not any("forward" in module.__dict__ or module._forward_hooks for module in deployed.modules())


def test_spark_is_plain_where_the_task_hides_patches_itself(tmp_path: Path) -> None:
    ref = registry.method("spark")
    pair = kinds.kind("representation").tinies[1].pairs[1]
    setting = Setting("representation", ("image",), False, *pair, version=1)
    config = made("spark").config
    found = replace(made("spark"), config=replace(config, task=task_spec(setting)), data=rows(setting), teachers={})
    with pytest.raises(NotApplicable, match="run plain"):
        found.prepare(tmp_path)
    assert method_config(ref).ref.name == "spark"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("mae8d1:convnet_w4", "cannot leave patches out; behind 'mae' stands vit_w"),
        ("spark8:vit_w8d1h2p4", "LayerNorm would fill what is hidden"),
        ("spark9:convnet_w4_s3", "halves its width 9 as often; choose a multiple of 4"),
        ("vit_w8d1h2p3", "patches of 3 pixels cannot read inputs"),
        ("vit_w6d1h2p4", "a multiple of 4 and of its 2 heads; it is 6"),
        ("mae6d1:vit_w8d1h2p4", "a decoder's width is a multiple of 4"),
    ],
)
def test_nets_that_cannot_be(name: str, line: str) -> None:
    with pytest.raises(UserError, match=line):
        fresh(name)


def test_patches_that_a_net_cannot_leave_out_are_one_line() -> None:
    for name in ("mae8d1:vit_w8d1h2p4", "spark8:convnet_w4_s3"):
        with pytest.raises(UserError, match=r"patches of 2 are hidden; set train\.loss\.patch to 4"):
            fresh(name)(batch(patch=2))


def test_a_stage_of_whole_pictures_has_no_masked_loss() -> None:
    with pytest.raises(NotApplicable, match="its stage shows whole pictures"):
        KIND.loss(Out(None), replace(batch(), visible=None))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"name": "mask"}, r"train\.loss\.name is simclr or masked \(did you mean 'masked'"),
        ({"name": "masked", "patch": 2, "hide": 0}, r"train\.loss: hide: Input should be greater than 0"),
        ({"name": "masked", "patch": 2, "hide": 1}, r"train\.loss: hide: Input should be less than 1"),
        ({"name": "masked", "patch": 2, "hide": 0.5, "hid": 0.5}, r"unknown key 'hid' \(did you mean 'hide'"),
        ({"name": "masked", "hide": 0.5}, "key 'patch' is missing"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        kinds.kind("representation").trained(settings)
    with pytest.raises(ValueError, match=r"a classification task has no train.loss"):
        kinds.kind("classification").trained(settings)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train.loss.hide=0"], "hide: Input should be greater than 0 (given 0)"),
        (["train.loss.hide=1"], "hide: Input should be less than 1 (given 1)"),
        (["train.loss.patch=3"], "patches of 3 pixels do not divide inputs of shape (1, 8, 8)"),
        (["train.loss.hide=0.97"], "leaves 0 to see; at least one has to be seen and one hidden"),
        (["pair.student.net='mae8d1:vit_w8d1h2p3'"], "patches of 3 pixels cannot read inputs (1, 8, 8)"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    words: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ["evaluate", "--method", "plain", "--task", "digits/masked", "--seed", "0", "--smoke", "--overhead", "off"]
    monkeypatch.setattr("sys.argv", ["kdbench", *run, "--out", str(tmp_path), *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert line in said[-1]
    assert "Traceback" not in "\n".join(said)


def test_rows_of_one_class_cannot_be_probed_here_either() -> None:
    one = Rows({"image": torch.zeros(3, 1, 8, 8)}, torch.zeros(3, dtype=torch.int64))
    assert "at least two classes" in (KIND.unscorable(one, one, None) or "")
