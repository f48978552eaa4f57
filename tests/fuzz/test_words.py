"""What people type and what card and task files hold: taken, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fuzzing
import pytest
import yaml
from hypothesis import strategies as st

from kdbench.base import plugins, yamlfile
from kdbench.runs.evaluate import parse_seeds
from kdbench.specs import registry
from kdbench.specs.card import Card
from kdbench.specs.config import run_config
from kdbench.specs.task import TaskSpec
from kdbench.sweep import names

pytestmark = pytest.mark.timeout(900)
words = st.sampled_from(fuzzing.HOSTILE_TEXT) | st.text(max_size=40)


def _files(kind: str) -> list[Path]:
    if kind == "card":
        return [
            Path(str(plugins.package_folder(package))) / "card.yaml" for package in registry.method_packages().values()
        ]
    return list(registry.task_files().values())


@pytest.mark.parametrize("count", [40, pytest.param(2500, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("kind", "model", "name"), [("card", Card, "toy"), ("task", TaskSpec, "toy/toy")])
def test_a_changed_card_or_task_is_taken_or_refused(
    count: int, kind: str, model: Any, name: str, tmp_path: Path
) -> None:
    texts = [path.read_bytes() for path in _files(kind)]
    trees = [yaml.safe_load(text) for text in texts]
    path = tmp_path / "x.yaml"

    def check(which: int, changes: list[Any], cuts: list[Any]) -> None:
        content = texts[which % len(texts)]
        if changes:
            tree = fuzzing.edited(trees[which % len(trees)], changes)
            try:
                content = yaml.dump(tree, allow_unicode=True, Dumper=yaml.CSafeDumper).encode()
            except UnicodeEncodeError:
                content = json.dumps(tree).encode()  # which writes half a character as YAML has it too
        path.write_bytes(fuzzing.cut(content, cuts))
        found = fuzzing.refused_in_one_line(lambda: yamlfile.read_as(model, path, name=name))
        if isinstance(found, Card):
            found.typed(found.defaults())
            assert found.bibtex()
        elif found is not None:
            assert "/" not in found.slug

    fuzzing.fuzz(count, [tmp_path], check, st.integers(0, 200), st.just([]) | fuzzing.edits, st.just([]) | fuzzing.cuts)


@pytest.mark.parametrize("count", [25, pytest.param(2000, marks=pytest.mark.slow)])
def test_overrides_are_taken_or_refused(count: int, tmp_path: Path) -> None:
    keys = [
        "train.epochs", "train.batch", "train.optimizer.lr", "train.optimizer.betas", "train.schedule.milestones",
        "pair.student.net", "pair.teachers.image.weights", "pair.teachers.image.min_score", "data.source",
        "data.subset.per_class", "data.augment", "data.options.inputs", "seeds", "smoke.rows", "score.also", "version",
        "cpu_threads", "ranked", "method.temperature", "method.weight", "method.inner", "method.inner.weight",
        "method.gan_steps", "notes.data", "title", "suite", "hydra.run.dir", "",
    ]  # fmt: skip
    values = (
        words
        | st.sampled_from(["[1,2]", "[" * 3000, "{a:1}", "{" * 900, "1,2", "range(1,3)", "glob(*)", "'a b'", '"', "'"])
        | fuzzing.hostile_scalars.map(str)
        | st.lists(fuzzing.hostile_scalars, max_size=3).map(str)
    )
    one = st.tuples(st.sampled_from(keys), st.sampled_from(["=", "=", "=", "=", "", ":", "=="]), values).map("".join)
    many = st.lists(one | words, max_size=3)

    def check(method: str, overrides: list[str]) -> None:
        config = fuzzing.refused_in_one_line(lambda: run_config(method, "digits/few-shot", overrides, smoke=True))
        if config is not None:
            assert len(config.spec_hash) == 64
            assert config.custom == bool(overrides)

    fuzzing.fuzz(count, [tmp_path], check, st.sampled_from(["kd", "cgan_kd", "plain"]), many)


@pytest.mark.parametrize("count", [40, pytest.param(2500, marks=pytest.mark.slow)])
def test_seeds_are_taken_or_refused(count: int, tmp_path: Path) -> None:
    part = st.from_regex(r"\s?\d{1,12}(-\d{1,12})?\s?", fullmatch=True) | words | st.integers(0, 30).map(str)
    lists = st.lists(part, max_size=5).map(",".join) | st.integers(1, 4000).map(
        lambda n: ",".join(f"{i}0000-{i}9999" for i in range(n))
    )

    def check(text: str) -> None:
        seeds = fuzzing.refused_in_one_line(lambda: parse_seeds(text))
        if seeds is not None:
            assert 0 < len(set(seeds)) == len(seeds) <= 10_000
            assert all(0 <= seed < 2**31 for seed in seeds)

    fuzzing.fuzz(count, [tmp_path], check, lists)


@pytest.mark.parametrize("count", [30, pytest.param(2000, marks=pytest.mark.slow)])
def test_names_and_patterns_of_a_sweep_are_taken_or_refused(count: int, tmp_path: Path) -> None:
    known = [*registry.methods(), *registry.task_files(), "plain@kd", "all"]
    part = (
        st.sampled_from(known)
        | words
        | st.from_regex(r"[a-z*?\[\]!@+/_-]{0,30}", fullmatch=True)
        | st.sampled_from(["*" * 500, "*a" * 200, "[!" * 300, "[" * 5000, "plain@*", "[z-a]*", "?" * 60])
    )

    def check(text: str, of: str) -> None:
        read = names.method_names if of == "methods" else names.task_names
        found = fuzzing.refused_in_one_line(lambda: read(text))
        assert found is None or (found and len(set(found)) == len(found))

    fuzzing.fuzz(
        count, [tmp_path], check, st.lists(part, max_size=4).map(",".join), st.sampled_from(["methods", "tasks"])
    )
