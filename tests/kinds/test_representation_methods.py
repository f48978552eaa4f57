"""Methods of other kinds on representations: each trains a step on every label-free loss there is, or says why not."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from kdbench import kinds
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.checks.tiny import STANDS_FOR, Setting, Tiny, fitted, method_config, rows, task_spec
from kdbench.contract import NotApplicable
from kdbench.engine.assemble import needs_of
from kdbench.engine.stage import StageRun
from kdbench.runs import run
from kdbench.runs.request import Request
from kdbench.specs import registry
from kdbench.specs.config import RunConfig, run_config

KIND = "representation"
PROJECTED, TRANSFORMERS, SPARSE, BOTH = "projected", "transformers", "sparse", "both"
PAIRS = {
    PROJECTED: (0, ("image", "convnet_w4", "convnet_w8")),
    **dict(zip((TRANSFORMERS, SPARSE, BOTH), ((1, pair) for pair in kinds.kind(KIND).tinies[1].pairs), strict=True)),
}
"""Name of a pair to which of the kind's tiny tasks, and input, student and teacher."""
SERVED = sorted(
    name for name, ref in registry.methods().items() if kinds.refusal(ref.kinds, KIND) is None and ref.variant is None
)
SAMPLE = {
    ("rkd", TRANSFORMERS), ("at", TRANSFORMERS), ("fitnet", SPARSE), ("seed", SPARSE), ("dmae", SPARSE),
}  # fmt: skip
ANYWHERE = {"plain", "cc", "compress", "ft", "pkt", "rkd", "sp"}
OF_MAPS = {"ab", "at", "fitnet", "nst", "ofd", "reviewkd", "vid"}
RUN = {
    PROJECTED: ANYWHERE | OF_MAPS | {"seed", "spark"},
    TRANSFORMERS: ANYWHERE | {"at", "nst", "vid", "dmae", "tinymim"},
    SPARSE: ANYWHERE | OF_MAPS,
    BOTH: ANYWHERE | {"h_gkd"},
}
"""Methods that run on a pair; the others give their reasons."""


def trained(method: str, pair: str, folder: Path) -> dict[str, torch.Tensor] | str:
    """The terms of a method's first step, or why it cannot make one."""
    ref = registry.method(method)
    chosen = method_config(ref, KIND)
    needs = needs_of(chosen)
    named = (STANDS_FOR.get(role, (role,)) for role in needs.teachers)
    roles = tuple(dict.fromkeys(role for some in named for role in some)) or ("image",)
    version, nets = PAIRS[pair]
    setting = Setting(KIND, roles, "present" in needs.batch, *nets, version=version)
    tiny = Tiny(RunConfig(chosen, task_spec(setting)), rows(setting), fitted(setting))
    try:
        prepared = tiny.prepare(folder)
        stage = next(prepared.method.stages())
        return StageRun(prepared.method.train(), stage, prepared.task).step()
    except NotApplicable as reason:
        return str(reason)


EVERY = [
    pytest.param(name, pair, marks=[] if (name, pair) in SAMPLE else pytest.mark.slow)
    for name in SERVED
    for pair in PAIRS
]


@pytest.mark.parametrize(("method", "pair"), EVERY)
def test_it_makes_a_step_or_says_why_not(method: str, pair: str, tmp_path: Path) -> None:
    found = trained(method, pair, tmp_path)
    assert isinstance(found, str) == (method not in RUN[pair]), found
    if isinstance(found, str):
        assert len(found) > 20  # a reason a reader can use
        assert "\n" not in found
    else:
        assert all(math.isfinite(float(term)) for term in found.values())


@pytest.mark.parametrize(
    ("method", "override", "line"),
    [
        ("seed", "method.queue=2000", "a queue of 2000 rows is longer than the 256 of the data; lower method.queue"),
        ("compress", "method.queue=257", "a queue of 257 rows is longer than the 256 of the data; lower method.queue"),
    ],
)
def test_a_queue_longer_than_the_data_is_recorded_as_one_line(
    method: str, override: str, line: str, tmp_path: Path
) -> None:
    words = [override, "pair.teachers.image.net='project32:convnet_w2'", "pair.teachers.image.train.epochs=1"]
    config = run_config(method, "digits/probe", words, smoke=True)
    record = run.run_seed(Request(config, 0, torch.device("cpu"), Home(tmp_path), overhead="off"))
    assert record.status == "not_applicable"
    assert record.error is not None
    assert record.error.message == line


def test_a_methods_own_share_of_hidden_patches_is_between_none_and_all(tmp_path: Path) -> None:
    def request(hide: float) -> Request:
        config = run_config("spark", "digits/probe", [f"method.hide={hide}"], smoke=True)
        return Request(config, 0, torch.device("cpu"), Home(tmp_path), overhead="off")

    with pytest.raises(UserError, match="leaves 0 to see; at least one has to be seen and one hidden"):
        run.run_seed(request(1))
    with pytest.raises(UserError, match="hide of spark: must be above 0"):
        request(0)
    assert run.run_seed(request(0.5)).status == "ok"


def test_methods_of_labels_are_of_other_kinds() -> None:
    for name in ("kd", "dkd", "crosskd"):
        reason = kinds.refusal(registry.method(name).kinds, KIND)
        assert reason is not None
        assert "this one is a representation task" in reason
