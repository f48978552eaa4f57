"""Cases that single methods treat apart: first steps, rows that lack something, stages that are chosen.

Values are worked out here from the equations, on made-up outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from objectives import built, ce, kl, logits, maps, terms_of
from smalls import IMAGES, TEACHER_SIZES, losses, network, small

from kdbench.contract import Batch
from kdbench.methods.energykd import adapter as energykd

pytestmark = pytest.mark.seam


def check_ban() -> None:
    """Every generation but the first has the cross-entropy with the probabilities of the one before it."""
    for name, weight in (("ban", 0.0), ("ban+l", 0.7)):
        made = built(name, ce_weight=weight)
        first, second, third, last = (terms for _, _, terms in losses(made))
        own, one, two, three = logits(made)
        y = made.batch.y
        assert first.keys() == {"task"}
        assert first["task"].item() == pytest.approx(ce(one, y).item(), rel=1e-5)
        for terms, child, parent in ((second, two, one), (third, three, two), (last, own, three)):
            soft = -(parent.softmax(1) * child.log_softmax(1)).sum(1).mean()
            expected = {"ban": soft} | ({"task": weight * ce(child, y)} if weight else {})
            assert terms.keys() == expected.keys()
            for term, value in expected.items():
                assert terms[term].item() == pytest.approx(value.item(), rel=1e-5)


def check_tf_kd_copy() -> None:
    """The copy learns by the task's own loss."""
    made = built("tf_kd")
    assert made.terms("teacher").keys() == {"task"}
    assert made.terms("teacher")["task"].item() == pytest.approx(ce(logits(made)[1], made.batch.y).item(), rel=1e-5)


def check_simkd_after_norm() -> None:
    """A teacher whose classifier reads its last map, pooled after one more activation."""
    teacher = network(11, IMAGES + 3, sizes=TEACHER_SIZES)
    last = teacher.out.preact[-1]
    teacher.out = teacher.out._replace(maps=(teacher.out.maps[0], last), emb=last.relu().flatten(2).mean(2))
    made = small("simkd", teacher)
    student, rows = maps(made, 0)[-1], len(made.batch)
    difference = made.method.net.projector(student) - last[:rows].relu()
    expected = made.method.hp.feature_weight * (difference**2).mean()
    assert made.terms()["feature"].item() == pytest.approx(expected.item(), rel=1e-5)


def check_ccl_rows() -> None:
    """Rows without a teacher's modality leave only that teacher's terms; one teacher alone has weight 1."""
    made = built("ccl")
    made.batch = Batch(made.batch.x, made.batch.y, made.batch.index, 1, {"audio": torch.zeros(6, dtype=torch.bool)})
    alone = made.terms()
    whole = built("ccl", several_weight=1.0)
    del whole.method.teachers["audio"]
    whole.method.taus = whole.method.taus[:1]
    for term, value in whole.terms().items():
        factor = made.method.hp.several_weight if term in ("contrast", "divergence") else 1.0
        assert alone[term].item() == pytest.approx(factor * value.item(), rel=1e-5), term
    of_one = built("ccl", several_weight=0.3)
    del of_one.method.teachers["audio"]
    of_one.method.taus = of_one.method.taus[:1]
    for term, value in whole.terms().items():
        assert of_one.terms()[term].item() == pytest.approx(value.item(), rel=1e-5), term
    made.batch = Batch(
        made.batch.x, made.batch.y, made.batch.index, 1, dict.fromkeys(("image", "audio"), torch.zeros(6) > 0)
    )
    nothing = made.terms()
    assert nothing.pop("task").item() == pytest.approx(ce(logits(made)[0], made.batch.y).item(), rel=1e-5)
    assert [value.item() for value in nothing.values()] == [0.0] * 5


def check_graph_needs_as_many_rows_as_neighbours() -> None:
    """hkd builds its graph of a batch that is no smaller than its neighbours, and then updates the banks."""
    for neighbours, built_graph in ((5, True), (6, True), (7, False)):
        made = built("hkd", neighbours=neighbours)
        assert (made.terms()["graph"].item() != 0) is built_graph
        before = made.method.banks[0].rows.clone()
        made.step()
        assert (not torch.equal(before, made.method.banks[0].rows)) is built_graph


def check_negatives_of_the_other_network() -> None:
    """hkd tells an anchor from rows of the bank that is named, which makes no difference where banks are equal."""
    for equal in (False, True):
        pair = [built("hkd", negatives_of=whose) for whose in ("own", "cross")]
        if equal:
            for made in pair:
                made.method.banks[1].rows.copy_(made.method.banks[0].rows)
        own, cross = (made.terms() for made in pair)
        for term in ("individual", "graph"):
            assert (own[term].item() == pytest.approx(cross[term].item(), rel=1e-6)) is equal, term


def test_supervision_is_the_tasks_own_loss():
    """Methods with a term ``task`` leave the loss to the task."""
    for name in ("at", "crd", "hkd", "reviewkd", "plain"):
        made = built(name)
        made.method.task.loss = lambda out, batch: 3.5 + 0 * out.logits.sum() + 0 * batch.y.sum()
        weight = getattr(made.method.hp, "ce_weight", 1.0)
        if name == "plain":
            made = built(name, label_smoothing=0.0)
            made.method.task.loss = lambda out, batch: 3.5 + 0 * out.logits.sum() + 0 * batch.y.sum()
        assert made.terms()["task"].item() == pytest.approx(3.5 * weight)


def check_byot_of_several_processes() -> None:
    """A sum over rows counts as often as there are processes, for they share by means."""
    made = built("byot", feature_weight=0.01)
    alone = made.terms()
    made.method.task.gather = lambda rows: torch.cat([rows] * 3)
    for term, value in made.terms().items():
        assert value.item() == pytest.approx(alone[term].item() * (3 if term == "feature" else 1), rel=1e-5)


def check_mixed_rows() -> None:
    """HE-DA mixes the chosen rows with one another, all draws being of the step's generator."""
    x, rows = torch.randn(6, 3, 8, 10), torch.tensor([0, 1, 4, 5])
    batch = Batch({"image": x, "other": 2 * x}, torch.arange(6), torch.arange(6) + 10)
    shares = torch.linspace(0, 1, energykd.LEVELS)
    for mixing in ("cutmix", "mixup"):
        torch.manual_seed(len(mixing))
        own = SimpleNamespace(hp=SimpleNamespace(mixing=mixing), student=SimpleNamespace(input="image"))
        own.inputs, own.mixup_shares = {"image", "other"}, shares
        mixed = energykd.EnergyKD._mixed(own, batch, rows, torch.Generator().manual_seed(5))
        rng = torch.Generator().manual_seed(5)
        partner = rows[torch.randperm(4, generator=rng)]
        if mixing == "cutmix":
            top, left, bottom, right = energykd.random_box(8, 10, rng).tolist()
            expected = x[rows].clone()
            expected[..., top:bottom, left:right] = x[partner][..., top:bottom, left:right]
        else:
            share = shares[torch.randint(energykd.LEVELS, (), generator=rng)]
            expected = share * x[rows] + (1 - share) * x[partner]
        assert torch.equal(mixed.x["image"], expected)
        assert torch.allclose(mixed.x["other"], 2 * expected)
        assert mixed.y.tolist() == rows.tolist()
        assert mixed.index.tolist() == [10, 11, 14, 15]


STAGES = ("at", "nst", "vid", "ab", "ofd", "reviewkd")
"""Methods whose stages are chosen by number."""


def check_chosen_stages(name: str) -> None:
    """Chosen stages, counted from 1, meet in the order in which they are named, and no others count."""
    made, other = (built(name, student_stages=[1, 2], teacher_stages=[2, 3]) for _ in range(2))
    for net, chosen in ((other.method.student, (0, 1)), (other.method.teacher, (1, 2))):
        maps, preact = ([of[i] for i in chosen] for of in (net.out.maps, net.out.preact))
        net.out = net.out._replace(maps=tuple(maps), preact=tuple(preact))
    other.method.hp = replace(other.method.hp, student_stages=(), teacher_stages=())
    for term, value in terms_of(other).items():
        assert terms_of(made)[term].item() == pytest.approx(value.item(), rel=1e-5), term


@pytest.mark.parametrize("name", STAGES)
def test_chosen_stages(name):
    check_chosen_stages(name)


def check_a_teacher_without_a_say_rests(name: str) -> None:
    """The teacher is not run in a second phase that compares nothing with it."""
    made = built(name, kd_weight=0.0)
    list(made.method.stages())
    made.method.teacher.forward = None
    assert made.method.losses(made.batch, made.at(0)).keys() == {"task"}


@pytest.mark.parametrize("name", ["ab", "fsp"])
def test_a_teacher_without_a_say_rests(name):
    check_a_teacher_without_a_say_rests(name)


def check_ccd_without_an_inner_method() -> None:
    """Nothing is done after its steps."""
    made = built("ccd")
    made.method.after_step(made.batch, made.at(0))


def check_pskd() -> None:
    """Targets move to what was said of the row before; a row that was never seen keeps its label."""
    made = built("pskd")
    (own,), y, alpha = logits(made), made.batch.y, made.method.hp.alpha
    assert made.terms(epoch=3)["soft"].item() == pytest.approx(ce(own, y).item(), rel=1e-5)
    made.step()
    hard = F.one_hot(y, own.shape[1])
    for epoch in (0, 3, 39):
        share = alpha * (epoch + 1) / 40
        wanted = -(((1 - share) * hard + share * own.softmax(1)) * own.log_softmax(1)).sum(1).mean()
        assert made.terms(epoch=epoch)["soft"].item() == pytest.approx(wanted.item(), rel=1e-5)
    stored = made.method.past.rows
    assert torch.allclose(stored[made.batch.index].double(), own.softmax(1), rtol=1e-5)
    assert int((stored.sum(1) > 0).sum()) == len(y)
    made.method.task.gather = lambda rows: rows.flip(0)  # what is stored is what was gathered, row by row
    again, before = made.terms(), stored.clone()
    made.step()
    assert again.keys() == {"soft"}
    assert torch.equal(stored, before)


def check_lwr() -> None:
    """Labels alone through the first interval; then the logits of its last epoch, by a share that rises in steps."""
    for span, length in ((None, 40), (7, 7)):
        made = built("lwr", interval=2, span=span)
        (own,), y, hp = logits(made), made.batch.y, made.method.hp
        for epoch in (0, 1):
            first = made.terms(epoch=epoch)
            assert first["soft"].item() == 0
            assert first["task"].item() == pytest.approx(ce(own, y).item(), rel=1e-5)
            if epoch == 0:
                made.step(epoch=0)
                assert not made.method.old.rows.any()
        made.step(epoch=1)
        old = made.method.old.rows[made.batch.index].double()
        assert torch.allclose(old, own, rtol=1e-5)
        made.method.old.rows.copy_(made.method.old.rows.flip(1))
        for epoch, ended in ((2, 2), (3, 4), (4, 4), (20, 20)):
            share = (1 - hp.least) * min(1.0, ended / length)
            soft = hp.temperature**2 * kl(own, old.flip(1), hp.temperature)
            terms = made.terms(epoch=epoch)
            assert terms["task"].item() == pytest.approx((1 - share) * ce(own, y).item(), rel=1e-5)
            assert terms["soft"].item() == pytest.approx(share * soft.item(), rel=1e-4)


def check_dlb() -> None:
    """The batch before is seen again by its second view, beside what was said of its first; a small one as it is."""
    made = built("dlb")
    (every,), hp, n = logits(made), made.method.hp, IMAGES
    y, now, later = made.batch.y[:n], every[:n], every[n:]
    whole, views = made.batch, torch.arange(2 * n).view(2, n)
    first = made.terms()
    assert first["kd"].item() == 0
    assert first["ce"].item() == pytest.approx(ce(now, y).item(), rel=1e-5)
    made.step()
    for size, following in ((n, 1), (1, 4), (4, 4)):
        again = made.terms()
        held = later[:size]
        wanted = (n * ce(now, y) + size * ce(held, y[:size])) / (n + size)
        soft = hp.kd_weight * hp.temperature**2 * kl(held, now[:size], hp.temperature)
        assert again["ce"].item() == pytest.approx(wanted.item(), rel=1e-5)
        assert again["kd"].item() == pytest.approx(soft.item(), rel=1e-4)
        rows = views[:, :following].flatten()
        made.batch = Batch({"image": rows}, whole.y[rows], rows, 2)
        made.terms()
        made.step()
        made.batch = whole
    assert made.method.last.x.tolist() == [6, 7, 8, 9, 6, 7]
    assert int(made.method.last.held) == 4


def check_introspective_ramp() -> None:
    """Its weight rises over a share of training, from the first epoch on."""
    made = built("introspective", ramp=0.1)
    whole = made.terms(epoch=39)["explanation"].item()
    for epoch, share in ((0, 0.25), (2, 0.75), (3, 1.0), (4, 1.0)):
        assert made.terms(epoch=epoch)["explanation"].item() == pytest.approx(share * whole, rel=1e-5)
    assert built("introspective", ramp=0.0).terms(epoch=0)["explanation"].item() == pytest.approx(whole, rel=1e-5)


def check_rakd_sides() -> None:
    """Each side has the gradient of its own terms: what the other side trains is fixed there."""
    made = built("rakd")
    method, terms = made.method, made.terms()
    judge, projection = list(method.discriminator.parameters()), method.projection.weight
    told = torch.autograd.grad(terms["discriminator"], [*judge, projection], allow_unused=True, retain_graph=True)
    assert all(grad is not None for grad in told[:-1])
    assert told[-1] is None
    for term in ("adversarial", "pairs", "mmd"):  # two of them have the same value with the sides swapped
        assert torch.autograd.grad(terms[term], projection, retain_graph=True)[0].abs().sum() > 0, term
    taught = torch.stack([value for term, value in terms.items() if term != "discriminator"]).sum()
    *fixed, own = torch.autograd.grad(taught, [*judge, projection], allow_unused=True)
    assert all(grad is None for grad in fixed)
    assert own is not None


CHECKS: dict[str, list[Callable[[], None]]] = {
    "pskd": [check_pskd],
    "lwr": [check_lwr],
    "dlb": [check_dlb],
    "introspective": [check_introspective_ramp],
    "rakd": [check_rakd_sides],
    "ban": [check_ban],
    "tf_kd": [check_tf_kd_copy],
    "ab": [partial(check_a_teacher_without_a_say_rests, "ab")],
    "ccd": [check_ccd_without_an_inner_method],
    "ccl": [check_ccl_rows],
    "hkd": [check_graph_needs_as_many_rows_as_neighbours, check_negatives_of_the_other_network],
    "simkd": [check_simkd_after_norm],
    "byot": [check_byot_of_several_processes],
    "energykd": [check_mixed_rows],
}
"""Further checks of a method."""


@pytest.mark.parametrize(
    "check", [c for own in CHECKS.values() for c in own if not isinstance(c, partial)], ids=lambda check: check.__name__
)
def test_case(check):
    check()
