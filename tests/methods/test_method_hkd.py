"""hkd: gradient routes, banks, small batches, and what it refuses."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from kdbench.contract import At, Batch, Network, NotApplicable, Out
from kdbench.engine.applicability import nets_and_data
from kdbench.methods.hkd.adapter import HKD, Embedding, contrasts, neighbours
from kdbench.specs import registry

N_TRAIN, CLASSES = 40, 4


class Net(Network):
    """Pooled features of a given width and a linear classifier."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.body, self.fc = torch.nn.Linear(3, features), torch.nn.Linear(features, CLASSES)

    def encode(self, x):
        emb = self.body(x)
        return Out(self.fc(emb), emb=emb)


def make(labels=None, batch=16, constant_teacher=False, **changes):
    labels = torch.arange(N_TRAIN) % CLASSES if labels is None else labels
    x = torch.randn(len(labels), 3)
    task = SimpleNamespace(
        train_labels=labels, n_train=len(labels), batch=batch, classes=CLASSES, kind="classification",
        loss=lambda out, batch: torch.nn.functional.cross_entropy(out.logits, batch.y),
        probe=lambda net: net.encode(x[:2]), gather=lambda rows: rows,
    )  # fmt: skip
    card = registry.card("hkd")
    hp = card.typed({**card.defaults(), "width": 6, "negatives": 10, **changes})
    teacher = Net(7).requires_grad_(False)
    if constant_teacher:
        teacher.fc.weight.zero_()
    return HKD(task, [Net(5)], {"image": teacher}, hp), lambda rows: Batch({"image": x[rows]}, labels[rows], rows)


def at():
    return At(0, 0, 1, 0.0, torch.Generator().manual_seed(3))


def test_scores_get_gradient_from_the_task_alone_and_the_teacher_side_trains():
    method, batch = make()
    terms = method.losses(batch(torch.arange(12)), at())
    (terms["individual"] + terms["graph"]).backward()
    assert method.student.fc.weight.grad is None
    assert method.student.body.weight.grad.abs().sum() > 0
    for side in method.embeddings:
        assert all(p.grad.abs().sum() > 0 for p in side.parameters())


def test_every_read_of_a_bank_sees_its_state_before_the_step():
    method, batch = make()
    rows = batch(torch.arange(12))
    before = [bank.rows.clone() for bank in method.banks]
    first = method.losses(rows, at())
    assert all(torch.equal(old, bank.rows) for old, bank in zip(before, method.banks, strict=True))
    sum(first.values()).backward()  # a bank written in place between forward and backward would raise
    method.after_step(replace(rows, handed=first.handed), at())
    changed = [(old != bank.rows).any(dim=1) for old, bank in zip(before, method.banks, strict=True)]
    assert all(c[:12].all() and not c[12:].any() for c in changed)
    again = method.losses(rows, at())
    assert float(again["individual"].detach()) != float(first["individual"].detach())


@pytest.mark.parametrize("rows", [1, 7])
def test_a_batch_of_fewer_rows_than_neighbours_has_no_graph_and_leaves_the_banks(rows):
    method, batch = make()
    before = [bank.rows.clone() for bank in method.banks]
    method.losses(batch(torch.arange(16)), at())  # what a larger batch left must not be written later
    part = batch(torch.arange(rows))
    terms = method.losses(part, at())
    assert set(terms) == {"task", "individual", "graph"}
    assert float(terms["graph"]) == 0
    assert torch.isfinite(terms["individual"])
    sum(terms.values()).backward()
    method.after_step(replace(part, handed=terms.handed), at())
    assert all(torch.equal(old, bank.rows) for old, bank in zip(before, method.banks, strict=True))
    assert all(side.graph.weight.grad is None for side in method.embeddings)


def test_a_batch_of_as_many_rows_as_neighbours_is_one_clique():
    nodes = torch.randn(8, 4)
    side = Embedding(3, 4)
    nearest = neighbours(torch.randn(8, CLASSES), 8)
    mean = nodes.mean(dim=0).expand(8, 4)
    direct = side.graph(torch.cat([nodes, mean], dim=1))
    assert torch.allclose(side.mixed(nodes, nearest), torch.nn.functional.normalize(direct, dim=1), atol=1e-6)


def test_every_row_is_its_own_neighbour_even_among_equal_predictions():
    nearest = neighbours(torch.zeros(9, CLASSES), 3)
    assert (nearest == torch.arange(9)[:, None]).any(dim=1).all()


def test_one_negative_works():
    method, batch = make(negatives=1)
    assert torch.isfinite(sum(method.losses(batch(torch.arange(12)), at()).values()))


def test_no_more_distinct_negatives_than_the_training_rows_hold():
    method, _ = make(negatives=16384)
    assert method.negatives.k == N_TRAIN - N_TRAIN // CLASSES


def test_one_class_of_training_rows_is_refused():
    with pytest.raises(NotApplicable, match="at least 2 classes"):
        make(labels=torch.zeros(20, dtype=torch.long))


def test_small_batches_are_told_once_at_the_start():
    with pytest.warns(UserWarning, match=r"batches of 5 rows .*neighbours=8"):
        make(batch=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(batch=8)


def test_a_teacher_of_constant_predictions_is_told_of_and_stays_finite():
    with pytest.warns(UserWarning, match="predicts two rows alike"):
        method, batch = make(constant_teacher=True)
    terms = method.losses(batch(torch.arange(12)), at())
    assert all(torch.isfinite(term) for term in terms.values())


def test_row_numbers_outside_the_training_set_are_an_error():
    method, batch = make()
    rows = batch(torch.arange(12))
    with pytest.raises(IndexError, match=r"index 40 is out of (bounds|range)"):
        method.losses(dataclasses.replace(rows, index=rows.index + N_TRAIN - 11), at())


def test_a_teacher_without_scores_is_refused():
    method, _ = make()
    pair = SimpleNamespace(student=SimpleNamespace(net="student"))
    task = SimpleNamespace(probe=lambda net: Out(None, emb=torch.zeros(2, 7)), spec=SimpleNamespace(pair=pair))
    needs = dataclasses.replace(HKD.needs(None), student=frozenset())
    with pytest.raises(NotApplicable, match="image teacher offers no logits"):
        nets_and_data(needs, task, method.student, method.teachers)


@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_dead_features_and_huge_scores_stay_finite(scale):
    method, batch = make()
    with torch.no_grad():
        for parameter in (*method.student.parameters(), *method.embeddings.parameters()):
            parameter.mul_(scale)
    sum(method.losses(batch(torch.arange(12)), at()).values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


def test_cross_negatives_swap_the_banks():
    anchors, positives, banks = ([torch.randn(3, 4) for _ in range(2)] for _ in range(3))
    counts = torch.zeros(3, 3)
    own = contrasts(anchors, positives, banks, counts, 0.5)
    cross = contrasts(anchors, positives, banks, counts, 0.5, "cross")
    swapped = contrasts(anchors, positives, banks[::-1], counts, 0.5)
    assert not torch.allclose(own, cross)
    assert torch.equal(cross, swapped)


def test_hyper_parameters_of_the_headline_variant():
    assert dict(registry.method("hkd+kd").variant.params) == {"kd_weight": 1.0}
    method, batch = make(kd_weight=1.0)
    assert set(method.losses(batch(torch.arange(9)), at())) == {"task", "individual", "graph", "kd"}
    assert dataclasses.is_dataclass(method.hp)
