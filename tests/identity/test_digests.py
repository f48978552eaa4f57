"""What the digest of a method and of a net covers, and what was released."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kdbench.identity import release, sourcecode
from kdbench.specs import registry


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], str]:
    """The digest of a method whose files are given."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def digest(files: dict[str, str]) -> str:
        shutil.rmtree(tmp_path / "site", ignore_errors=True)
        for name, text in files.items():
            path = tmp_path / "site" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setattr(registry, "method_packages", lambda: {"mine": "lab.mine"})
        importlib.invalidate_caches()
        for name in ("lab", "labtools"):
            sys.modules.pop(name, None)
        for cached in (sourcecode._package_digest, sourcecode._top):
            cached.cache_clear()
        try:
            return sourcecode.method_digest("mine")
        finally:
            sourcecode._package_digest.cache_clear()

    return digest


BASE = {
    "lab/__init__.py": "",
    "lab/helpers.py": "from labtools import deep\n\n\ndef weight(epoch):\n    return deep.scale * epoch\n",
    "lab/mine/__init__.py": "",
    "lab/mine/card.yaml": "version: 1.0.0\n",
    "lab/mine/adapter.py": "from lab.helpers import weight\n\n\nclass Mine:\n    scale = 2.0\n",
    "labtools/__init__.py": "",
    "labtools/deep.py": "scale = 3\n",
    "labtools/unused.py": "x = 1\n",
}


MINE = "class Mine:\n    '''It.'''\n\n    scale = 2.0  # a\n"
WEIGHT = "def weight(epoch: int) -> int:\n    return (deep.scale * epoch)\n"


@pytest.mark.parametrize(
    ("name", "text", "changes"),
    [
        ("lab/mine/adapter.py", "from lab.helpers import weight\n\n\nclass Mine:\n    scale = 2.5\n", True),
        ("lab/mine/adapter.py", "from lab.helpers import weight\n\n\nclass Mine:\n    scale = -2.0\n", True),
        ("lab/helpers.py", "from labtools import deep\n\n\ndef weight(epoch):\n    return deep.scale + epoch\n", True),
        ("labtools/deep.py", "scale = 4\n", True),
        ("lab/mine/table.json", "[1, 2]", True),
        ("lab/mine/more.py", "y = 2\n", True),
        ("labtools/unused.py", "x = 2\n", False),
        ("lab/mine/card.yaml", "version: 2.0.0\n", False),  # the version is compared by itself
        ("lab/mine/tuned/digits__few-shot/mine.tuned-8.json", "{}", False),  # its values stand in the specification
        ("lab/mine/.adapter.py.swp", "editor", False),
        ("lab/mine/__pycache__/adapter.cpython-311.pyc", "bytes", False),
        ("lab/mine/adapter.py", "# why\n\nfrom lab.helpers import weight\n" + MINE, False),
        ("lab/helpers.py", "from labtools import deep\n" + WEIGHT, False),
    ],
)  # fmt: skip
def test_a_digest_changes_with_what_decides_results_and_with_nothing_else(
    package: Callable[[dict[str, str]], str], name: str, text: str, changes: bool
) -> None:
    assert (package(BASE) != package({**BASE, name: text})) is changes


def test_all_code_is_that_released_under_its_version() -> None:
    found = release.table()
    known = json.loads(sourcecode.RELEASED.read_text())
    assert found == known, (
        "code differs from what was released under its version: raise the card's version, or, if no result changes, "
        "run `make released`"
    )
    for ref in registry.methods().values():
        assert sourcecode.of_card(ref.card) == {ref.card.name: ref.card.version}


def test_an_editor_of_a_shared_helper_changes_the_methods_that_use_it_and_no_others() -> None:
    def uses(name: str) -> bool:
        return "kdbench.methods.shared.matching" in sourcecode._modules([f"kdbench.methods.{name}.adapter"])

    assert uses("reviewkd")
    assert not uses("kd")


def test_a_net_is_known_by_its_module_and_its_settings() -> None:
    digests = {net: sourcecode.net_digest(net) for net in ("resnet20", "resnet56", "resnet8x4", "wrn_16_2")}
    assert len(set(digests.values())) == len(digests)
    assert sourcecode.net_digest("convnet_w8") == sourcecode.net_digest("convnet_w32")  # the name says the rest
    modules = set(sourcecode._modules(["kdbench.models.resnet"]))
    assert {"kdbench.models.base", "kdbench.models.resnet"} <= modules
    assert not {"kdbench.models", "kdbench.models.wrn", "kdbench.contract"} & modules  # a net more changes no other
