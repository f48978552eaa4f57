"""Whole equations of methods, worked out here from made-up outputs, with hyper-parameters that are all different."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from objectives import built, ce, kl, logits, maps, terms_of
from smalls import IMAGES, network, small
from torch import Tensor

from kdbench.checks.stubs import Assembled

pytestmark = pytest.mark.seam


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


def check_fsp_without_a_stem() -> None:
    """A stem counts where both networks have one."""
    teacher = network(11, IMAGES + 3)
    teacher.out = teacher.out._replace(stem=None)
    made = small("fsp", teacher)
    assert made.terms("initialise")["flow"].item() == pytest.approx(fsp(made)["flow"].item(), rel=1e-5)


def test_fsp_without_a_stem():
    check_fsp_without_a_stem()


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


CHECKS: dict[str, list[Callable[[], None]]] = {
    "fskd_lr": [check_fskd_lr_rows],
    "fsp": [check_fsp_without_a_stem],
}
"""Further checks of a method."""
