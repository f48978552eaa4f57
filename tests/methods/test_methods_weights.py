"""Weights, switches, constants, draws and warm-ups of every method's terms.

On made-up outputs, with hyper-parameters that are all different.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from objectives import built, terms_of
from smalls import ELSEWHERE, losses

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
