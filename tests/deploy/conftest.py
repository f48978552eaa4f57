"""Runs whose networks are taken away: each cut down, trained once a process."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from kdbench.base.home import Home
from kdbench.records.files import Record
from kdbench.runs import run
from kdbench.runs.request import Request
from kdbench.specs.config import run_config


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("deployed"))


@pytest.fixture(scope="session")
def trained(home: Home) -> Callable[[str, str], Record]:
    """The record of a smoke run of a method on a task, made once."""
    made: dict[tuple[str, str], Record] = {}

    def get(method: str, task: str) -> Record:
        if (method, task) not in made:
            config = run_config(method, task, smoke=True)
            made[method, task] = run.run_seed(Request(config, 0, torch.device("cpu"), home, overhead="off"))
            assert made[method, task].status == "ok", made[method, task].error
        return made[method, task]

    return get


@pytest.fixture
def kd(trained: Callable[[str, str], Record]) -> Record:
    return trained("kd", "digits/few-shot")


@pytest.fixture
def angle(trained: Callable[[str, str], Record]) -> Record:
    """Of a regression."""
    return trained("plain", "digits/angle")
