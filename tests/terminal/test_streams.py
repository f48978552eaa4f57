"""Where commands run: without a home, on terminals that know no UTF-8, with odd settings, and interrupted."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kdbench.base import interrupt
from kdbench.base.errors import UserError
from kdbench.base.home import Home, NoHome, checkpoint_seconds
from kdbench.base.progress import Progress
from kdbench.terminal import streams

SEVERAL = """
import sys
from kdbench import cli
codes = []
for words in (["list", "tasks"], ["show", "method", "kd"], ["list", "methodz"]):
    sys.argv = ["kdbench", *words]
    try:
        cli.main()
    except SystemExit as end:
        codes.append(str(end.code or 0))
print("ended with", ", ".join(codes))
"""


def started(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, **env}
    given = {name: value for name, value in given.items() if value}
    return subprocess.run(
        [sys.executable, *words],
        env=given, capture_output=True, encoding="latin-1", check=False, timeout=120,
    )  # fmt: skip


def kdbench(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return started("-m", "kdbench", *words, **env)


@pytest.fixture
def no_home(monkeypatch):
    def unknown(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("KDBENCH_HOME")
    monkeypatch.setattr(Path, "expanduser", lambda path: unknown(path) if str(path).startswith("~") else path)


def test_without_a_home_one_line_says_how_to_name_one(no_home, tmp_path):
    with pytest.raises(NoHome, match="no home folder of this user; name a folder with --out or KDBENCH_HOME"):
        Home.find()
    with pytest.raises(NoHome, match="no home folder of nobody-here"):
        Home.find(Path("~nobody-here/kd"))
    assert Home.find(tmp_path).root == tmp_path
    with pytest.raises(NoHome, match="KDBENCH_HOME"):
        Home.nowhere().require_writable()


def test_those_who_only_look_need_no_home(no_home):
    from kdbench.cli.common import home_of

    assert not home_of(None, needed=False).records.is_dir()
    with pytest.raises(NoHome):
        home_of(None)


@pytest.mark.parametrize("text", ["abc", "-1", "nan", "60s", "1,5"])
def test_an_odd_time_between_checkpoints_is_said(text, monkeypatch):
    monkeypatch.setenv("KDBENCH_CHECKPOINT_SECONDS", text)
    with pytest.raises(UserError, match=r"KDBENCH_CHECKPOINT_SECONDS is '.*'; give a number of seconds"):
        checkpoint_seconds()


@pytest.mark.parametrize(("text", "seconds"), [("", 60.0), ("0", 0.0), ("0.5", 0.5), ("1e3", 1000.0)])
def test_the_time_between_checkpoints(text, seconds, monkeypatch):
    monkeypatch.setenv("KDBENCH_CHECKPOINT_SECONDS", text)
    assert checkpoint_seconds() == seconds


def test_it_is_said_before_anything_runs(tmp_path):
    words = ("-t", "digits/few-shot", "--out", str(tmp_path))
    for command in (("evaluate", "-m", "plain"), ("sweep", "-m", "plain")):
        done = kdbench(*command, *words, KDBENCH_CHECKPOINT_SECONDS="abc")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "iso8859-15", "cp437", "utf-8"])
def test_commands_print_on_any_stream(encoding):
    done = started("-c", SEVERAL, PYTHONIOENCODING=encoding)
    assert "Traceback" not in done.stderr
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "ended with 0, 0, 2"), done.stderr


def test_letters_without_a_code_are_spelt():
    assert streams.plain("81.0 ± 1.2 × plain → Größe", "ascii") == "81.0 +- 1.2 x plain -> Grosse"
    assert streams.plain("81.0 ± 1.2 → 名", "latin-1") == "81.0 ± 1.2 -> ?"
    assert streams.plain("81.0 ± 1.2 → 名", "utf-8") == "81.0 ± 1.2 → 名"
    assert "?" in streams.plain("Gr\udcfc\udcdfe", "utf-8")  # a file name that is no UTF-8


def test_an_interrupt_that_was_swallowed_ends_the_next_step():
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupt.listen()
        with Progress.silent().bar("training", 3) as advance:
            advance()
            with contextlib.suppress(KeyboardInterrupt):  # as __del__ does
                os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                advance()
            advance()
    finally:
        signal.signal(signal.SIGINT, before)


def test_ignored_interrupts_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        interrupt.listen()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
