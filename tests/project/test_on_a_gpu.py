"""The command for a machine with a GPU goes through to its end where there is none."""

from __future__ import annotations

import json
import tarfile

import pytest


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_for_a_gpu_can_be_rehearsed(tmp_path, load):
    assert load("on_a_gpu.py").main([str(tmp_path / "out"), "--rehearse"]) == 0
    parts = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert {part["outcome"] for part in parts} == {"ok"}
    with tarfile.open(tmp_path / "out" / "records.tar.gz") as file:
        (name,) = file.getnames()
    assert name.endswith(".json")


def test_without_data_the_long_run_is_left_out_and_so_is_what_finds_no_time(tmp_path, load):
    script = load("on_a_gpu.py")
    *_, long = script.parts(tmp_path, None, rehearse=False)
    assert script.done(long, 600, tmp_path, tmp_path / "log")["why"].startswith("it needs CIFAR-100")
    first, *_ = script.parts(tmp_path, tmp_path, rehearse=False)
    assert script.done(first, 1, tmp_path, tmp_path / "log")["why"] == "no time is left"
