"""Networks of transformers that write: their numbers become the data's, and another vocabulary is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kdbench import models
from kdbench.base import subwords
from kdbench.base.errors import UserError
from kdbench.base.files import sha256
from kdbench.contract import Sentences, Vocabulary
from kdbench.contract.sentences import EOS, pad_rows

pytest.importorskip("tokenizers", reason="text is an extra: pip install 'kdbench[text]'")
transformers = pytest.importorskip("transformers", reason="an extra: pip install 'kdbench[hf]'")
pytestmark = pytest.mark.slow
torch.set_num_threads(1)
LINES = ["the dog sees the cat", "a cat sleeps", "the dog sleeps", "a dog sees a cat"] * 3


def checkpoint(folder: Path, kind: str) -> str:
    """A tiny checkpoint whose special symbols stand elsewhere than the data's."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers import models as kinds

    made = Tokenizer(kinds.BPE(unk_token="<unk>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=40, special_tokens=["</s>", "<pad>", "<unk>"], show_progress=False)
    made.train_from_iterator(LINES, trainer)
    torch.manual_seed(0)
    count = made.get_vocab_size()
    if kind == "t5":
        config = transformers.T5Config(
            vocab_size=count + 5, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, pad_token_id=1,
            eos_token_id=0, decoder_start_token_id=1, dropout_rate=0.0,
        )  # fmt: skip
        transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    else:
        config = transformers.GPT2Config(
            vocab_size=count, n_embd=16, n_layer=1, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    made.save(str(folder / "tokenizer.json"))
    return str(folder)


@pytest.mark.parametrize("kind", ["t5", "gpt2"])
def test_numbers_of_the_data_are_those_of_the_checkpoint(kind: str, tmp_path: Path) -> None:
    where = checkpoint(tmp_path, kind)
    content = subwords.borrowed(where)
    encode, decode = subwords.encoder(content), subwords.decoder(content)
    rows = encode(LINES[:3])
    assert decode(rows) == LINES[:3]
    assert min(min(row) for row in rows) >= 4
    known = Vocabulary(subwords.size(content), sha256(content))
    net: Any = models.build(f"hf:{where}", (9,), known.size, input_name="source", vocabularies=(known, known)).eval()
    y = Sentences.of(rows, LINES[:3], content)
    one = y.batch({"source": pad_rows([[*row, EOS] for row in encode(LINES[1:4])])})
    with torch.no_grad():
        out = net(one)
        written = net.generate(one, 8)
        again = y.replaced(written).batch({"source": one.x["source"]})
        said = net(again).logits
    assert out.logits.shape == (len(one.y), known.size)
    assert out.emb.shape == (len(one.y), 16)
    said[:, [0, 1, 3]] = -torch.inf
    for row, symbols in enumerate(said.argmax(1).split(again.counts.tolist())):
        assert symbols.tolist()[: len(written[row])] == written[row]
    assert [found[0] for found in net.n_best(one, 8, 3)] == net.generate(one, 8, 3)
    assert set(net.pretrained()) == set(net.state_dict())


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    where = checkpoint(tmp_path, "t5")
    known = Vocabulary(44, "0" * 64)
    with pytest.raises(UserError, match=r"another vocabulary than the data; set data\.options\.vocabulary=hf:"):
        models.build(f"hf:{where}", (9,), 44, input_name="source", vocabularies=(known, known))
    with pytest.raises(UserError, match=r"its config\.json cannot be had"):
        subwords.borrowed(str(tmp_path / "none"))
