"""Methods of sentences: whose symbols count, what the teacher writes, which states lie near."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sentenced import SETTING, tiny

from kdbench.base.home import Home
from kdbench.checks.tiny import fitted, rows
from kdbench.contract import NotApplicable, Sentences
from kdbench.contract.sentences import EOS
from kdbench.methods.rdrop.adapter import require_dropout
from kdbench.methods.shared.sentences import gate, nearest, nearest_reference, retold, written
from kdbench.methods.word_kd.adapter import LossQueue
from kdbench.runs import run
from kdbench.runs.request import Request
from kdbench.specs.config import run_config

torch.set_num_threads(1)


def test_a_queue_drops_as_many_of_the_oldest_as_it_takes() -> None:
    queue = LossQueue(5)
    for new, left in (
        ([1, 2], [1, 2]),
        ([3, 4], [1, 2, 3, 4]),
        ([5], [2, 3, 4, 5]),
        ([6, 7, 8, 9, 10, 11], [7, 8, 9, 10, 11]),
    ):
        queue.set(queue.pushed(torch.tensor(new, dtype=torch.float32)))
        assert queue.values[: int(queue.held)].tolist() == left


def test_the_gate_lets_a_share_through() -> None:
    values = torch.tensor([0.1, 0.5, 0.3, 0.9, 0.5])
    assert float(gate(values, 0.5)) == pytest.approx(0.5)  # the third of five
    assert float(gate(values, 1.0)) == pytest.approx(0.1)
    assert float(gate(values, 0.01)) == pytest.approx(0.9)


def test_what_a_teacher_writes_takes_the_place_of_the_targets() -> None:
    task, net = tiny(), fitted(SETTING)["image"].net
    made = written(task, net, 12, 1)
    every = task.rows(torch.arange(task.n_rows))
    told = retold(every.y, made)
    own = net.generate(task.wrap(every), 12)
    assert [row[:-1] for row in told.tolist()] == own
    assert told.written() == every.y.written()  # the texts stay, for scoring
    assert told.index.tolist() == list(range(len(told.flat)))

    class Silent(type(net)):  # type: ignore[misc]
        def generate(self, batch: Any, *args: Any, **more: Any) -> list[list[int]]:
            return [[]] * batch.rows

    silent = Silent.__new__(Silent)
    silent.__dict__ = net.__dict__
    assert retold(every.y, written(task, silent, 12, 1)).tolist() == every.y.tolist()


def test_a_beam_is_asked_for_what_is_nearest_to_the_reference() -> None:
    pytest.importorskip("sacrebleu", reason="text is an extra: pip install 'kdbench[text]'")
    found = [[5, 6, 7, 8, 9], [5, 6, 7, 8, 4], [4, 4]]
    assert nearest_reference(found, [5, 6, 7, 8, 4]) == found[1]
    assert nearest_reference(found[1:], [9, 9]) == found[1]  # of equals the likelier


def test_a_state_is_its_own_nearest() -> None:
    task, net = tiny(), fitted(SETTING)["image"].net
    found = nearest(task, net, 3)
    assert all(len(one) == task.n_train for one in found.values())
    assert torch.equal(found["symbols"][:, 0].long(), task.train_labels)
    assert float(found["distances"][:, 0].max()) < 1e-3
    assert bool((found["distances"].diff(dim=1) >= 0).all())
    batch = task.wrap(task.rows(torch.arange(task.n_rows)))
    states = net(batch).emb.double()
    far = torch.cdist(states, states).square()
    assert torch.allclose(found["distances"].double(), far.topk(3, largest=False).values, atol=1e-3)


@pytest.mark.parametrize("tile", [2, 50])
def test_tiles_of_a_search_find_what_it_finds_at_once(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a tile holds fewer states than neighbours are wanted."""
    from kdbench.methods.shared import sentences

    task, net = tiny(), fitted(SETTING)["image"].net
    whole = nearest(task, net, 3)
    monkeypatch.setattr(sentences, "TILE", tile)
    monkeypatch.setattr(sentences, "BLOCK", 7)
    assert task.n_train % tile + task.n_train % 7 > 0  # the last are cut
    found = nearest(task, net, 3)
    assert torch.allclose(found["distances"], whole["distances"], atol=1e-4)
    clear = whole["distances"].diff(dim=1).min(1).values > 1e-3  # of equally far states either may be found
    assert int(clear.sum()) > 5
    assert torch.equal(found["symbols"][clear][:, :2], whole["symbols"][clear][:, :2])


def test_two_passes_of_a_net_without_dropout_are_one() -> None:
    from kdbench import models

    known = {"vocabularies": rows(SETTING).reads("source")}
    require_dropout(models.build("gru_w8", (8,), 20, **known))
    with pytest.raises(NotApplicable, match="differ by dropout alone"):
        require_dropout(models.build("gru_w8_d0", (8,), 20, **known))


WEIGHTS = {
    "word_kd": {"ce_weight": {"ce"}, "kd_weight": {"kd"}},
    "word_kd+batch": {"ce_weight": {"ce"}, "kd_weight": {"kd"}},
    "knn_kd": {"kd_weight": {"knn"}},
    "rdrop": {"weight": {"agree"}},
    "dkd_nmt": {"kd_weight": {"knn"}, "weight": {"agree"}},
    "gkd": {"kd_weight": {"kd"}},
    "distillm": {"kd_weight": {"kd"}},
}
"""Method to its weights and the terms that each multiplies; all others are without it, but for the rest to 1."""


@pytest.mark.parametrize("name", WEIGHTS)
def test_each_weight_multiplies_its_own_terms(name: str) -> None:
    from kdbench.checks.stubs import hyper_parameters
    from kdbench.contract import At
    from kdbench.methods.shared.sentences import nearest
    from kdbench.specs import registry

    task, teacher = tiny(), fitted(SETTING)["image"].net
    ref = registry.method(name)
    params = {**(ref.variant.params if ref.variant else {}), "kd_weight": 0.5}
    params = {key: value for key, value in params.items() if key in ref.card.hyper_parameters}
    if "neighbours" in ref.card.hyper_parameters:
        params["neighbours"] = 4
    if "rate" in ref.card.hyper_parameters and not name.startswith("word"):
        params["rate"] = 0.0
    batch = task.wrap(task.rows(torch.arange(12)))

    def terms(**changed: float) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        hp = hyper_parameters(ref.card.name, {**params, **changed})
        method = ref.adapter()(task, [task.build_student()], {"image": teacher}, hp)
        if hasattr(method, "symbols"):
            found = nearest(task, teacher, 4)
            method.symbols, method.distances = found["symbols"], found["distances"]
        torch.manual_seed(1)  # dropout draws alike
        return dict(method.train().losses(batch, At(0, 0, 4, 0.0, torch.Generator().manual_seed(0))))

    task_of = {"ce"} if name in ("gkd", "distillm") else set()
    for weight, own in WEIGHTS[name].items():
        base = params.get(weight, ref.card.hyper_parameters[weight].default)
        task._peers = 0
        before = terms()
        task._peers = 0
        after = terms(**{weight: 1.6 * base})
        assert before.keys() == after.keys()
        for term, value in before.items():
            factor = 1.6 if term in own else (1 - 1.6 * base) / (1 - base) if term in task_of else 1.0
            assert after[term].item() == pytest.approx(factor * value.item(), rel=1e-4, abs=1e-9), (weight, term)


def evaluated(home: Home, method: str, *overrides: str) -> Any:
    small = ["data.options.train=96", "data.options.test=32", "train.epochs=1", "train.batch=16"]
    nets = ["pair.teachers.text.net=gru_w8", "pair.student.net=gru_w8", "pair.teachers.text.train.epochs=1"]
    config = run_config(method, "phrases", [*small, *nets, *overrides])
    return run.run_seed(Request(config, 0, torch.device("cpu"), home, overhead="off"))


@pytest.mark.slow
def test_what_is_written_is_made_once_and_stands_in_the_ledger(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="text is an extra: pip install 'kdbench[text]'")
    first = evaluated(Home(tmp_path), "seq_kd", "method.longest=8")
    second = evaluated(Home(tmp_path), "seq_kd", "method.longest=8", "train.optimizer.lr=0.001")
    for record, basis in ((first, "measured"), (second, "cited")):
        assert record.status == "ok", record.error
        (line,) = [stage for stage in record.stages if stage.ledger == "teacher_cache"]
        assert (line.name, line.basis) == ("written", basis)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["word_kd", "knn_kd"])
def test_weight_0_is_plain(method: str, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="text is an extra: pip install 'kdbench[text]'")
    more = ["method.ce_weight=1"] if method == "word_kd" else []
    plain = evaluated(Home(tmp_path), "plain")
    none = evaluated(Home(tmp_path), method, "method.kd_weight=0", *more)
    assert none.deploy.export_sha256 == plain.deploy.export_sha256


def test_sentences_that_end_are_whole() -> None:
    y = Sentences.of([[4, 5]], ["a"], b"")
    assert y.tolist() == [[4, 5, EOS]]
