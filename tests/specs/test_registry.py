"""Cards and tasks: what a folder must hold, what is said when it does not, and plugins."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from kdbench import models
from kdbench.base import plugins, yamlfile
from kdbench.base.errors import UserError
from kdbench.checks.tiny import method_config
from kdbench.engine.assemble import hyper_parameters
from kdbench.specs import registry
from kdbench.specs.card import Card
from kdbench.specs.task import TaskSpec

CARD = {
    "adapter": "Toy", "title": "A toy", "authors": ["A. Nobody"], "year": 2024, "venue": "nowhere", "bibkey": "nobody",
    "family": "logit", "summary": "Does little.", "version": "1.0.0", "kinds": ["classification"],
    "hyper_parameters": {"weight": {"default": 1.0, "min": 0, "doc": "how much"}},
}  # fmt: skip


def write(path: Path, data: object) -> Path:
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data, sort_keys=False))
    return path


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Installs a package as an entry point of a group and returns its folder."""

    def install(group: str, name: str, package: str, marker: str = "raise AssertionError('imported')") -> Path:
        folder = tmp_path / package
        folder.mkdir()
        (folder / "__init__.py").write_text(marker)
        monkeypatch.syspath_prepend(str(tmp_path))
        entry = metadata.EntryPoint(name, package, group)
        monkeypatch.setattr(plugins, "entries", lambda group: (entry,) if group == entry.group else ())
        return folder

    caches = (
        registry.method_packages, registry.card, registry.methods, registry.task_files, registry.task, plugins.folders,
    )  # fmt: skip
    for cached in caches:
        cached.cache_clear()
    yield install
    monkeypatch.undo()
    for cached in caches:
        cached.cache_clear()


def test_every_card_and_task_is_sound():
    assert {"plain", "kd", "reviewkd"} <= set(registry.methods())
    assert {"digits", "digits/few-shot", "digits/angle"} <= set(registry.tasks())


def test_baselines_are_methods():
    for spec in registry.tasks().values():
        assert spec.baseline in registry.methods(), spec.name


def test_cards_name_the_class_their_adapter_defines():
    for name in registry.method_packages():
        ref = registry.method(name)
        assert ref.adapter().__name__ == ref.card.adapter


def test_cards_say_what_their_adapters_need_and_run_on():
    for name, ref in registry.methods().items():
        whole = replace(ref, card=ref.card.model_copy(update={"smoke": {}}))
        needs = ref.adapter().needs(hyper_parameters(method_config(whole)))
        assert ref.needs == needs.words(), name
        assert (None if ref.kinds is None else frozenset(ref.kinds)) == needs.kinds, name


def test_cards_name_nets_as_tasks_do():
    """A published value or figure of a pair that no task spells so would never be found."""
    sources = {spec.data.source for spec in registry.tasks().values()}
    for name in registry.method_packages():
        card = registry.card(name)
        for of in (*(entry.when for entry in card.published), *card.claims):
            nets = {net for net in (of.student, of.teacher) if net is not None}
            for net in nets if of.source in sources else ():
                models.recipe(net)
                assert of.source != "imagenet" or net.startswith("timm:"), (name, net)


def test_a_plugin_is_found_without_importing_it(plugin):
    folder = plugin("kdbench.methods", "toy", "kdbench_toy_plugin")
    write(folder / "card.yaml", CARD)
    assert registry.method("toy").card.title == "A toy"
    assert "kdbench_toy_plugin" not in sys.modules


def test_a_plugin_cannot_take_a_built_in_name(plugin):
    write(plugin("kdbench.methods", "kd", "kdbench_kd_plugin") / "card.yaml", CARD)
    with pytest.raises(UserError, match="rename"):
        registry.methods()


def test_tasks_of_a_plugin_are_found(plugin):
    folder = plugin("kdbench.tasks", "toys", "kdbench_task_plugin", marker="")
    body = registry.task("digits").model_dump(mode="json", exclude={"name"})
    write(folder / "toy-digits.yaml", body)
    registry.task_files.cache_clear()
    assert registry.task("toy-digits").kind == "classification"


def test_an_adapter_class_that_is_not_there_is_said(plugin):
    folder = plugin("kdbench.methods", "toy", "kdbench_empty_plugin", marker="")
    write(folder / "card.yaml", CARD)
    (folder / "adapter.py").write_text("class Toi: pass\n")
    with pytest.raises(UserError, match=r"no class 'Toy'.*did you mean 'Toi'"):
        registry.method("toy").adapter()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"year": "2024"}, r"card.yaml:\d+: year: .*integer"),
        ({"famly": "logit"}, "unknown key 'famly' .did you mean 'family'"),
        ({"adapter": None}, "adapter"),
        ({"name": "toy"}, "'name' is set by the file's place"),
        ({"links": {"paper": "http://insecure.org"}}, "links.paper"),
        ({"version": "1"}, "version"),
        ({"smoke": {"wieght": 0.0}}, "no hyper-parameter 'wieght' .did you mean 'weight'"),
        ({"variants": {"toy+x": {"about": "x", "params": {"weight": -1.0}}}}, "must be at least 0"),
        (
            {"hyper_parameters": {"weight": {"default": "much", "doc": "how much", "type": "float"}}},
            "float is expected",
        ),
        (
            {"hyper_parameters": {"weight": {"default": 10**400, "doc": "how much", "type": "float"}}},
            "must be finite",
        ),
        ({"hyper_parameters": {"weight": {"doc": "how much"}}}, "default"),
    ],
)
def test_a_malformed_card_is_named_with_file_line_and_key(tmp_path, change, said):
    path = write(tmp_path / "card.yaml", {**CARD, **change})
    with pytest.raises(UserError, match=said) as caught:
        yamlfile.read_as(Card, path, name="toy")
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("version", 0, "version"),
        ("ranked", True, "unranked_because"),
        ("score", {"primary": "top2"}, r"unknown metric 'top2' .did you mean"),
        ("score", {"primary": "mae"}, "not one of a classification task; its metrics are top1, top5, nll"),
        ("score", {"primary": "top1", "also": ["nlll"]}, r"unknown metric 'nlll' .did you mean 'nll'"),
        ("seeds", [0, 0], "seeds must differ"),
        ("trian", {}, "did you mean 'train'"),
        ("data", {"source": "digits", "subset": {}}, "per_class, fraction and rows"),
    ],
)
def test_a_malformed_task_is_named_with_file_line_and_key(tmp_path, key, value, said):
    body = registry.task("digits").model_dump(mode="json", exclude={"name"})
    path = write(tmp_path / "toy.yaml", {**body, key: value})
    with pytest.raises(UserError, match=said) as caught:
        yamlfile.read_as(TaskSpec, path, name="toy")
    assert f"{path}:" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("score", {"primary": "mae"}), ("seeds", [0, 0]), ("score", {"primary": "top1", "k": 5}), ("version", 0)],
)
def test_a_rule_over_several_keys_names_the_line_of_its_first(tmp_path, key, value):
    body = registry.task("digits").model_dump(mode="json", exclude={"name"})
    path = write(tmp_path / "toy.yaml", {**body, key: value})
    with pytest.raises(UserError) as caught:
        yamlfile.read_as(TaskSpec, path, name="toy")
    lines = path.read_text().splitlines()
    number = int(str(caught.value).removeprefix(f"{path}:").partition(":")[0])
    assert lines[number - 1].strip().startswith((f"{key}:", f"{[*value][-1]}:" if isinstance(value, dict) else key))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", r":\d+: not valid YAML"),
        ("- 1\n- 2\n", "a mapping"),
        ("a: 1\na: 2\n", ":2: not valid YAML: key 'a' stands twice"),
        ("a: &x 1\nb: *x\n", "aliases"),
        ("a: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
        ("a: " + "x" * (1 << 19), "a page of text"),
        ("\x00", "not valid YAML"),
    ],
)
def test_what_is_no_plain_yaml_is_refused(tmp_path, text, said):
    with pytest.raises(UserError, match=said):
        yamlfile.read(write(tmp_path / "x.yaml", text))


def test_numbers_are_read_as_people_write_them(tmp_path):
    path = write(tmp_path / "x.yaml", "a: 1e-3\nb: 1.0e3\nc: on\nd: 12:30\ne: -7\nf: true\n")
    assert yamlfile.read(path) == {"a": 1e-3, "b": 1e3, "c": "on", "d": "12:30", "e": -7, "f": True}
