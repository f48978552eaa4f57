"""What a script gives is held to what a call asks for, in one line, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import kdbench
from kdbench.base.errors import UserError
from kdbench.base.given import Device, Number, Seeds, Settings, taken

TASK = "digits/few-shot"
WRONG = [
    ("evaluate", {"seeds": 3}, r"seeds=3: a list of seeds such as \[0, 1, 2\], each once or None is asked for"),
    ("evaluate", {"seeds": "0-1"}, "seeds='0-1': a list"),
    ("evaluate", {"seeds": [0, 0]}, r"seeds=\[0, 0\]: a list"),
    ("evaluate", {"seeds": []}, r"seeds=\[\]: a list"),
    ("evaluate", {"seeds": [0.5]}, "a list of seeds"),
    ("sweep", {"seeds": [-1]}, "a list of seeds"),
    ("evaluate", {"seeds": [True]}, "a list of seeds"),
    ("evaluate", {"seeds": [2**70]}, "a list of seeds"),
    ("evaluate", {"overrides": ["train.epochs=3"]}, r'settings by their whole keys, such as \{"train.epochs": 5'),
    ("evaluate", {"overrides": {"train": {"epochs": 3}}}, "settings by their whole keys"),
    ("tune", {"overrides": {1: 2}}, "settings by their whole keys"),
    ("evaluate", {"overhead": "ful"}, r"overhead='ful': 'quick' or 'full' or 'off' is asked for \(did you mean 'full'"),
    ("sweep", {"overhead": "foo"}, "overhead='foo'"),
    ("distill", {"overhead": "off"}, "overhead='off': 'quick' or 'full' is asked for"),
    ("evaluate", {"smoke": "no"}, "smoke='no': True or False is asked for"),
    ("evaluate", {"device": 3}, "device=3: a device such as"),
    ("evaluate", {"out": 3}, "out=3: the path of a folder or None"),
    ("evaluate", {"track": "tensorboard"}, "track='tensorboard': a list of names"),
    ("evaluate", {"seeds_together": "2"}, "seeds_together='2': a whole number from 1 on"),
    ("sweep", {"seeds_together": 1.5}, "seeds_together=1.5: a whole number from 1 on"),
    ("sweep", {"jobs": 0}, "jobs=0: a whole number from 1 on"),
    ("tune", {"trials": "8"}, "trials='8': a whole number from 1 on"),
    ("tune", {"sampler": "qcm"}, "sampler='qcm': 'qmc' or 'tpe' is asked for"),
    ("evaluate", {"ruleset": None}, "ruleset=None: a text is asked for"),
    ("distill", {"budget": 30}, "budget=30: a text or None is asked for"),
    ("distill", {"methods": "kd"}, "methods='kd': 'recommended' or a list of methods"),
    ("distill", {"methods": ["kdd"]}, "unknown method 'kdd'.*did you mean 'kd'"),
    ("sweep", {"methods": "kd"}, "methods='kd': a list of methods"),
    ("sweep", {"tasks": TASK}, "tasks='digits/few-shot': a list of tasks"),
    ("evaluate", {"task": None}, "task=None: a task's name, the path of its file or a kdbench.task"),
    ("evaluate", {"method": 3}, "3 is no method"),
    ("results", {"ruleset": 3}, "ruleset=3: a text or None"),
    ("load_student", {"run": 3}, "3 is no run; give a run id"),
]


@pytest.mark.parametrize(("call", "given", "line"), WRONG)
def test_what_a_call_cannot_take_is_one_line_and_nothing_runs(call: str, given: dict[str, Any], line: str, tmp_path):
    home = tmp_path / "home"
    least: dict[str, dict[str, Any]] = {
        "evaluate": {"method": "kd", "task": TASK}, "tune": {"method": "kd", "task": TASK},
        "sweep": {"methods": ["kd"], "tasks": [TASK]}, "distill": {"task": TASK},
    }  # fmt: skip
    with pytest.raises(UserError, match=line) as refused:
        getattr(kdbench, call)(**{**least.get(call, {}), "out": home, **given})
    assert "\n" not in str(refused.value)
    assert not (home / "records").exists()


def test_what_numpy_and_torch_make_of_numbers_is_taken():
    assert taken("seeds", np.arange(3), Seeds) == [0, 1, 2]
    assert taken("seeds", (np.int64(4),), Seeds) == (4,)
    assert list(taken("seeds", range(2), Seeds)) == [0, 1]
    assert taken("n", torch.tensor(2), Number) == 2
    assert taken("where", torch.device("cpu"), Device) == "cpu"
    given = {"method.temperature": torch.tensor(2.0), "train.batch": np.int64(8), "data.augment": ["flip"]}
    assert taken("o", given, Settings) == {"method.temperature": 2.0, "train.batch": 8, "data.augment": ["flip"]}
    assert taken("out", Path("x"), str | Path) == Path("x")
