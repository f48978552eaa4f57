"""Runs that go wrong in a sweep: out of memory, no number, no end. Each is a record, the others run, the code tells."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import yaml
from sweeps import ended, records, sweep

from kdbench.base.home import Home

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
FAULTS = {
    "out_of_memory": "torch.empty(1 << 48)",
    "no_number": "loss = loss * float('nan')",
    "no_end": "time.sleep(10_000)",
    "an_error": "raise RuntimeError('of its own')",
    "an_exit": "os._exit(3)",
    "no_fault": "pass",
}
ADAPTER = """
import os
import time

import torch

from kdbench.contract import Method, Needs


class Toy(Method):
    @classmethod
    def needs(cls, hp):
        return Needs(kinds=frozenset({{"classification"}}), teachers=(), teacher=frozenset())

    def losses(self, batch, at):
        loss = self.task.loss(self.student(batch), batch)
        if at.step == 1:
            {fault}
        return {{"task": loss}}
"""
CARD = {
    "adapter": "Toy", "title": "A toy", "authors": ["kdbench"], "year": 2026, "venue": "kdbench", "bibkey": "toy",
    "family": "logit", "summary": "A toy.", "version": "1.0.0", "kinds": ["classification"],
}  # fmt: skip


def plugins(folder: Path) -> None:
    """Installs a package for each fault into a folder."""
    entries = ["[kdbench.methods]"]
    for name, fault in FAULTS.items():
        package = folder / f"faulty_{name}"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "card.yaml").write_text(yaml.safe_dump(CARD))
        (package / "adapter.py").write_text(textwrap.dedent(ADAPTER).format(fault=fault))
        entries.append(f"{name} = faulty_{name}")
    facts = folder / "faulty-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("\n".join(entries))


def test_every_end_of_a_run_is_a_record_and_the_sweep_goes_on(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    plugins(tmp_path / "plugins")
    words = ("-m", ",".join(FAULTS), "-t", "digits/few-shot", "--seeds", "0", "--smoke", "--overhead", "off")
    env = {"PYTHONPATH": str(tmp_path / "plugins")}
    code, out, err = ended(sweep(home, *words, "--timeout", "25", **env))
    assert code == 1, err
    assert "Traceback" not in out + err
    found = {record.method_name: record for record in records(home)}
    assert {name: record.status for name, record in found.items()} == {
        "out_of_memory": "oom", "no_number": "diverged", "no_end": "timeout", "an_error": "failed", "an_exit": "failed",
        "no_fault": "ok",
    }  # fmt: skip
    assert found["an_exit"].error is not None
    assert "ended with code 3, twice" in found["an_exit"].error.message
    for counted in ("1 diverged", "2 failed", "1 ok", "1 oom", "1 timeout"):
        assert counted in out
    code, out, err = ended(sweep(home, *words, "--timeout", "25", **env))
    assert (code, len(records(home))) == (1, len(FAULTS)), err  # nothing runs again unasked, and it is still not fine
