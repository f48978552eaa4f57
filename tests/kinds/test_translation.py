"""Translation: flat targets that padding never reaches, networks that write, subwords that stay what they are."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kdbench import kinds, models
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.checks.tiny import Setting, fitted, rows, task_spec
from kdbench.contract import Batch, NotApplicable, Sentences
from kdbench.contract.sentences import BOS, EOS, PAD, PREFIX, Vocabulary
from kdbench.data.feed.loader import Loader
from kdbench.engine.task import Keeper, Task
from kdbench.models.weights import load_weights
from kdbench.runs import run
from kdbench.runs.request import Request
from kdbench.specs import registry
from kdbench.specs.config import run_config

torch.set_num_threads(1)
pytest.importorskip("tokenizers", reason="text is an extra: pip install 'kdbench[text]'")
pytest.importorskip("sacrebleu", reason="text is an extra: pip install 'kdbench[text]'")

SETTING = Setting("translation", ("image",), False, "source", "gru_w8", "gru_w16")
KNOWN = (Vocabulary(20, "0" * 64), Vocabulary(30, "1" * 64))
NETS = ("gru_w8", "gru_w8_l2", "transformer_w8_l1", "transformer_w40_l2")


def tiny() -> Task:
    return Task(task_spec(SETTING), rows(SETTING), torch.device("cpu"), 0, Keeper(Path("x"), Path("x"), {}))


def net(name: str, known: tuple[Vocabulary, Vocabulary] = KNOWN) -> Any:
    torch.manual_seed(0)
    return models.build(name, (9,), known[1].size, input_name="source", vocabularies=known).eval()


def batch(width: int = 0) -> Batch:
    """Three sentences, so many columns of padding behind the longest."""
    y = Sentences.of([[5, 6], [7], [8, 9, 10, 11]], ["a b", "c", "d e f g"], b"")
    source = torch.tensor([[4, 5, 6, EOS, PAD], [7, EOS, PAD, PAD, PAD], [8, 9, 10, 11, EOS]])
    return y.batch({"source": torch.nn.functional.pad(source, (0, width))})


def test_sentences_are_not_augmented_as_pictures_are() -> None:
    data = rows(SETTING)
    with pytest.raises(UserError, match=r"data\.augment: flip, crop2 is of pictures, and sentences are read"):
        Loader(data, data.train, ["flip", "crop2"], 4, 0, "distill")


def test_targets_are_flat_and_numbered() -> None:
    made = batch()
    assert made.counts is not None
    assert made.counts.tolist() == [3, 2, 5]
    assert made.y.tolist() == [5, 6, EOS, 7, EOS, 8, 9, 10, 11, EOS]
    assert made.index.tolist() == list(range(10))
    assert (len(made), made.rows) == (10, 3)
    assert made.x[PREFIX].tolist() == [[BOS, 5, 6, PAD, PAD], [BOS, 7, PAD, PAD, PAD], [BOS, 8, 9, 10, 11]]
    y = Sentences.of([[5, 6], [7], [8, 9, 10, 11]], ["a b", "c", "ü"], b"{}")
    some = y[torch.tensor([2, 0])]
    assert some.tolist() == [[8, 9, 10, 11, EOS], [5, 6, EOS]]
    assert some.index.tolist() == [5, 6, 7, 8, 9, 0, 1, 2]
    assert some.written() == ["ü", "a b"]
    assert some.join(y[1:2]).index.tolist() == list(range(10))
    drawn = some.drawn(torch.tensor([1, 0, 1]), {})  # numbers are the training set's, places their own
    assert drawn.index.tolist() == [0, 1, 2, 5, 6, 7, 8, 9, 0, 1, 2]
    assert drawn.y.tolist() == [5, 6, EOS, 8, 9, 10, 11, EOS, 5, 6, EOS]
    assert drawn.x[PREFIX].tolist() == [[BOS, 5, 6, PAD, PAD], [BOS, 8, 9, 10, 11], [BOS, 5, 6, PAD, PAD]]
    assert y.replaced([[4], [], [5]]).tolist() == [[4, EOS], [EOS], [5, EOS]]


@pytest.mark.parametrize("name", NETS)
def test_a_wider_pad_changes_no_bit(name: str) -> None:
    made = net(name).train()
    found = []
    for width in (0, 1, 7):
        one = batch(width)
        wider = {PREFIX: torch.nn.functional.pad(one.x[PREFIX], (0, width)), "source": one.x["source"]}
        wider["source"] = torch.nn.functional.pad(wider["source"], (0, width))
        torch.manual_seed(1)  # dropout draws alike
        out = made(replace(one, x=wider))
        loss = kinds.kind("translation").loss(out, one)
        made.zero_grad()
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in made.parameters() if p.grad is not None])
        found.append((out.logits, out.emb, loss, gradient, made.eval().generate(replace(one, x=wider), 6)))
        made.train()
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0][:4], other[:4], strict=True))
        assert found[0][4] == other[4]


@pytest.mark.parametrize("name", NETS)
def test_what_is_written_is_what_answers_say(name: str) -> None:
    made, one = net(name), batch()
    written = made.generate(one, 6)
    again = Sentences.of(written, ["", "", ""], b"").batch({"source": one.x["source"]})
    scores = made(again).logits
    scores[:, [PAD, BOS, 3]] = -torch.inf
    ended = [row for row, symbols in enumerate(written) if len(symbols) < 6]
    chosen = torch.isin(torch.arange(3).repeat_interleave(again.counts), torch.tensor(ended)) if ended else None
    said = scores.argmax(1)
    for symbols, row in zip(said.split(again.counts.tolist()), range(3), strict=True):
        known = symbols.tolist() if row in ended else symbols.tolist()[:-1]
        assert known == [*written[row], EOS][: len(known)]
    assert chosen is None or len(chosen) == len(said)
    assert made.n_best(one, 6, 1) == [[symbols] for symbols in written]
    every = made.n_best(one, 6, 4)
    assert [len({tuple(symbols) for symbols in found}) for found in every] == [4, 4, 4]
    assert made.generate(one, 6, 4) == [found[0] for found in every]


def test_a_beam_finds_what_is_likelier() -> None:
    made, one = net("gru_w8"), batch()

    def mean(found: list[list[int]]) -> torch.Tensor:
        scored = Sentences.of(found, ["", "", ""], b"").batch({"source": one.x["source"]})
        scores = made(scored).logits
        scores[:, [PAD, BOS, 3]] = -torch.inf
        own = scores.log_softmax(1).gather(1, scored.y[:, None])[:, 0]
        return torch.stack([part.mean() for part in own.split(scored.counts.tolist())])

    greedy, beam = (made.generate(one, 3, width) for width in (1, 8))
    full = [row for row in range(3) if len(beam[row]) < 3 and len(greedy[row]) < 3]
    assert bool((mean(beam) >= mean(greedy) - 1e-6)[full].all())


def test_batches_hold_sentences_of_like_length_and_all_of_them() -> None:
    of = rows(SETTING)
    train = of.train._replace(y=of.train.y.numbered())
    loader = Loader(of, train, [], 16, 0, "distill")
    seen = [loader.draw(number) for number in range(loader.steps)]
    assert sorted(torch.cat([one.index for one in seen]).tolist()) == list(range(len(train.y.flat)))
    spread = max(int(one.counts.max() - one.counts.min()) for one in seen[:-1] if one.counts is not None)
    assert spread <= 2  # of 3 to 5 letters
    again = Loader(of, train, [], 16, 0, "distill")
    assert all(torch.equal(again.draw(n).index, seen[n].index) for n in reversed(range(loader.steps)))
    assert not torch.equal(loader.draw(loader.steps).index, seen[0].index)


def test_sentences_have_no_views() -> None:
    from kdbench.contract import Needs
    from kdbench.engine.applicability import kind_and_roles

    of = rows(SETTING)
    with pytest.raises(NotApplicable, match="a sentence has neither"):
        Loader(of, of.train, [], 16, 0, "distill", partners=lambda index, rng: index)
    with pytest.raises(NotApplicable, match=r"reads 2 views of each row: a sentence has one"):
        kind_and_roles(Needs(views=2), task_spec(SETTING))


def test_what_does_not_fit_is_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="net 'convnet_w4' reads no sentences, and input 'source' holds sentences"):
        net("convnet_w4")
    with pytest.raises(UserError, match="net 'gru_w8' reads sentences, and input 'image' holds none"):
        models.build("gru_w8", (3, 8, 8), 10)
    from kdbench.engine.checkpoint import save_tensors

    save_tensors(tmp_path / "other.safetensors", net("gru_w8", (KNOWN[0], Vocabulary(30, "2" * 64))).state_dict())
    with pytest.raises(UserError, match="they were trained on another vocabulary"):
        load_weights(net("gru_w8"), str(tmp_path / "other.safetensors"))
    spec = registry.task("phrases").model_dump()
    with pytest.raises(ValueError, match=r"score.rules: .*beam"):
        type(task_spec(SETTING)).model_validate({**spec, "score": {**spec["score"], "rules": {"baem": 2}}})
    digits = registry.task("digits").model_dump()
    with pytest.raises(ValueError, match=r"a classification task has no train\.label_smoothing"):
        type(task_spec(SETTING)).model_validate({**digits, "train": {**digits["train"], "label_smoothing": 0.1}})


def test_smoothing_is_of_the_loss_alone() -> None:
    task, made = tiny(), fitted(SETTING)["image"].net
    one = task.wrap(task.rows(torch.arange(8)))
    out = made(one)
    smooth = kinds.kind("translation").smoothed(0.1)
    expected = torch.nn.functional.cross_entropy(out.logits, one.y, label_smoothing=0.1)
    assert torch.equal(smooth.loss(out, one), expected)
    names = ["token_nll"]
    plain = kinds.kind("translation").answered(made, one, task.scaling, names)
    assert smooth.answered(made, one, task.scaling, names) == plain
    assert plain.nll / plain.count == pytest.approx(float(task.loss(out, one)), rel=1e-5)


def evaluated(home: Home, method: str, *overrides: str, **more: Any) -> Any:
    small = ["data.options.train=96", "data.options.test=32", "train.epochs=2", "train.batch=16"]
    config = run_config(
        method, "phrases", [*small, "pair.teachers.text.net=gru_w8", "pair.student.net=gru_w8", *overrides]
    )
    return run.run_seed(Request(config, 0, torch.device("cpu"), home, overhead="off", **more))


def test_a_run_says_how_it_was_scored_and_resumes_to_the_same_bits(tmp_path: Path) -> None:
    calm = evaluated(Home(tmp_path / "calm"), "kd", "method.temperature=1")
    assert calm.status == "ok", calm.error
    assert set(calm.metrics.last) == {"chrf", "bleu", "exact", "token_nll"}
    assert calm.metrics.signatures["chrf"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
    assert "tok:none" in calm.metrics.signatures["bleu"]
    stormy = Home(tmp_path / "stormy")
    again = resumed(lambda: evaluated(stormy, "kd", "method.temperature=1", checkpoint_seconds=0.0))
    assert again.deploy.export_sha256 == calm.deploy.export_sha256


def resumed(evaluate: Any) -> Any:
    """A run killed in the middle of the student's training, and asked for again."""
    from kdbench.engine.trainer import Trainer

    class Killed(BaseException):
        pass

    save, seen = Trainer._save, []

    def killed(self: Any, *args: Any) -> None:
        save(self, *args)
        seen.append(self)
        if len(seen) == 9:  # the end of the teacher's, 8 of the student's 12 steps
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_save", killed)
        with pytest.raises(Killed):
            evaluate()
    return evaluate()


def test_weight_0_is_plain(tmp_path: Path) -> None:
    home = Home(tmp_path)
    plain = evaluated(home, "plain")
    none = evaluated(home, "kd", "method.kd_weight=0", "method.ce_weight=1")
    assert none.deploy.export_sha256 == plain.deploy.export_sha256


TRAINED = "from kdbench.base.subwords import trained; import hashlib; from kdbench.data.sources.phrases import pairs; "
TRAINED += "print(hashlib.sha256(trained([p[1] for p in pairs(500)], 200)).hexdigest())"


def test_three_processes_make_one_vocabulary() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", TRAINED], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": str(n)}
        ).stdout
        for n in range(3)
    }
    assert len(found) == 1
    assert len(found.pop().strip()) == 64


def test_a_vocabulary_is_part_of_what_identifies_data_and_teachers(tmp_path: Path) -> None:
    from kdbench.data import load
    from kdbench.data.decode.place import Place
    from kdbench.specs.data import Data

    place = Place(None, tmp_path)

    def of(**options: int) -> Any:
        return load(Data(source="phrases", options={"train": 60, "test": 20, **options}), place)

    one, same, other = of(), of(), of(subwords=80)
    assert one.identity() == same.identity() != other.identity()
    assert one.digest("train") != other.digest("train")
    kept = {path.name for path in tmp_path.glob("phrases-*/*.json")}
    assert kept == {"source.json", "target.json", "facts.json"}
    assert {path.read_bytes() for path in tmp_path.glob("phrases-*/target.json")} >= {
        bytes(one.test.y.subwords.tolist())
    }


def test_500_sentences_are_written_in_time() -> None:
    known = (Vocabulary(1000, "0" * 64), Vocabulary(1000, "1" * 64))
    for name in ("gru_w128", "transformer_w128_l2"):
        made = net(name, known)
        source = torch.randint(4, 1000, (500, 12), generator=torch.Generator().manual_seed(0))
        y = Sentences.of([[5]] * 500, [""] * 500, b"").batch({"source": source})
        begin = time.process_time()
        with torch.no_grad():
            made.generate(y, 24)
        assert time.process_time() - begin < 20
