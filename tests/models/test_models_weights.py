"""Weights into a network: all of them or an error that names what does not fit."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from kdbench import models
from kdbench.base.errors import UserError
from kdbench.contract import Network
from kdbench.models.weights import load_weights

torch.set_num_threads(1)


def net(outputs: int = 10, name: str = "convnet_w2") -> Network:
    return models.build(name, (1, 32, 32), outputs)


def equal(a: Network, b: Network) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("wrap", [None, "model", "state_dict"])
def test_a_file_loads_whole_and_its_digest_does_not_depend_on_the_format(tmp_path: Path, wrap: str | None) -> None:
    source, a, b = net(), net(), net()
    state = source.state_dict()
    save_file(state, tmp_path / "w.safetensors")
    torch.save({wrap: state, "epoch": 3} if wrap else state, tmp_path / "w.pth")
    digest = load_weights(a, tmp_path / "w.safetensors").sha256
    assert digest == hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    assert load_weights(b, str(tmp_path / "w.pth")).sha256 == digest
    assert equal(a, source)
    assert equal(b, source)


def test_mismatches_are_named_and_leave_the_net_alone(tmp_path: Path) -> None:
    state = net(7).state_dict()
    state["extra.weight"] = state.pop("trunk.stages.0.layer.conv.bias")
    save_file(state, tmp_path / "w.safetensors")
    target = net()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(UserError) as error:
        load_weights(target, tmp_path / "w.safetensors")
    message = str(error.value)
    assert "1 missing (trunk.stages.0.layer.conv.bias)" in message
    assert "1 unknown (extra.weight)" in message
    assert "2 of another shape (fc.weight (7, 8) for (10, 8), fc.bias (7,) for (10,))" in message
    assert "\n" not in message
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())


def test_long_lists_are_cut(tmp_path: Path) -> None:
    save_file(net().state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"missing \(.*, \.\.\.\)") as error:
        load_weights(net(name="resnet20"), tmp_path / "w.safetensors")
    assert len(str(error.value)) < 1000


def test_features_leave_the_classifier(tmp_path: Path) -> None:
    source, target = net(7), net()
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    classifier = target.classifier.weight.detach().clone()
    load_weights(target, f"{tmp_path / 'w.safetensors'}#features")
    torch.testing.assert_close(target.classifier.weight, classifier, rtol=0, atol=0)
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(target.eval().encode(x).emb, source.eval().encode(x).emb, rtol=0, atol=0)


def test_features_must_still_be_whole(tmp_path: Path) -> None:
    state = net(7).state_dict()
    del state["trunk.stages.2.layer.conv.weight"]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="1 missing"):
        load_weights(net(), f"{tmp_path / 'w.safetensors'}#features")


def test_a_part_of_a_net_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    """The stages alone have every key of the trunk; loading just them would leave stem and classifier random."""
    source = net(name="resnet8")
    save_file(source.trunk.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="missing"):
        load_weights(net(name="resnet8"), tmp_path / "w.safetensors")


def test_timms_own_keys_fit_a_timm_net(tmp_path: Path) -> None:
    source, a, b = (net(name="timm:test_resnet") for _ in range(3))
    save_file(source.body.state_dict(), tmp_path / "timm.safetensors")
    save_file(source.state_dict(), tmp_path / "ours.safetensors")
    assert load_weights(a, tmp_path / "timm.safetensors") == load_weights(b, tmp_path / "ours.safetensors")
    assert equal(a, source)
    assert equal(b, source)


def test_pretrained_weights_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    source, same, other = net(name="timm:test_resnet"), net(name="timm:test_resnet"), net(7, "timm:test_resnet")
    shipped = source.body.state_dict()
    for target in (same, other):
        monkeypatch.setattr(target, "pretrained", lambda: dict(shipped))
    load_weights(same, "timm")
    assert equal(same, source)
    with pytest.raises(UserError, match=r"2 of another shape \(fc.weight \(10,"):
        load_weights(other, "timm")
    load_weights(other, "timm#features")
    torch.testing.assert_close(other.body.conv1[0].weight, source.body.conv1[0].weight, rtol=0, atol=0)


def test_pretrained_weights_for_other_channels_are_refused() -> None:
    """timm would sum its filters over the colours without a word."""
    grey = models.build("timm:resnet18", (1, 32, 32), 10)
    with pytest.raises(UserError, match="are for 3-channel pictures, the input has 1"):
        load_weights(grey, "timm")


def test_hub_weights_by_name_and_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target, asked = net(), net(), []
    save_file(source.state_dict(), tmp_path / "model.safetensors")

    def download(repo: str, file: str, revision: str | None) -> str:
        asked.append((repo, file, revision))
        return os.fspath(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    load_weights(target, "hub:some.one/net-1@v2")
    load_weights(target, "hub:some.one/net-1")
    assert asked == [("some.one/net-1", "model.safetensors", "v2"), ("some.one/net-1", "model.safetensors", None)]
    assert equal(target, source)


def test_an_unreachable_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*args: object, **kwargs: object) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection\nand a long story")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(UserError, match=r"cannot get model.safetensors of 'hub:a/b': no network to the hub; connect"):
        load_weights(net(), "hub:a/b")


class Marked:
    def __reduce__(self):
        return (os.getenv, ("HOME",))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing.safetensors", "no weights at"),
        ("nothing.pth", "no weights at"),
        ("broken.safetensors", "cannot read"),
        ("broken.pth", "cannot read"),
        ("code.pth", "cannot read"),
        ("list.pth", "no mapping of names to tensors"),
        ("scalar.pth", "no mapping of names to tensors"),
        ("pointer.pth", "a pointer of Git LFS; get the file itself"),
        ("pointer.safetensors", "a pointer of Git LFS; get the file itself"),
        ("int8.pth", "is int8; only plain floating-point"),
        ("complex64.pth", "is complex64; only plain floating-point"),
        ("sparse.pth", "is sparse_coo; only plain floating-point"),
        ("", "cannot read"),
        ("hub:lonely", "should read 'hub:<owner>/<name>'"),
        ("timm", "come with nets of libraries and with modules that were given, not with a ConvNet"),
    ],
)
def test_what_is_no_weights_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.safetensors").write_bytes(b"not tensors")
    Path("broken.pth").write_bytes(b"not tensors")
    torch.save([torch.zeros(1)], "list.pth")
    torch.save({"a": Marked()}, "code.pth")
    torch.save(torch.zeros(1), "scalar.pth")
    for suffix in ("pth", "safetensors"):
        Path(f"pointer.{suffix}").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    state = net().state_dict()
    for kind in (torch.int8, torch.complex64):
        torch.save({k: v.to(kind) for k, v in state.items()}, f"{str(kind).removeprefix('torch.')}.pth")
    torch.save({k: v.to_sparse() if v.ndim == 2 else v for k, v in state.items()}, "sparse.pth")
    with pytest.raises(UserError, match=message) as error:
        load_weights(net(), spec)
    assert "\n" not in str(error.value)
