"""An adapter's error comes with its file and line: in the record, in the line, and before anything ran."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from plugged import plugged

from kdbench import scaffold
from kdbench.base.errors import UserError, described
from kdbench.base.home import Home
from kdbench.records.files import Record
from kdbench.runs.run import Request, run_seed
from kdbench.specs.config import run_config
from kdbench.terminal.tables import run_line

LOSSES = "        hp: Any = self.hp\n"
FAULTS = (
    "        raise RuntimeError('my bug in losses')  # FAULT\n",
    "        batch.y.reshape(-1, 7, 7, 7)  # FAULT\n",
    "        require_same_shape(batch.y, self.student(batch).logits)  # FAULT\n",
)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return scaffold.new_method("my_own", standalone=True, to=tmp_path / "kdbench-my_own").folder


def edited(package: Path, before: str, after: str) -> tuple[Path, int]:
    """The adapter with a fault in it, and the fault's line."""
    adapter = package / "kdbench_my_own" / "adapter.py"
    text = adapter.read_text()
    assert before in text
    adapter.write_text(text.replace(before, after, 1))
    lines = adapter.read_text().splitlines()
    return adapter, next((n for n, line in enumerate(lines, 1) if "FAULT" in line), 0)


def ran(package: Path, home: Path) -> Record:
    for name in [name for name in sys.modules if name.startswith("kdbench_my_own")]:
        del sys.modules[name]
    with plugged(package):
        config = run_config("my_own", "digits/few-shot", smoke=True)
        return run_seed(Request(config, 0, torch.device("cpu"), Home(home), overhead="off"))


@pytest.mark.parametrize("fault", FAULTS)
def test_the_record_and_the_line_name_file_and_line(fault, package, tmp_path):
    _, line = edited(package, LOSSES, fault + LOSSES)
    record = ran(package, tmp_path / "home")
    where = f"(kdbench_my_own/adapter.py, line {line}, in losses)"
    assert record.status == "failed"
    assert record.error is not None
    assert record.error.message.endswith(where)
    assert run_line(record).endswith(where)
    assert "\n" not in run_line(record)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("return {3: self.task.loss(self.student(batch), batch)}", "losses() names a term 3; a name is a text"),
        ("return None", "losses() returned nothing; a mapping of a name to each loss is asked for"),
        ("return {}", "losses() returned a dict; a mapping"),
        ("return {'a': 3.0}", "losses() returned a float as 'a'; a tensor of one real number"),
        ("return {'a': self.student(batch).logits}", "a tensor of torch.float32 and shape (64, 10) as 'a'"),
        ("raise SystemExit(0)", "its code asked for the end of the process (exit code 0)"),
    ],
)
def test_what_is_no_loss_is_recorded_in_words(made, said, package, tmp_path):
    edited(package, LOSSES, f"        {made}\n{LOSSES}")
    record = ran(package, tmp_path / "home")
    assert record.status == "failed"
    assert record.error is not None
    assert said in record.error.message


def test_a_helper_of_the_method_is_named_itself(package, tmp_path):
    (package / "kdbench_my_own" / "parts").mkdir()
    (package / "kdbench_my_own" / "parts" / "helper.py").write_text("def wrong():\n    raise ValueError('deep')\n")
    edited(package, LOSSES, "        from kdbench_my_own.parts.helper import wrong\n        wrong()\n" + LOSSES)
    record = ran(package, tmp_path / "home")
    assert record.error is not None
    assert record.error.message == "deep (kdbench_my_own/parts/helper.py, line 2, in wrong)"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from torch import Tensor", "from torch import Tensr  # FAULT"),
        ("from torch import Tensor", "import no_such_module_here  # FAULT"),
        ("class ", "1 / 0  # FAULT\n\n\nclass "),
        ("class ", "def wrong(:  # FAULT\n\n\nclass "),
        (LOSSES, "    @classmethod\n    def needs(cls, hp):\n        return hp.nothing  # FAULT\n\n" + LOSSES),
    ],
)
def test_an_adapter_that_cannot_be_loaded_is_one_line(before, after, package, tmp_path):
    if "needs" in after:
        before, after = "    def losses(", after.removesuffix(LOSSES) + "    def losses("
    _, line = edited(package, before, after)
    with pytest.raises(UserError, match=rf"kdbench_my_own/adapter\.py, line {line}") as caught:
        ran(package, tmp_path / "home")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "home").glob("records/*.json"))


def test_a_long_message_keeps_its_place():
    try:
        raise ValueError("word " * 2000)
    except ValueError as error:
        text = described(error)
    assert len(text) < 1200
    assert text.endswith("in test_a_long_message_keeps_its_place)")
