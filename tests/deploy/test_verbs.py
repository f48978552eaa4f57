"""`export`, `score` and `predict` as typed: CSV in a pipe, one line for whatever is wrong."""

from __future__ import annotations

import json
import sys

import pytest
from PIL import Image

from kdbench import cli
from kdbench.data.sources import digits


@pytest.fixture
def said(home, monkeypatch, capsys):
    """What a command prints; its exit code first."""

    def call(*words) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kdbench", *map(str, words), "--out", str(home.root)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return call


def test_from_a_run_to_a_file_to_answers_without_the_run(said, kd, tmp_path):
    pixels, labels = digits.images()
    picture = tmp_path / "own" / str(labels[1000]) / "a.png"
    picture.parent.mkdir(parents=True)
    Image.fromarray(pixels[1000]).save(picture)
    file = tmp_path / "student.safetensors"
    code, out, _ = said("export", kd.run_id[:9], "--to", file)
    assert (code, out.startswith(f"{file}: student of kd on digits/few-shot@v1, seed 0")) == (0, True)
    by_run, by_file = (said("predict", run, picture)[1] for run in (kd.run_id, file))
    assert by_run == by_file
    assert by_run.splitlines()[0].startswith("file,class,probability,p:0,p:1")
    code, out, _ = said("score", file, "--folder", tmp_path / "own", "--json")
    assert (code, json.loads(out)["rows"]) == (0, 1)
    code, out, _ = said("score", file, "--folder", tmp_path / "own")
    assert "top1" in out


@pytest.mark.parametrize("verb", ["export", "score", "predict"])
def test_a_run_that_is_not_there_is_one_line(said, tmp_path, verb):
    more = {"score": ("--folder", tmp_path), "predict": (tmp_path / "a.png",)}.get(verb, ())
    code, out, err = said(verb, "fedcba98", *more)
    assert (code, out) == (2, "")
    assert "begin with 'fedcba98'" in err
    assert len(err.strip().splitlines()) == 1
