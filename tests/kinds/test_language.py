"""Language models: prompts and texts are one sequence, what is written is what answers say, bits a byte."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from kdbench import kinds, models
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.contract import Sentences, Vocabulary
from kdbench.contract.sentences import BOS, EOS, PAD
from kdbench.kinds.base import Evidence
from kdbench.methods.distillm.adapter import skewed
from kdbench.methods.gkd.adapter import divergence
from kdbench.methods.shared.onpolicy import self_written
from kdbench.runs import run
from kdbench.runs.request import Request
from kdbench.specs.config import run_config

torch.set_num_threads(1)
KNOWN = (Vocabulary(30, "1" * 64), Vocabulary(30, "1" * 64))
NETS = ("grulm_w8", "grulm_w8_l2", "gpt_w8_l1", "gpt_w40_l2")


def net(name: str) -> Any:
    torch.manual_seed(0)
    return models.build(name, (5,), 30, input_name="source", vocabularies=KNOWN).eval()


def batch(prompts: bool = True, width: int = 0) -> Any:
    y = Sentences.of([[5, 6], [7], [8, 9, 10, 11]], ["a b", "c", "d e f g"], b"")
    source = torch.tensor([[4, 5, 6, EOS, PAD], [7, EOS, PAD, PAD, PAD], [8, 9, 10, 11, EOS]])
    return y.batch({"source": torch.nn.functional.pad(source, (0, width)) if prompts else source[:, :0]})


@pytest.mark.parametrize("name", NETS)
def test_prompts_of_another_vocabulary_are_refused(name: str) -> None:
    """Their numbers would stand for other symbols."""
    two = (KNOWN[0], Vocabulary(30, "2" * 64))
    with pytest.raises(UserError, match=r"in one vocabulary, and these are two; set data\.options\.joint=true"):
        models.build(name, (5,), 30, input_name="source", vocabularies=two)


@pytest.mark.parametrize("prompts", [True, False])
@pytest.mark.parametrize("name", NETS)
def test_a_text_is_answered_for_alone_and_among_others(name: str, prompts: bool) -> None:
    made, one = net(name), batch(prompts)
    logits = made(one).logits
    assert logits.shape == (len(one.y), 30)
    assert torch.equal(logits, made(batch(prompts, width=3)).logits)
    y = Sentences.of([[5, 6]], ["a b"], b"")
    alone = made(y.batch({"source": one.x["source"][:1, :4]})).logits
    assert torch.allclose(logits[:3], alone, atol=1e-5)
    written = made.generate(one, 6)
    again = Sentences.of(written, ["", "", ""], b"").batch({"source": one.x["source"]})
    scores = made(again).logits
    scores[:, [PAD, BOS, 3]] = -torch.inf
    for row, symbols in enumerate(scores.argmax(1).split(again.counts.tolist())):
        known = [*written[row], EOS][: len(symbols) - (len(written[row]) == 6)]
        assert symbols.tolist()[: len(known)] == known


def test_bits_are_of_bytes() -> None:
    from kdbench.kinds.written import Answers

    y = Sentences.of([[5, 6]], ["añ"], b"")  # three bytes
    found = kinds.kind("language").score(["bits_per_byte", "token_nll"], Evidence(Answers(6 * math.log(2), 3, None), y))
    assert found == {"bits_per_byte": pytest.approx(2.0), "token_nll": pytest.approx(2 * math.log(2))}


def test_divergences_are_those_of_the_papers() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 7, dtype=torch.float64), torch.randn(4, 7, dtype=torch.float64)
    p, q = teacher.softmax(1), student.softmax(1)

    def kl(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return (one * (one / other).log()).sum(1)

    m = 0.3 * p + 0.7 * q
    assert torch.allclose(divergence(student, teacher, "forward", 0.5, 1.0), kl(p, q))
    assert torch.allclose(divergence(student, teacher, "reverse", 0.5, 1.0), kl(q, p))
    assert torch.allclose(divergence(student, teacher, "js", 0.3, 1.0), 0.3 * kl(p, m) + 0.7 * kl(q, m))
    assert torch.allclose(skewed(student, teacher, 0.1, False), kl(p, 0.1 * p + 0.9 * q))
    assert torch.allclose(skewed(student, teacher, 0.1, True), kl(q, 0.1 * q + 0.9 * p))


def test_a_text_of_ones_own_is_drawn_without_dropout() -> None:
    made, one = net("gpt_w8_l1").train(), batch()
    first, same, other = (self_written(made, one, 6, torch.Generator().manual_seed(n)) for n in (1, 1, 2))
    assert torch.equal(first.y, same.y)
    assert not torch.equal(first.y, other.y) or len(first.y) != len(other.y)
    assert made.training
    assert made.blocks[0].dropout.training
    assert int(first.counts.sum()) == len(first.y) == len(made(first).logits)


@pytest.mark.slow
def test_a_language_model_trains_and_is_scored(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="text is an extra: pip install 'kdbench[text]'")
    small = ["data.options.train=96", "data.options.test=32", "train.epochs=1", "train.batch=16"]
    found = {}
    for method, more in (("plain", []), ("gkd", ["method.longest=8"]), ("seq_kd", []), ("seq_kd+draw", [])):
        config = run_config(method, "phrases-text", [*small, *more])
        found[method] = run.run_seed(Request(config, 0, torch.device("cpu"), Home(tmp_path), overhead="off"))
    assert [found[name].status for name in found] == ["ok", "ok", "not_applicable", "ok"]
    assert 0 < found["plain"].metrics.last["bits_per_byte"] < 8
    assert "nothing is read" in found["seq_kd"].error.message
