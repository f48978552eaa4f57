"""brcd: its term against loops, clusters and masks, and the cases that golden vectors do not hold."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hashed import two_views

from kdbench.checks.stubs import watched
from kdbench.contract import NotApplicable, Out, bits
from kdbench.methods.brcd import adapter
from kdbench.methods.brcd.adapter import Clusters, bit_mask, clustered, distilled


def signs(*shape: int) -> torch.Tensor:
    return torch.where(torch.rand(*shape, dtype=torch.float64) < 0.5, -1.0, 1.0).double()


def by_loops(code, ti, tj, own, clusters, alpha, temperature, filtered):
    n = len(code)
    masked = [clusters.mask[own[b]] * tj[b] for b in range(n)]
    pool = [clusters.mask[own[b]] * code[b] for b in range(n)] + masked

    def cosine(a, b):
        return (a @ b / (a.norm().clamp_min(1e-8) * b.norm().clamp_min(1e-8))).item()

    near = [
        min(range(len(clusters.centres)), key=lambda c: (row - clusters.centres[c]).norm().item()) for row in masked
    ]
    columns = [int(c) for c in own] + near
    total = 0.0
    for row in range(2 * n):
        b, partner = row % n, (row + n) % (2 * n)
        share = 1.0 if filtered and near[b] != int(own[b]) else alpha
        positive = share * cosine(code[b], ti[b]) + (1 - share) * cosine(pool[row], pool[partner])
        scores = [positive / temperature]
        for column in set(range(2 * n)) - {row, partner}:
            away = -1000.0 if filtered and columns[column] == int(own[b]) else 0.0
            scores.append(cosine(pool[row], pool[column]) / temperature + away)
        total += math.log(sum(math.exp(s - scores[0]) for s in scores)) / (2 * n)
    return total


@pytest.mark.parametrize("filtered", [True, False])
@pytest.mark.parametrize("rule", ["intended", "released", "none"])
def test_the_term_is_the_one_of_loops(filtered: bool, rule: str) -> None:
    torch.manual_seed(3)
    code, ti, tj, own = signs(6, 8), signs(6, 8), signs(6, 8), torch.tensor([0, 1, 2, 0, 1, 1])
    centres = torch.rand(3, 8, dtype=torch.float64) * 2 - 1
    clusters = Clusters(own, centres, bit_mask(centres, 0.5, rule))
    given = (code, ti, tj, own, clusters, 0.7, 0.3, filtered)
    assert distilled(*given).item() == pytest.approx(by_loops(*given), rel=1e-9)


def test_the_nearest_centre_is_that_of_the_masked_code() -> None:
    """Of row 0, masked, it is that of its own cluster; unmasked it would be the other's."""
    code = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    own, mask = torch.tensor([0, 1, 1]), torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    clusters = Clusters(own, torch.tensor([[0.9, 0.0], [0.9, 1.0]], dtype=torch.float64), mask)
    assert torch.cdist(code[:1], clusters.centres).argmin().item() == 1
    assert torch.cdist(code[:1] * mask[:1], clusters.centres).argmin().item() == 0
    given = (code, -code, code, own, clusters, 0.6, 0.3, True)
    assert distilled(*given).item() == pytest.approx(by_loops(*given), rel=1e-9)


def test_masks() -> None:
    centres = torch.tensor([[0.9, -0.6, 0.1], [0.2, -0.3, 0.5]])
    assert bit_mask(centres, 0.5, "intended").tolist() == [[1, 1, 0], [1, 1, 1]]  # the second would keep none
    assert bit_mask(centres, 0.5, "released").tolist() == [[0, 0, 0]] * 2
    assert bit_mask(centres, 0.5, "none").tolist() == [[1, 1, 1]] * 2


def test_with_the_released_mask_only_the_teachers_own_view_pulls() -> None:
    own, zeros = torch.tensor([0, 1]), torch.zeros(2, 4)
    code = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1]], requires_grad=True)
    clusters = Clusters(own, torch.tensor([[0.5] * 4, [0.6] * 4]), zeros)
    teacher = code.detach().clone()
    distilled(code, teacher, -teacher, own, clusters, 0.8, 0.3, True).backward()
    again = code.detach().clone().requires_grad_(True)
    distilled(again, teacher, teacher, own, clusters, 0.8, 0.3, True).backward()
    assert torch.equal(code.grad, again.grad)  # the other view says nothing


def test_clusters_of_codes() -> None:
    codes = torch.cat([torch.ones(5, 4), -torch.ones(3, 4)])
    own, centres = clustered(codes, 10, 0)  # two distinct codes make two clusters
    assert len(centres) == 2
    assert F.mse_loss(centres[own], codes) == 0


def test_one_row_and_one_cluster_are_finite() -> None:
    code = torch.ones(1, 4)
    clusters = Clusters(torch.zeros(1, dtype=torch.long), torch.ones(1, 4), torch.ones(1, 4))
    assert distilled(code, code, code, clusters.own, clusters, 0.8, 0.3, True).item() == 0


@pytest.mark.parametrize("method", ["brcd", "hash_kd"])
def test_codes_of_other_lengths_do_not_apply(method: str) -> None:
    with pytest.raises(NotApplicable, match="codes of one length, they have 4 and 6 bits"):
        two_views(method, {}, (torch.randn(3, 4), torch.randn(3, 4)), (torch.randn(3, 6), torch.randn(3, 6)))


def made(**given):
    """The method on random scores of 5 rows, its hyper-parameters all different."""
    torch.manual_seed(1)
    student, teacher = ([torch.randn(5, 8) for _ in range(2)] for _ in range(2))
    values = {"alpha": 0.7, "temperature": 0.4, "clusters": 3, "margin": 0.3, **given}
    return two_views("brcd", values, tuple(student), tuple(teacher)), student, teacher


def check_stage() -> None:
    """One stage of the student; the clusters are those of the teacher's bits of all rows, made once a run."""
    found, _, teacher = made()
    method, asked = found.method, []
    method.task.batch = 2  # rows go through the teacher in parts
    method.task.keep = lambda name, make: asked.append(name) or make()
    own_rng = torch.Generator().manual_seed(9)
    state = own_rng.get_state()
    method.task.rng = lambda name: asked.append(name) or own_rng
    with watched(adapter, "clustered", "bit_mask") as calls:
        (stage,) = method.stages()
    assert sorted(asked) == ["clusters", "clusters"]
    assert (stage.name, stage.losses, stage.epochs, stage.ledger) == ("distill", method.losses, 40, "distill")
    (group,) = stage.groups
    assert list(group.params) == [p for p in method.parameters() if p.requires_grad]
    codes, count, seed = calls["clustered"][0].args
    assert torch.equal(codes, bits(teacher[0]))
    assert not codes.requires_grad
    own_rng.set_state(state)
    assert (count, seed) == (3, int(torch.randint(2**31 - 1, (), generator=own_rng)))
    centres, margin, rule = calls["bit_mask"][0].args
    assert (margin, rule) == (0.3, "intended")
    own, wanted = clustered(codes, 3, seed)
    assert torch.equal(centres, wanted)
    for mine, other in zip(method.clusters, (own, wanted, bit_mask(wanted, 0.3, "intended")), strict=True):
        assert torch.equal(mine, other)


def check_terms() -> None:
    """The task's loss, and the contrast of view 0 with both views of the teacher; row numbers choose the cluster."""
    found, student, teacher = made()
    method = found.method
    for scores in student:
        scores.requires_grad_()
    method.students[0].out = Out(torch.cat(student), code=torch.cat(student), emb=bits(torch.cat(student)))
    list(method.stages())
    found.batch = replace(found.batch, index=torch.tensor([4, 3, 2, 1, 0] * 2))
    for scores in teacher:
        scores.requires_grad_()
    method.teacher.out = Out(torch.cat(teacher), code=torch.cat(teacher), emb=bits(torch.cat(teacher)))
    terms = method.losses(found.batch, found.at(0))
    assert terms.keys() == {"task", "distill"}
    given = (bits(student[0]), bits(teacher[0]).detach(), bits(teacher[1]).detach(), method.clusters.own.flip(0))
    for filtered in (True, False):
        method.hp = replace(method.hp, cluster_filter=filtered)
        wanted = by_loops(*given, method.clusters, 0.7, 0.4, filtered)
        assert method.losses(found.batch, found.at(0))["distill"].item() == pytest.approx(wanted, rel=1e-4)
    own = method.task.loss(method.student(found.batch), found.batch)
    assert terms["task"].item() == pytest.approx(own.item(), rel=1e-6)
    assert all(grad is None for grad in torch.autograd.grad(terms["distill"], teacher, allow_unused=True))


CHECKS = [check_stage, check_terms]


@pytest.mark.parametrize("check", CHECKS)
def test_brcd(check) -> None:
    check()
