"""Nothing from a stranger runs here: no pickle, no evaluated text, no shell; names are slugs, paths stay in folders."""

from __future__ import annotations

import ast
import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import records as factory
import yaml

from kdbench.base import yamlfile
from kdbench.base.errors import UserError
from kdbench.index.csv import to_csv
from kdbench.records.files import RecordError, parse
from kdbench.records.validate import check_file
from kdbench.specs import registry
from kdbench.specs.card import Card
from kdbench.specs.task import TaskSpec

ROOT = Path(__file__).parents[2]
FOLDERS = ("kdbench", "methods", "leaderboard", "tests")
make: Callable[..., dict[str, Any]] = factory.make_record

FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "os.execve", "os.spawnv",
    "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.unsafe_load_all", "yaml.full_load_all",
    "hydra.utils.instantiate", "hydra.utils.call", "hydra.utils.get_class", "hydra.utils.get_method",
    "shutil.unpack_archive", "subprocess.getoutput", "subprocess.getstatusoutput", "numpy.fromfile",
    "torch.hub.load", "torch.jit.load", "torch.package.PackageImporter", "runpy.run_path", "runpy.run_module",
    "importlib.import_module", "logging.config.dictConfig", "logging.config.fileConfig",
}  # fmt: skip
FORBIDDEN_MODULES = {
    "pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle", "pickletools",
    "xml.dom", "xml.sax", "tarfile", "telnetlib", "ftplib",
}  # fmt: skip
FORBIDDEN_METHODS = {"extractall", "extract", "exec_module", "load_module", "read_pickle", "to_pickle", "instantiate"}
LOADERS = {"CSafeLoader", "SafeLoader", "_Loader", "BaseLoader"}

ALLOWED = {
    (
        "kdbench/specs/registry.py",
        "importlib.import_module",
    ): "the package of an installed plugin or of this tree",
    ("kdbench/models/__init__.py", "importlib.import_module"): "a module named in a table of the same file",
    (
        "kdbench/kinds/__init__.py",
        "importlib.import_module",
    ): "a module found in its own folder, or a plug-in's",
    (
        "kdbench/data/sources/__init__.py",
        "importlib.import_module",
    ): "a module found in its own folder, or a plug-in's",
    ("kdbench/objects/pickled.py", "cloudpickle"): "objects of the user's own session, in the user's own home",
    ("kdbench/specs/nets.py", "importlib.import_module"): "the module of an installed plugin",
    ("kdbench/specs/local.py", "importlib.import_module"): "a file that the person at the keyboard names",
    ("leaderboard/__init__.py", "importlib.import_module"): "one of two modules named there",
    (
        "kdbench/devices/backends/__init__.py",
        "importlib.import_module",
    ): "a module found in its own folder, or a plug-in's",
    ("kdbench/sweep/launch.py", "joblib"): "ends the idle runners that its launcher has started; reads nothing",
    ("tests/sweep/test_sweep_rounds.py", "joblib"): "the same runners, to see that they end",
    ("tests/on_a_gpu.py", "tarfile"): "packs records; unpacks nothing",
    ("tests/project/test_on_a_gpu.py", "tarfile"): "lists what was packed the line before",
    ("kdbench/__init__.py", "importlib.import_module"): "modules named there, of this package",
    ("kdbench/base/verbs.py", "importlib.import_module"): "the module that a package of this tree names",
    ("kdbench/checks/golden.py", "exec_module"): "the mapping beside the adapter of an installed plugin",
    ("tests/support/mutants.py", "compile"): "this repository's own methods with a fault planted",
    ("tests/conftest.py", "exec_module"): "files of tests/, which are no package",
    ("tests/support/killed_run.py", "exec_module"): "a file of tests/",
    ("tests/support/forked.py", "importlib.import_module"): "every module of this package",
    ("tests/support/peers.py", "importlib.import_module"): "another project's checkout that the user names, to time it",
    ("tests/support/peers.py", "exec_module"): "another project's checkout that the user names, to time it",
    ("tests/models/test_models_hooked.py", "pickle"): "of a net made there, to see that its taps come back",
    ("tests/checks/test_adapter_form.py", "pickle"): "reads back what the line before wrote",
    ("tests/models/test_models_states.py", "pickle"): "writes a file that must be refused; nothing reads it",
    ("tests/scaffold/test_scaffold.py", "compile"): "what `kdbench new` wrote must be Python; it is not run",
}
"""(file, what) to why it may; a test beside the walk says when one is not needed any more."""


def _names(tree: ast.Module) -> dict[str, str]:
    """What a file's imports call things, to their full names."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                found[one.asname or one.name.partition(".")[0]] = one.name if one.asname else one.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
    return found


def _full(node: ast.expr, names: dict[str, str]) -> str:
    """The dotted name of what is called, empty for anything else."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_full(node.value, names)}.{node.attr}"
    return ""


def _is(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def found_in(source: str) -> Iterator[tuple[int, str]]:
    """(line, what) of everything in a source file that could run what a stranger wrote."""
    tree = ast.parse(source)
    names = _names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [one.name for one in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for module in modules:
                for bad in FORBIDDEN_MODULES:
                    if module == bad or module.startswith(f"{bad}."):
                        yield node.lineno, bad
        if not isinstance(node, ast.Call):
            continue
        name, words = _full(node.func, names), {word.arg: word.value for word in node.keywords}
        last = name.rpartition(".")[2]
        if name in FORBIDDEN_CALLS:
            yield node.lineno, name
        elif isinstance(node.func, ast.Attribute) and last in FORBIDDEN_METHODS:
            yield node.lineno, last
        if name == "torch.load" and not _is(words.get("weights_only"), True):
            yield node.lineno, "torch.load without weights_only=True"
        if name == "numpy.load" and not (words.get("allow_pickle") is None or _is(words["allow_pickle"], False)):
            yield node.lineno, "numpy.load with allow_pickle"
        if name == "yaml.load":
            loader = words.get("Loader") or (node.args[1] if len(node.args) > 1 else None)
            if loader is None or _full(loader, names).rpartition(".")[2] not in LOADERS:
                yield node.lineno, "yaml.load without a safe loader"
        if "shell" in words and not _is(words["shell"], False):
            yield node.lineno, "shell"
        if "trust_remote_code" in words and not _is(words["trust_remote_code"], False):
            yield node.lineno, "trust_remote_code"


def _walk() -> Iterator[tuple[str, int, str]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            file = path.relative_to(ROOT).as_posix()
            yield from ((file, line, what) for line, what in found_in(path.read_text(encoding="utf-8")))


def test_nothing_in_the_tree_runs_what_a_stranger_wrote() -> None:
    found = list(_walk())
    seen = {(file, what) for file, _, what in found}
    loads_samples = {(file, "exec_module") for file, what in seen if file.startswith("tests/test_data_")}
    bad = [f"{file}:{line}: {what}" for file, line, what in found if (file, what) not in ALLOWED.keys() | loads_samples]
    assert bad == []
    assert set(ALLOWED) <= seen, "an exception that nobody needs any more"


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from pickle import loads", "import joblib as j", "import torch; torch.load('x')",
        "import torch as t; t.load('x', weights_only=False)", "from torch import load; load('x')",
        "import numpy as np; np.load('x', allow_pickle=True)", "eval('1')", "exec('1')", "compile('1', '', 'eval')",
        "import yaml; yaml.load('1')", "import yaml; yaml.load('1', yaml.Loader)",
        "import yaml; yaml.load('1', Loader=yaml.UnsafeLoader)", "import yaml; yaml.full_load('1')",
        "import os; os.system('x')", "import subprocess as s; s.run('x', shell=True)",
        "from hydra.utils import instantiate; instantiate({})", "import zipfile; zipfile.ZipFile('x').extractall()",
        "import datasets; datasets.load_dataset('x', trust_remote_code=True)", "import marshal", "import shelve",
        "from importlib import import_module; import_module(name)", "__import__('x')", "import dill",
    ],
)  # fmt: skip
def test_the_walk_sees_it(line: str) -> None:
    assert list(found_in(line))


@pytest.mark.parametrize(
    "line",
    [
        "import torch; torch.load('x', weights_only=True)", "import re; re.compile('x')", "net.eval()",
        "import numpy as np; np.load('x', allow_pickle=False)", "import torch; torch.compile(net)",
        "import yaml; yaml.load('1', Loader=yaml.CSafeLoader)", "import subprocess as s; s.run(['x'])",
    ],
)  # fmt: skip
def test_the_walk_leaves_it(line: str) -> None:
    assert not list(found_in(line))


ESCAPES = [
    "../x",
    "..",
    "/etc/passwd",
    "a/../../b",
    "~/x",
    "a\\..\\b",
    "C:\\x",
    "a/b/c",
    ".hidden",
    "x\n",
    "x\0",
    "é",
    "",
]


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize(
    "field",
    [
        "run_id", "method.name", "method.variant", "task.name", "task.suite", "task.kind", "task.data.0.name",
        "task.data.0.split", "models.teachers.0.role", "stages.0.name", "overhead.measured_by", "task.baseline",
    ],
)  # fmt: skip
def test_no_name_in_a_record_is_a_path(field: str, name: str) -> None:
    with pytest.raises(RecordError):
        parse(factory.set_field(make(), field, name))


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("field", ["bibkey", "variants", "hyper_parameters"])
def test_no_name_in_a_card_is_a_path(field: str, name: str, tmp_path: Path) -> None:
    body = registry.card("kd").model_dump(mode="json", exclude={"name"})
    inner = {"variants": {"about": "x"}, "hyper_parameters": {"default": 1.0, "doc": "x"}}
    body[field] = name if field == "bibkey" else {name: inner[field]}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(body))
    with pytest.raises(UserError):
        yamlfile.read_as(Card, tmp_path / "card.yaml", name="kd")


@pytest.mark.parametrize(
    "link", ["http://x.org", "javascript:alert(1)", "data:text/html,x", "file:///x", "//x.org", "https://a b"]
)
def test_links_are_https(link: str, tmp_path: Path) -> None:
    for field in ("method.paper.url", "provenance.contact_url"):
        with pytest.raises(RecordError):
            parse(factory.set_field(make(), field, link))
    body = registry.card("kd").model_dump(mode="json", exclude={"name"}) | {"links": {"paper": link}}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(body))
    with pytest.raises(UserError, match=r"links\.paper"):
        yamlfile.read_as(Card, tmp_path / "card.yaml", name="kd")


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "1e999"])
@pytest.mark.parametrize("key", ["lr", "weight_decay"])
def test_no_number_of_a_task_is_infinite(key: str, value: str, tmp_path: Path) -> None:
    body = registry.task("digits").model_dump(mode="json", exclude={"name"})
    body["train"]["optimizer"][key] = "HERE"
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(body).replace("HERE", value))
    with pytest.raises(UserError, match="finite"):
        yamlfile.read_as(TaskSpec, tmp_path / "x.yaml", name="x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: " + "[" * 250_000, "nested more than"),
        ("a: " + "{b: " * 60_000, "nested more than"),
        ("- " * 120_000, "nested more than"),
        ("a: &x [1, 1]\nb: &y [*x, *x]\n", "aliases"),
        ("a: " + "9" * 100_000, "not valid YAML"),
        ("? [a]\n: 1\n", "a key must be a word"),
        ("a: !!bool perhaps\n", "not valid YAML"),
        ("a: !!python/name:os.system\n", "not valid YAML"),
        ("x" * 300_000, "a page of text"),
    ],
)
def test_a_bomb_of_yaml_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        yamlfile.read(tmp_path / "x.yaml")
    assert len(str(caught.value)) < 2500


def test_a_file_too_large_for_a_card_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x.yaml").open("wb") as file:
        file.truncate(1 << 40)  # takes no room on the disk
    with pytest.raises(UserError, match="a page of text"):
        yamlfile.read(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    "mark", ["\u202e", "\u2066", "\u200f", "\ufeff", "\u0007", "\x1b", "\x7f", "\b", "\r", "\u2028"]
)
def test_the_validator_finds_what_a_reader_cannot_see(mark: str, tmp_path: Path) -> None:
    for field in ("method.paper.title", "models.student.arch"):
        raw = factory.set_field(make(), field, f"a{mark}b")
        path = tmp_path / f"{raw['run_id']}.json"
        path.write_text(json.dumps(raw))
        (problem,) = [p for p in check_file(path) if p.level == "error"]
        assert problem.field == field
        assert f"U+{ord(mark):04X}" in problem.message


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_a_cell_of_csv_is_no_formula(start: str) -> None:
    (_, cell) = to_csv([{"a": f"{start}1+1"}], ["a"]).split("\n", 1)
    assert cell.lstrip('"').startswith("'")


def test_a_picture_of_very_many_pixels_is_refused_before_it_is_decoded() -> None:
    from kdbench.data.decode.picture import opened

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    for side in (10_000, 60_000):
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        bomb = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
        with pytest.raises(UserError, match="more than 89 million pixels"):
            opened(bomb, "row 0")


def test_a_message_is_a_line_of_bounded_length() -> None:
    assert len(str(UserError("x" * 10**6))) < 2100
    assert io.StringIO(str(UserError("short"))).read() == "short"
