"""``kdbench new net``: a file that is a net as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from as_new import forget

from kdbench import models
from kdbench.base.errors import UserError
from kdbench.scaffold import new_net
from kdbench.specs import local, nets


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_is_written_is_a_net(here: Path) -> None:
    made = new_net("my_own")
    assert made.files == (Path("my_own.py"),)
    assert made.next[0] == "kdbench check my_own --local ./my_own.py --shape 1,8,8"
    assert local.add("./my_own.py") == "my_own"
    net = models.build("my_own", (1, 8, 8), 10)
    out = net.encode(torch.randn(2, 1, 8, 8))
    assert (len(out.maps), len(out.preact), out.emb.shape[1], net.norm(2)[0].numel()) == (3, 3, 64, 64)
    assert nets.find("my_own").where == "./my_own.py"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "line"),
    [("My", "no name for a net"), ("resnet20", "a net 'resnet20' already"), ("kd", "a method or task 'kd'")],
)
def test_a_name_that_is_taken_or_malformed_is_refused(here: Path, name: str, line: str) -> None:
    with pytest.raises(UserError, match=line):
        new_net(name)
    new_net("free")
    with pytest.raises(UserError, match="is there already"):
        new_net("free")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x = 1", "no net is declared in it; write @kdbench.net"),
        ("import nothing_of_this_name", "cannot be imported: ModuleNotFoundError"),
        ("def f(:", "cannot be imported: SyntaxError"),
        (
            "import kdbench\n@kdbench.net('one')\ndef f(s, c): ...\n@kdbench.net('one')\ndef g(s, c): ...",
            r"two nets are called 'one', in \./bad\.py and in \./bad\.py",
        ),
        ("import kdbench\nkdbench.net('two')(lambda s, c: None)\n1 / 0", r"ZeroDivisionError.*bad\.py, line 3"),
    ],
)
def test_a_bad_file_of_nets_is_one_line_and_leaves_nothing(here: Path, text: str, line: str) -> None:
    Path("bad.py").write_text(text)
    with pytest.raises(UserError, match=line) as refused:
        local.add("./bad.py")
    assert "\n" not in str(refused.value)
    assert nets.declared() == {}
    with pytest.raises(UserError, match=r"no folder with card\.yaml"):
        local.add("./bad.txt")


def test_nets_of_a_file_are_known_in_another_process_and_known_by_their_code(here: Path) -> None:
    from kdbench import identity
    from kdbench.specs.config import run_config
    from kdbench.specs.order import ConfigOrder

    new_net("my_own")
    local.add("./my_own.py")
    config = run_config("kd", "digits", ["pair.student.net=my_own"])
    order = ConfigOrder.read(ConfigOrder.of(config).text())
    assert [one.said for one in order.given] == ["./my_own.py"]
    assert local.words(config) == ["--local", "./my_own.py"]
    code = identity.of(config).nets["my_own"]
    assert code.startswith("1+")
    forget()
    assert order.config() == config
    Path("my_own.py").write_text(Path("my_own.py").read_text() + "\n# a remark\n")
    with pytest.raises(UserError, match=r"\./my_own\.py has changed"):
        order.config()
