"""Losses by name: each is the term of its method, with the card's defaults."""

from __future__ import annotations

import inspect

import pytest
import torch

from kdbench import losses
from kdbench.checks.stubs import Stub, assembled, batch_of
from kdbench.contract import Out
from kdbench.specs import registry

ROWS, CLASSES, WIDTH = 6, 10, 5


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


Y = torch.arange(ROWS) % CLASSES
LOGITS = draw(ROWS, CLASSES), draw(ROWS + 1, CLASSES)[1:]
EMB = draw(ROWS, WIDTH), draw(ROWS, WIDTH + 2)
MAPS = tuple(tuple(draw(ROWS, 4 + of, 8 // 2**stage, 8 // 2**stage) for stage in range(3)) for of in (0, 3))
ALIKE = MAPS[0], tuple(draw(ROWS + 1, *m.shape[1:])[1:] for m in MAPS[0])
"""Of equal channels."""
OF_LOGITS, OF_MAPS = {"logits": LOGITS}, {"maps": MAPS, "logits": LOGITS}
CALLS = {
    "kd": (lambda: losses.kd(*LOGITS), {"kd": "kd_weight"}, OF_LOGITS),
    "dkd": (lambda: losses.dkd(*LOGITS, Y), {"dkd": None}, OF_LOGITS),
    "nkd": (lambda: losses.nkd(*LOGITS, Y), {"target": None, "others": None}, OF_LOGITS),
    "dist": (lambda: losses.dist(*LOGITS), {"inter": None, "intra": None}, OF_LOGITS),
    "lskd": (lambda: losses.lskd(*LOGITS), {"kd": "kd_weight"}, OF_LOGITS),
    "at": (lambda: losses.at(*MAPS), {"attention": "attention_weight"}, OF_MAPS),
    "nst": (lambda: losses.nst(*MAPS), {"selectivity": "selectivity_weight"}, OF_MAPS),
    "sp": (lambda: losses.sp(MAPS[0][-1], MAPS[1][-1]), {"similarity": "similarity_weight"}, OF_MAPS),
    "fsp": (lambda: losses.fsp(*ALIKE), {"flow": "flow_weight"}, {"maps": ALIKE, "logits": LOGITS}),
    "ab": (lambda: losses.ab(*ALIKE), {"boundary": "boundary_weight"}, {"preact": ALIKE, "logits": LOGITS}),
    "pkt": (lambda: losses.pkt(*EMB), {"pkt": "pkt_weight"}, {"emb": EMB, "logits": LOGITS}),
    "rkd": (lambda: losses.rkd(*EMB), {"distance": None, "angle": None}, {"emb": EMB, "logits": LOGITS}),
}
FIRST_STAGE = {"fsp": "initialise", "ab": "initialise"}


@pytest.fixture(autouse=True)
def precise():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", CALLS)
def test_a_loss_is_the_methods_term(name):
    call, terms, outputs = CALLS[name]
    nets = [Stub(Out(**{"logits": None, **{field: pair[of] for field, pair in outputs.items()}})) for of in (0, 1)]
    ready = assembled(name, {}, batch_of(Y), nets[:1], nets[1])
    found = ready.terms(FIRST_STAGE.get(name, "distill"), epoch=100)
    weights = {key: 1.0 if weight is None else getattr(ready.method.hp, weight) for key, weight in terms.items()}
    expected = sum(found[key] / weights[key] for key in terms)
    assert float(call()) == pytest.approx(float(expected), rel=1e-12)
    assert float(expected) != 0


def test_every_name_is_a_method_and_every_default_its_cards():
    methods = registry.methods()
    for name in losses.__all__:
        card = methods["tf_kd-reg" if name == "tf_kd" else name]
        values = card.card.defaults() | (card.variant.params if card.variant else {})
        for key, parameter in inspect.signature(getattr(losses, name)).parameters.items():
            if parameter.default is not inspect.Parameter.empty:
                assert values[key] == parameter.default, f"{name}: {key}"


def test_others_are_their_parts():
    a, b = MAPS[0][-1], ALIKE[1][-1]
    assert float(losses.fitnet(a, b)) == pytest.approx(float((a - b).square().mean()))
    assert float(losses.simkd(a, b)) == pytest.approx(float((a - b).square().mean()))
    assert float(losses.reviewkd(ALIKE[0], ALIKE[0])) == 0 != float(losses.reviewkd(*ALIKE))
    assert float(losses.ft(a, a)) == 0 != float(losses.ft(a, b))
    assert float(losses.cc(EMB[0], EMB[0])) == 0 != float(losses.cc(EMB[0], EMB[1][:, :WIDTH]))
    assert float(losses.dml(LOGITS[0], LOGITS[1:])) == pytest.approx(float(losses.kd(*LOGITS, temperature=1.0)))
    with torch.no_grad():
        entropy = -(LOGITS[1].softmax(1) * LOGITS[1].log_softmax(1)).sum(1).mean()
    assert float(losses.ban(*LOGITS)) == pytest.approx(float(losses.kd(*LOGITS, temperature=1.0) + entropy))
    margins = [torch.full((m.shape[1],), -100.0) for m in ALIKE[1]]
    assert float(losses.ofd(*ALIKE, margins)) > 0 == float(losses.ofd(ALIKE[0], ALIKE[0], margins))
    assert float(losses.tf_kd(LOGITS[0], Y)) > 0
    doubled = [3 * m + 1 for m in ALIKE[0]]  # magnitudes do not count
    assert float(losses.pkd(doubled, ALIKE[0])) == pytest.approx(0, abs=1e-8) != float(losses.pkd(*ALIKE))
    shifted = [m + 1 for m in ALIKE[0]]
    assert float(losses.cwd(shifted, ALIKE[0])) == pytest.approx(0, abs=1e-12) != float(losses.cwd(*ALIKE))
