"""One ramp function, three rules; the old name of one of them."""

from __future__ import annotations

import pytest

from kdbench.methods.shared.ramps import ramp


@pytest.mark.parametrize(
    ("rule", "weights"),
    [
        ("linear", [0.2, 0.4, 0.6, 0.8, 1, 1, 1]),
        ("from_zero", [0, 0.2, 0.4, 0.6, 0.8, 1, 1]),
        ("gaussian", [0.0408, 0.1653, 0.4493, 0.8187, 1, 1, 1]),
    ],
)
def test_ramps_are_those_of_the_papers(rule, weights):
    assert [round(ramp(rule, done, 5), 4) for done in range(7)] == weights
    assert ramp(rule, 0, 0) == 1.0


def test_other_rules_are_refused():
    with pytest.raises(ValueError, match="no ramp is called 'cosine'"):
        ramp("cosine", 0, 5)


def test_the_old_name_is_told_of_its_new_one():
    from kdbench.base.once import said_once
    from kdbench.methods.shared import logits

    said_once.cache_clear()
    with pytest.warns(FutureWarning, match=r"ramps\.ramp\('linear', epoch, epochs\)"):
        old = logits.linear_ramp
    assert old(1, 5) == ramp("linear", 1, 5)
