"""What every method minimises beyond its golden vectors: weights, warm-ups, constants, draws, and whole equations.

Values are worked out here from the equations, on made-up outputs with hyper-parameters that are all different.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from smalls import ELSEWHERE, IMAGES, TEACHER_SIZES, losses, network, small
from torch import Tensor

from kdbench.checks.stubs import Assembled
from kdbench.contract import Batch
from kdbench.methods.energykd import adapter as energykd
from kdbench.specs import registry

pytestmark = pytest.mark.seam

SHARED = {"ce_weight": {"task"}, "kd_weight": {"kd"}}
WEIGHTS: dict[str, dict[str, set[str]]] = {
    "ab": SHARED | {"boundary_weight": {"boundary"}},
    "at": SHARED | {"attention_weight": {"attention"}},
    "cc": SHARED | {"correlation_weight": {"correlation"}},
    "crd": SHARED | {"contrast_weight": {"contrast"}},
    "fitnet": SHARED | {"hint_weight": {"hint"}},
    "fsp": SHARED | {"flow_weight": {"flow"}},
    "ft": SHARED | {"factor_weight": {"factor"}},
    "hkd": SHARED | {"hkd_weight": {"individual", "graph"}},
    "nst": SHARED | {"selectivity_weight": {"selectivity"}},
    "ofd": SHARED | {"feature_weight": {"feature"}},
    "pkt": SHARED | {"pkt_weight": {"pkt"}},
    "rkd": SHARED | {"distance_weight": {"distance"}, "angle_weight": {"angle"}},
    "sp": SHARED | {"similarity_weight": {"similarity"}},
    "vid": SHARED | {"information_weight": {"information"}},
    "kd": {"ce_weight": {"ce"}, "kd_weight": {"kd"}},
    "dist": {"ce_weight": {"ce"}, "inter_weight": {"inter"}, "intra_weight": {"intra"}},
    "dkd": {"ce_weight": {"ce"}},
    "lskd": {"ce_weight": {"ce"}, "kd_weight": {"kd"}},
    "dkd+lskd": {"ce_weight": {"ce"}, "kd_weight": {"dkd"}},
    "nkd": {"ce_weight": {"ce"}, "target_weight": {"target"}, "others_weight": {"others"}},
    "mlkd": {"ce_weight": {"ce"}, "kd_weight": {"kd", "class", "batch"}},
    "energykd": {"ce_weight": {"ce"}, "kd_weight": {"kd"}},
    "dkd+energykd": {"ce_weight": {"ce"}, "kd_weight": {"dkd"}},
    "reviewkd": {"ce_weight": {"task"}, "review_weight": {"review"}, "kl_weight": {"kl"}},
    "simkd": {"feature_weight": {"feature"}},
    "sskd": {
        "ce_weight": {"ce"}, "kd_weight": {"kd"}, "rotation_weight": {"rotation"}, "similarity_weight": {"similarity"},
    },
    "hsakd": {},
    "ccd": {"kd_weight": {"task", "plain_view", "augmented_view"}},
    "ccl": {"several_weight": {"contrast", "divergence"}, "divergence_weight": {"divergence", "composed_divergence"}},
    "ffsd": {
        "diversity_weight": {"commons_diversity", "commons_guided"},
        "fusion_weight": {"fused_map", "joined_maps", "guided"},
        "guide_weight": {"guide_maps", "guide_attention"},
    },
    "dml": {"mutual_weight": {"mutual_0", "mutual_1"}},
    "ban+l": {"ce_weight": {"task"}},
    "byot": {"feature_weight": {"feature"}},
    "tf_kd": {"multiplier": {"self"}},
    "tf_kd-reg": {"multiplier": {"reg"}},
    "plain": {},
    "pskd": {}, "lwr": {},
    "cskd": {"class_weight": {"class"}},
    "dlb": {"kd_weight": {"kd"}},
    "introspective": {"explanation_weight": {"explanation"}},
    "isrd": SHARED | {"eta": {"picture"}},
    "fskd_lr": {"point_weight": {"point"}, "cross_weight": {"cross"}, "kd_weight": {"kd"}},
    "askd": {"attention_weight": {"attention"}},
    "rakd": {
        "adversarial_weight": {"adversarial"}, "kd_weight": {"kd"}, "pair_weight": {"pairs"}, "mmd_weight": {"mmd"},
    },
}  # fmt: skip
"""Method to its weights and the terms that each multiplies; all other terms are without it."""


def terms_of(made: Assembled) -> dict[str, Tensor]:
    """The terms of all stages, those of the last stage where two have one name."""
    torch.manual_seed(7)
    return {term: value for _, _, terms in losses(made) for term, value in terms.items()}


def built(name: str, **given: Any) -> Assembled:
    torch.manual_seed(0)
    return small(name, **given)


def check_weights(name: str) -> None:
    """Each weight multiplies its own terms, and no others."""
    hp = built(name).method.hp
    for weight, own in WEIGHTS[name].items():
        before, after = (terms_of(built(name, **{weight: factor * getattr(hp, weight)})) for factor in (1.0, 1.6))
        assert before.keys() == after.keys()
        assert own <= before.keys(), f"{name} has no term {own - before.keys()}"
        for term, value in before.items():
            factor = 1.6 if term in own else 1.0
            assert after[term].item() == pytest.approx(factor * value.item(), rel=1e-4, abs=1e-9), (weight, term)


@pytest.mark.parametrize("name", WEIGHTS)
def test_each_weight_multiplies_its_own_terms(name):
    check_weights(name)


def test_every_method_is_in_the_table():
    """Or in a file of its own."""
    assert {registry.method(name).card.name for name in WEIGHTS} | ELSEWHERE.keys() == set(registry.method_packages())


SWITCHED = {
    **{name: {"kd_weight": {"kd"}} for name, weights in WEIGHTS.items() if weights.get("kd_weight") == {"kd"}
       and "task" in next(iter(weights.values()))},
    "reviewkd": {"kl_weight": {"kl"}},
    "fskd_lr": {"kd_weight": {"kd"}},
    "ban+l": {"ce_weight": {"task"}},
    "hsakd": {}, "plain": {},
}  # fmt: skip


def check_switches(name: str) -> None:
    """A term whose weight is 0 is left out, together with the reading of what it compares."""
    for weight, own in SWITCHED[name].items():
        on, off = (terms_of(built(name, **{weight: value})) for value in (0.7, 0.0))
        if name == "ban+l":  # its first generation is plain and has the term of that name too
            on, off = (list(losses(built(name, **{weight: value})))[-1][2] for value in (0.7, 0.0))
        assert on.keys() - off.keys() == own
        assert off.keys() <= on.keys()


@pytest.mark.parametrize("name", SWITCHED)
def test_a_weight_of_0_leaves_its_term_out(name):
    check_switches(name)


TAUGHT = ("hsakd", "hsakd-joint")


@pytest.mark.parametrize("name", TAUGHT)
def test_the_teachers_own_classifier_has_a_term_where_it_is_trained(name):
    check_teacher_stage(name)


def check_teacher_stage(name: str) -> None:
    first = next(iter(losses(built(name))))[2]
    assert set(first) == ({"joint", "ce"} if name.endswith("joint") else {"joint"})


EVERY = sorted({*WEIGHTS, "hsakd-joint", "hsakd-online", "dml-4", "ban", "crd+kd", "hkd+kd"})


FROZEN = ("crd", "hkd")
"""Methods that train an embedding of the teacher's features, which the engine freezes."""


def check_constants(name: str) -> None:
    """The sum of a stage's terms has a gradient for parameters that the stage trains, and for nothing else."""
    made = built(name)
    for stage, trained, terms in losses(made):
        modules = [made.method, *(() if name.partition("+")[0] in FROZEN else made.method.teachers.values())]
        parameters = list({p: None for module in modules for p in module.parameters() if p.requires_grad})
        total = torch.stack(list(terms.values())).sum()
        grads = torch.autograd.grad(total, parameters, allow_unused=True)
        reached = {p for p, grad in zip(parameters, grads, strict=True) if grad is not None and bool((grad != 0).any())}
        names = {p: n for module in modules for n, p in module.named_parameters()}
        assert not {names[p] for p in reached - trained}, f"{name}, stage {stage}: constants get a gradient"
        assert {net.own for net in made.method.students} & trained & reached or not any(
            net.own in trained for net in made.method.students
        )


@pytest.mark.parametrize("name", EVERY)
def test_constants_get_no_gradient(name):
    check_constants(name)


def check_draws(name: str) -> None:
    """All that a step draws comes from the step's generator, so that a resumed run draws it again."""
    made = built(name)
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append([terms for _, _, terms in losses(made)])
    for first, second in zip(*states, strict=True):
        assert {name: value.item() for name, value in first.items()} == {n: v.item() for n, v in second.items()}


DRAWING = ("crd", "hkd")


@pytest.mark.parametrize("name", DRAWING)
def test_draws_are_those_of_the_steps_generator(name):
    check_draws(name)


# warm-ups, by epoch: kd's warm-up of dkd counts the epoch under way, the review loss those that are done


def raised(epoch: int) -> float:
    return min((epoch + 1) / 5, 1.0)


def reviewed(epoch: int) -> float:
    return min(epoch / 5, 1.0)


def exponential(epoch: int) -> float:
    return math.exp(-5 * (1 - (epoch + 1) / 5) ** 2) if epoch + 1 < 5 else 1.0


RAMPS: dict[str, tuple[str, Callable[[int], float], set[str]]] = {
    "dkd": ("warmup_epochs", raised, {"dkd"}),
    "dkd+lskd": ("warmup_epochs", raised, {"dkd"}),
    "dkd+energykd": ("warmup_epochs", raised, {"dkd"}),
    "reviewkd": ("warmup_epochs", reviewed, {"review"}),
    "ffsd": (
        "ramp_epochs", exponential,
        {"commons_diversity", "commons_guided", "fused_map", "joined_maps", "guided", "guide_maps", "guide_attention"},
    ),
}  # fmt: skip
"""Method to the hyper-parameter of its warm-up, its share of the weight in an epoch counted from 0, and its terms."""


def check_ramp(name: str) -> None:
    """Over a warm-up of 5 epochs its terms have the share of the equation, the others none; after it, all of it."""
    length, share, own = RAMPS[name]
    made = built(name, **{length: 5})
    made.method.eval()  # statistics of batch norms stay as they are from epoch to epoch
    full = made.terms(epoch=39)
    for epoch in (0, 1, 3, 4, 5, 6, 20):
        for term, value in made.terms(epoch=epoch).items():
            expected = (share(epoch) if term in own else 1.0) * full[term].item()
            assert value.item() == pytest.approx(expected, rel=1e-5, abs=1e-9), (epoch, term)


@pytest.mark.parametrize("name", RAMPS)
def test_warm_ups(name):
    check_ramp(name)


@pytest.mark.parametrize("name", ["dkd", "reviewkd"])
def test_a_warm_up_of_no_epochs_is_none(name):
    made = built(name, warmup_epochs=0)
    term = "dkd" if name == "dkd" else "review"
    assert made.terms(epoch=0)[term].item() == pytest.approx(made.terms(epoch=39)[term].item())


# whole equations


def kl(student: Tensor, teacher: Tensor, t: float = 1.0) -> Tensor:
    """mean_n sum_c q log(q / p), q of the teacher and p of the student at a temperature."""
    q, p = ((z / t).softmax(1) for z in (teacher, student))
    return (q * (q / p).log()).sum(1).mean()


def ce(logits: Tensor, y: Tensor) -> Tensor:
    return -logits.log_softmax(1)[torch.arange(len(y)), y].mean()


def logits(made: Assembled) -> list[Tensor]:
    """Of all students, then of all teachers."""
    nets = [*made.method.students, *made.method.teachers.values()]
    return [net.out.logits[: len(made.batch)].double() for net in nets]


def maps(made: Assembled, which: int) -> tuple[Tensor, ...]:
    net = [*made.method.students, *made.method.teachers.values()][which]
    return tuple(x[: len(made.batch)] for x in net.out.maps)


def split(made: Assembled) -> dict[str, Tensor]:
    """dkd: what the target's probability says, and what the others say among themselves."""
    hp, y, (s, t) = made.method.hp, made.batch.y, logits(made)
    if hasattr(made.method, "low"):
        made.stages()  # the bounds are found before the first one
        bounds = (made.method.low, made.method.high)
        energies = -hp.energy_temperature * (t.float() / hp.energy_temperature).logsumexp(1)
        at = torch.where(energies < bounds[0], hp.temperature_low_energy, torch.tensor(hp.temperature))
        at = torch.where(energies > bounds[1], hp.temperature_high_energy, at)
    else:
        at = torch.tensor(hp.temperature).expand(len(y))
        if hasattr(hp, "form"):
            s, t = ((z - z.mean(1, keepdim=True)) / (z.std(1, keepdim=True) + 1e-7) for z in (s, t))
    rows = torch.arange(len(y))
    p, q = ((z / at[:, None]).softmax(1) for z in (s, t))
    p_y, q_y = p[rows, y], q[rows, y]
    target = q_y * (q_y / p_y).log() + (1 - q_y) * ((1 - q_y) / (1 - p_y)).log()
    other = torch.ones_like(p, dtype=torch.bool)
    other[rows, y] = False
    p_o, q_o = (x[other].view(len(y), -1) / (1 - x[rows, y])[:, None] for x in (p, q))
    among = (q_o * (q_o / p_o).log()).sum(1)
    weight = getattr(hp, "kd_weight", 1.0)
    return {
        "ce": hp.ce_weight * ce(logits(made)[0], y),
        "dkd": weight * (at**2 * (hp.alpha * target + hp.beta * among)).mean(),
    }


def dml(made: Assembled) -> dict[str, Tensor]:
    peers, y, w = logits(made), made.batch.y, made.method.hp.mutual_weight
    found = {}
    for i, own in enumerate(peers):
        others = [kl(own, other) for j, other in enumerate(peers) if j != i]
        found |= {f"task_{i}": ce(own, y), f"mutual_{i}": w * sum(others) / len(others)}
    return found


def byot(made: Assembled) -> dict[str, Tensor]:
    hp, y = made.method.hp, made.batch.y
    (deepest,), (*shallow, last) = logits(made), maps(made, 0)
    q, exits, soft, counted = (deepest / hp.temperature).softmax(1), 0.0, 0.0, 0.0
    for leave, x in zip(made.method.exits, shallow, strict=True):
        features = leave.branch(x)
        early = leave.classifier(features.flatten(2).mean(2))
        exits = exits + ce(early, y)
        soft = soft - (q * (early / hp.temperature).log_softmax(1)).sum(1).mean()
        counted = counted + (((features > 0) | (last > 0)) * (features - last) ** 2).sum()
    return {
        "task": (1 - hp.alpha) * ce(deepest, y),
        "exits": (1 - hp.alpha) * exits,
        "soft": hp.alpha * hp.temperature**2 * soft,
        "feature": hp.feature_weight * counted,
    }


def tf_kd(made: Assembled) -> dict[str, Tensor]:
    hp, y = made.method.hp, made.batch.y
    own, copy = logits(made)
    softened = hp.temperature**2 * kl(own, copy, hp.temperature) / own.shape[1]
    return {"task": (1 - hp.alpha) * ce(own, y), "self": hp.alpha * hp.multiplier * softened}


def tf_kd_reg(made: Assembled) -> dict[str, Tensor]:
    hp, y, (own,) = made.method.hp, made.batch.y, logits(made)
    n, classes = own.shape
    virtual = torch.full((n, classes), 0.01 / (classes - 1))
    virtual[torch.arange(n), y] = 0.99
    q, log_p = (virtual / hp.temperature).softmax(1), own.log_softmax(1)
    softened = (q * (q.log() - log_p)).sum() / (n * classes)
    return {"task": (1 - hp.alpha) * ce(own, y), "reg": hp.alpha * hp.multiplier * softened}


def plain(made: Assembled) -> dict[str, Tensor]:
    return {"task": ce(logits(made)[0], made.batch.y)}


def smooth(made: Assembled) -> dict[str, Tensor]:
    (own,), y, share = logits(made), made.batch.y, made.method.hp.label_smoothing
    return {"ce": (1 - share) * ce(own, y) - share * own.log_softmax(1).mean()}


def fsp(made: Assembled) -> dict[str, Tensor]:
    """Flows of stem and stages, the larger map of a pair pooled to the smaller one."""
    flows = []
    for net in (made.method.student, made.method.teacher):
        stems = [net.out.stem] if made.method.teacher.out.has("stem") else []
        every = [x[: len(made.batch)] for x in (*stems, *net.out.maps)]
        pairs = [(F.adaptive_avg_pool2d(a, b.shape[2:]), b) for a, b in pairwise(every)]
        flows.append([torch.einsum("nchw,ndhw->ncd", a, b) / b.shape[2:].numel() for a, b in pairs])
    return {"flow": made.method.hp.flow_weight * sum(((s - t) ** 2).mean() for s, t in zip(*flows, strict=True))}


def fitnet(made: Assembled) -> dict[str, Tensor]:
    """The hint is of the stage that is named, counted from 1."""
    stage = made.method.hp.hint_stage - 1
    student, teacher = maps(made, 0)[stage], maps(made, 1)[stage]
    return {"hint": made.method.hp.hint_weight * ((made.method.regressor(student) - teacher) ** 2).mean()}


def mlkd(made: Assembled) -> dict[str, Tensor]:
    """Rows and classes that the teacher is at most as sure of as of the median one, at every temperature."""
    hp, n = made.method.hp, len(made.batch) // 2
    (s, s2), (t, t2) = (z.split(n) for z in logits(made))
    p = t.softmax(1)
    sure_rows, sure_classes = p.max(1).values, p.sum(0)
    rows = (sure_rows <= sure_rows.median()).double()
    classes = (sure_classes <= sure_classes.median()).double()
    temperatures = (hp.temperature, *hp.more_temperatures)
    if hp.standardize:
        s, s2, t, t2 = ((z - z.mean(1, keepdim=True)) / (z.std(1, keepdim=True) + 1e-7) for z in (s, s2, t, t2))

    def row(a: Tensor, b: Tensor, at: float) -> Tensor:
        q, p = (b / at).softmax(1), (a / at).softmax(1)
        return at**2 * (q * (q / p).log()).sum(1)

    kd = sum((rows * row(s, t, at)).mean() + row(s2, t2, at).mean() for at in temperatures)
    raw_s, raw_t = (z[:n] for z in logits(made))
    by_class = by_row = torch.zeros(())
    for at in temperatures:
        q, p = (raw_t / at).softmax(1), (raw_s / at).softmax(1)
        by_class = by_class + (((q.T @ q - p.T @ p) ** 2).sum(1) * classes).mean()
        by_row = by_row + (((q @ q.T - p @ p.T) ** 2).sum(1) * rows).mean()
    y = made.batch.y[:n]
    first, second = (ce(z[part], y) for z, part in ((logits(made)[0], slice(0, n)), (logits(made)[0], slice(n, None))))
    return {
        "ce": hp.ce_weight * (first + second),
        "kd": hp.kd_weight * kd,
        "class": hp.kd_weight * by_class,
        "batch": hp.kd_weight * by_row,
    }


def online(made: Assembled) -> dict[str, Tensor]:
    """Two peers of hsakd: each is drawn to the other's scores, in all heads and the classifier."""
    hp, n = made.method.hp, len(made.batch) // 4
    y, found = made.batch.y[:n], {}
    labels = torch.cat([4 * y + turn for turn in range(4)])
    stacks = [[net.out.logits[: 4 * n], *(tail[: 4 * n] for tail in net.tails)] for net in made.method.students]
    for name, own, other in (("first", *stacks), ("second", *stacks[::-1])):
        found |= {
            f"{name}_ce": ce(own[0][:n], y),
            f"{name}_joint": sum(ce(head, labels) for head in own[1:]),
            f"{name}_kd": sum(hp.temperature**2 * kl(s, t, hp.temperature) for s, t in zip(own, other, strict=True)),
        }
    return found


def cskd(made: Assembled) -> dict[str, Tensor]:
    """The second view is of partners, which are constants."""
    hp, n = made.method.hp, len(made.batch) // 2
    own, partner = logits(made)[0].split(n)
    alike = hp.temperature**2 * kl(own, partner, hp.temperature)
    return {"task": ce(own, made.batch.y[:n]), "class": hp.class_weight * alike}


def introspective(made: Assembled) -> dict[str, Tensor]:
    """Explanations as they are: gradient times input of each class's score, compared by their cosine."""
    hp, y, (own,), last = made.method.hp, made.batch.y, logits(made), maps(made, 0)[-1]
    weight = made.method.student.classifier.weight.detach()
    explained = (last[:, None] * weight[None, :, :, None, None]).flatten(2)  # (N, C, all positions)
    alike = F.cosine_similarity(explained[torch.arange(len(y)), y][:, None], explained, dim=2)
    rest = torch.ones_like(own, dtype=torch.bool)
    rest[torch.arange(len(y)), y] = False
    q, z = (x[rest].view(len(y), -1).double() for x in (alike / hp.temperature, own))
    share = 4 / round(hp.ramp * 40)  # in epoch 3 of 40, counted from 0
    return {"task": ce(own, y), "explanation": hp.explanation_weight * share * kl(z, q)}


def apart(a: Tensor, b: Tensor) -> Tensor:
    """1 - cos of each row."""
    return 1 - F.cosine_similarity(a.flatten(1).double(), b.flatten(1).double(), dim=1)


def isrd(made: Assembled) -> dict[str, Tensor]:
    """The picture of 16x12 is rebuilt at twice the first map's 8x8 and cut."""
    hp, y, (s, t) = made.method.hp, made.batch.y, logits(made)
    conv, slope = made.method.rebuild.conv.weight[:, :, 0, 0], made.method.rebuild.prelu.weight
    blocks = torch.einsum("nkhw,ok->nohw", maps(made, 0)[0], conv).unflatten(1, (3, 2, 2))
    picture = torch.stack([torch.stack([blocks[:, :, i, j] for j in range(2)], -1) for i in range(2)], 3)
    picture = picture.flatten(4, 5).flatten(2, 3)
    picture = torch.where(picture > 0, picture, slope[:, None, None] * picture)[..., :16, :12]
    return {
        "task": hp.ce_weight * ce(s, y),
        "kd": hp.kd_weight * hp.temperature**2 * kl(s, t, hp.temperature),
        "picture": hp.eta * (picture - made.batch.x["image"]).abs().mean(),
    }


def fskd_lr(made: Assembled) -> dict[str, Tensor]:
    """The second view is of partners; the last map's positions are compared, for rows that the teacher tells right."""
    hp, n = made.method.hp, len(made.batch) // 2
    y, (s, t) = made.batch.y[:n], (z[:n] for z in logits(made))
    own = [bridge(x[:n]) for bridge, x in zip(made.method.bridges, maps(made, 0), strict=True)]
    theirs = maps(made, 1)
    beside, their_beside = made.method.bridges[-1](maps(made, 0)[-1][n:]), theirs[-1][n:]

    def relation(a: Tensor, b: Tensor) -> Tensor:
        return torch.einsum("ncp,ncq->npq", a.flatten(2), b.flatten(2))

    wanted, crossed = relation(theirs[-1][:n], their_beside), 0
    for share, one, other in ((0.5, theirs[-1][:n], beside), (0.5, own[-1], their_beside), (1, own[-1], beside)):
        crossed = crossed + share * apart(wanted, relation(one, other))
    right = [row for row in range(n) if int(t[row].argmax()) == int(y[row])]
    return {
        "task": ce(s, y),
        "point": hp.point_weight * sum(apart(a, b[:n]).mean() for a, b in zip(own, theirs, strict=True)) / len(own),
        "cross": hp.cross_weight * (crossed[right].mean() if right else torch.zeros(())),
        "kd": hp.kd_weight * hp.temperature**2 * kl(s, t, hp.temperature),
    }


def askd(made: Assembled) -> dict[str, Tensor]:
    own, theirs = (net.out.attention for net in (made.method.student, made.method.teacher))
    far = sum(apart(a[: len(made.batch)], b[: len(made.batch)]).mean() for a, b in zip(own, theirs, strict=True))
    return {"task": ce(logits(made)[0], made.batch.y), "attention": made.method.hp.attention_weight * far}


def rakd(made: Assembled) -> dict[str, Tensor]:
    """Pairs, kernels and the discriminator, pair by pair."""
    hp, y, (s, t), n = made.method.hp, made.batch.y, logits(made), len(made.batch)
    own, theirs = (net.out.emb[:n] for net in (made.method.student, made.method.teacher))
    own = made.method.projection(own)
    judge = made.method.discriminator
    pairs = [
        (F.cosine_similarity(own[i], own[j], dim=0) - F.cosine_similarity(theirs[i], theirs[j], dim=0)) ** 2
        for i in range(n) for j in range(n)
    ]  # fmt: skip
    both = torch.cat([own, theirs]).double()
    distance = torch.stack([torch.stack([((a - b) ** 2).sum() for b in both]) for a in both])
    middle = distance.flatten().sort().values[2 * n * n].item()
    kernel = sum((-distance / (2 * factor * middle)).exp() for factor in (0.25, 0.5, 1, 2, 4)) / 5
    sign = torch.cat([torch.ones(n), -torch.ones(n)]).double()
    told = judge(theirs).sigmoid(), judge(own).sigmoid()
    return {
        "task": ce(s, y),
        "adversarial": -hp.adversarial_weight * told[1].log().mean(),
        "kd": hp.kd_weight * hp.temperature**2 * kl(s, t, hp.temperature),
        "pairs": hp.pair_weight * torch.stack(pairs).mean(),
        "mmd": hp.mmd_weight * (sign[:, None] * sign * kernel).sum() / n**2,
        "discriminator": -told[0].log().mean() - (1 - told[1]).log().mean(),
    }


EQUATIONS: dict[str, tuple[str, dict[str, Any], Callable[[Assembled], dict[str, Tensor]]]] = {
    "dkd": ("dkd", {"warmup_epochs": 0}, split),
    "dkd+lskd": ("dkd+lskd", {"warmup_epochs": 0}, split),
    "dkd+energykd": ("dkd+energykd", {"warmup_epochs": 0}, split),
    "dml": ("dml", {}, dml),
    "dml-4": ("dml-4", {}, dml),
    "byot": ("byot", {"feature_weight": 0.01}, byot),
    "tf_kd": ("tf_kd", {}, tf_kd),
    "tf_kd-reg": ("tf_kd-reg", {}, tf_kd_reg),
    "plain": ("plain", {"label_smoothing": 0.0}, plain),
    "plain+ls": ("plain", {"label_smoothing": 0.3}, smooth),
    "fsp": ("fsp", {}, fsp),
    "fitnet, stage 1": ("fitnet", {"hint_stage": 1}, fitnet),
    "fitnet, stage 2": ("fitnet", {"hint_stage": 2}, fitnet),
    "mlkd": ("mlkd", {}, mlkd),
    "mlkd+lskd": ("mlkd+lskd", {}, mlkd),
    "hsakd-online": ("hsakd-online", {}, online),
    "cskd": ("cskd", {}, cskd),
    "introspective": ("introspective", {}, introspective),
    "isrd": ("isrd", {}, isrd),
    "askd": ("askd", {}, askd),
    "rakd": ("rakd", {}, rakd),
}


def check_equation(key: str) -> None:
    """The terms named by an equation have its values, all terms of the last stage if it names them all."""
    name, given, equation = EQUATIONS[key]
    made = built(name, **given)
    wanted, found = equation(made), terms_of(made)
    assert wanted.keys() <= found.keys()
    if key not in ("fsp", "fitnet, stage 1", "fitnet, stage 2"):
        assert wanted.keys() == made.terms().keys()
    for term, value in wanted.items():
        assert found[term].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-7), term


@pytest.mark.parametrize("key", EQUATIONS)
def test_equation(key):
    check_equation(key)


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


def test_ban():
    check_ban()


def check_tf_kd_copy() -> None:
    """The copy learns by the task's own loss."""
    made = built("tf_kd")
    assert made.terms("teacher").keys() == {"task"}
    assert made.terms("teacher")["task"].item() == pytest.approx(ce(logits(made)[1], made.batch.y).item(), rel=1e-5)


def test_tf_kd_copy():
    check_tf_kd_copy()


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


def test_simkd_after_norm():
    check_simkd_after_norm()


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


def test_ccl_rows():
    check_ccl_rows()


def check_graph_needs_as_many_rows_as_neighbours() -> None:
    """hkd builds its graph of a batch that is no smaller than its neighbours, and then updates the banks."""
    for neighbours, built_graph in ((5, True), (6, True), (7, False)):
        made = built("hkd", neighbours=neighbours)
        assert (made.terms()["graph"].item() != 0) is built_graph
        before = made.method.banks[0].rows.clone()
        made.step()
        assert (not torch.equal(before, made.method.banks[0].rows)) is built_graph


def test_graph_needs_as_many_rows_as_neighbours():
    check_graph_needs_as_many_rows_as_neighbours()


def check_supervision_is_the_tasks_own_loss() -> None:
    """Methods with a term ``task`` leave the loss to the task."""
    for name in ("at", "crd", "hkd", "reviewkd", "plain"):
        made = built(name)
        made.method.task.loss = lambda out, batch: 3.5 + 0 * out.logits.sum() + 0 * batch.y.sum()
        weight = getattr(made.method.hp, "ce_weight", 1.0)
        if name == "plain":
            made = built(name, label_smoothing=0.0)
            made.method.task.loss = lambda out, batch: 3.5 + 0 * out.logits.sum() + 0 * batch.y.sum()
        assert made.terms()["task"].item() == pytest.approx(3.5 * weight)


def test_supervision_is_the_tasks_own_loss():
    check_supervision_is_the_tasks_own_loss()


def check_byot_of_several_processes() -> None:
    """A sum over rows counts as often as there are processes, for they share by means."""
    made = built("byot", feature_weight=0.01)
    alone = made.terms()
    made.method.task.gather = lambda rows: torch.cat([rows] * 3)
    for term, value in made.terms().items():
        assert value.item() == pytest.approx(alone[term].item() * (3 if term == "feature" else 1), rel=1e-5)


def test_byot_of_several_processes():
    check_byot_of_several_processes()


def check_fsp_without_a_stem() -> None:
    """A stem counts where both networks have one."""
    teacher = network(11, IMAGES + 3)
    teacher.out = teacher.out._replace(stem=None)
    made = small("fsp", teacher)
    assert made.terms("initialise")["flow"].item() == pytest.approx(fsp(made)["flow"].item(), rel=1e-5)


def test_fsp_without_a_stem():
    check_fsp_without_a_stem()


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


def test_mixed_rows():
    check_mixed_rows()


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


def test_ccd_without_an_inner_method():
    check_ccd_without_an_inner_method()


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


def test_pskd():
    check_pskd()


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


def test_lwr():
    check_lwr()


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


def test_dlb():
    check_dlb()


def check_introspective_ramp() -> None:
    """Its weight rises over a share of training, from the first epoch on."""
    made = built("introspective", ramp=0.1)
    whole = made.terms(epoch=39)["explanation"].item()
    for epoch, share in ((0, 0.25), (2, 0.75), (3, 1.0), (4, 1.0)):
        assert made.terms(epoch=epoch)["explanation"].item() == pytest.approx(share * whole, rel=1e-5)
    assert built("introspective", ramp=0.0).terms(epoch=0)["explanation"].item() == pytest.approx(whole, rel=1e-5)


def test_introspective_ramp():
    check_introspective_ramp()


def check_fskd_lr_rows() -> None:
    """Relations count of the rows that the teacher tells right, and not at all where it tells none right."""
    made = built("fskd_lr")
    told = logits(made)[1].argmax(1)[:IMAGES]
    for right in (0, 2, IMAGES):
        y = torch.where(torch.arange(IMAGES) < right, told, (told + 1) % 5).repeat(2)
        made.batch = replace(made.batch, y=y)
        wanted, found = fskd_lr(made), made.terms()
        assert wanted.keys() == found.keys()
        assert (found["cross"].item() == 0) == (right == 0)
        for term, value in wanted.items():
            assert found[term].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-7), (right, term)


def test_fskd_lr_rows():
    check_fskd_lr_rows()


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


def test_rakd_sides():
    check_rakd_sides()


CHECKS: dict[str, list[Callable[[], None]]] = {
    "pskd": [check_pskd],
    "lwr": [check_lwr],
    "dlb": [check_dlb],
    "introspective": [check_introspective_ramp],
    "fskd_lr": [check_fskd_lr_rows],
    "rakd": [check_rakd_sides],
    "ban": [check_ban],
    "tf_kd": [check_tf_kd_copy],
    "ab": [partial(check_a_teacher_without_a_say_rests, "ab")],
    "ccd": [check_ccd_without_an_inner_method],
    "ccl": [check_ccl_rows],
    "hkd": [check_graph_needs_as_many_rows_as_neighbours],
    "simkd": [check_simkd_after_norm],
    "byot": [check_byot_of_several_processes],
    "fsp": [check_fsp_without_a_stem],
    "energykd": [check_mixed_rows],
}
"""Further checks of a method."""
