"""Hashing nets: bits of any net, heads on fixed ones, and what they refuse."""

from __future__ import annotations

import pytest
import torch

from kdbench import models
from kdbench.base.errors import UserError
from kdbench.contract import NotApplicable, bits
from kdbench.identity import sourcecode
from kdbench.models.weights import load_weights


@pytest.mark.parametrize("net", ["convnet_w4", "resnet8"])
def test_a_nets_last_layer_gives_the_bits(net: str) -> None:
    made = models.build(f"hash12:{net}", (1, 8, 8), 10).eval()
    x = torch.randn(3, 1, 8, 8)
    out = made.encode(x)
    assert out.code.shape == (3, 12)
    assert torch.equal(out.logits, out.code)
    assert torch.equal(out.emb, bits(out.code))
    assert len(out.maps) == 3
    assert all(p.requires_grad for p in made.parameters())
    with pytest.raises(NotApplicable, match="offers no classifier"):
        _ = made.classifier
    assert models.work(f"hash12:{net}", (1, 8, 8)) == models.work(net, (1, 8, 8))


def test_a_linear_head_alone_is_trained_on_a_fixed_net() -> None:
    made = models.build("hash8_linear:convnet_w4", (1, 8, 8), 10).train()
    assert [name for name, p in made.named_parameters() if p.requires_grad] == ["body.fc.weight", "body.fc.bias"]
    before = {name: value.clone() for name, value in made.named_buffers()}
    made.encode(torch.randn(4, 1, 8, 8)).code.sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in made.named_buffers())
    assert made.training


def test_a_head_of_two_layers_reads_imagenets_scores() -> None:
    made = models.build("hash8_mlp:convnet_w4", (1, 8, 8), 10)
    trained = {name.partition(".")[0] for name, p in made.named_parameters() if p.requires_grad}
    assert trained == {"head"}
    assert made.encode(torch.randn(2, 1, 8, 8)).code.shape == (2, 8)


def test_weights_that_come_with_the_net_leave_the_head_as_it_is() -> None:
    made = models.build("hash8_linear:convnet_w4", (1, 8, 8), 10)
    with pytest.raises(UserError, match="no weights come with ConvNet"):
        load_weights(made, "own")
    shipped = {key: torch.ones_like(value) for key, value in made.body.state_dict().items()}
    shipped |= {"fc.weight": torch.ones(1000, 16), "fc.bias": torch.ones(1000)}
    made.body.pretrained = lambda: shipped
    before = made.body.fc.weight.clone()
    load_weights(made, "own")
    assert torch.equal(made.body.fc.weight, before)
    assert all((p == 1).all() for name, p in made.body.named_parameters() if not name.startswith("fc."))


@pytest.mark.parametrize(
    "name", ["hash0:convnet_w4", "hash1:convnet_w4", "hash17:convnet_w4", "hash17_linear:convnet_w4"]
)
def test_too_few_or_too_many_bits_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="a hashing net of 'convnet_w4' has 2 to 16 bits"):
        models.build(name, (1, 8, 8), 10)


def test_other_mistakes_are_refused() -> None:
    with pytest.raises(UserError, match="no net is called 'convnet_x4'"):
        models.recipe("hash8:convnet_x4")
    with pytest.raises(UserError, match="cannot be a hashing net"):
        models.build("hash8:hash8:convnet_w4", (1, 8, 8), 10)


def test_the_code_of_the_net_within_counts_too() -> None:
    assert sourcecode.of_nets(["hash8:convnet_w4"]).keys() == {"hash8:convnet_w4", "convnet_w4"}
