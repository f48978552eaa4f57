"""Configuration: precedence of values, inner methods, and what the specification hash covers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from kdbench.base.errors import UserError
from kdbench.engine.teachers import teacher_spec
from kdbench.models.origin import weight_files
from kdbench.records.files import read_text
from kdbench.records.folder import records_of
from kdbench.specs import registry
from kdbench.specs.card import Card
from kdbench.specs.config import run_config
from kdbench.specs.task import TaskSpec


def with_card(monkeypatch, name: str, **changes: object) -> None:
    """Changes a registered card for one test."""
    ref = registry.method(name)
    card = Card.model_validate({**ref.card.model_dump(), **changes})
    known = dict(registry.methods()) | {name: dataclasses.replace(ref, card=card)}
    for variant, settings in card.variants.items():
        known[variant] = dataclasses.replace(ref, name=variant, card=card, variant=settings)
    monkeypatch.setattr(registry, "methods", lambda: known)


def test_defaults_then_published_then_variant_then_overrides(monkeypatch):
    with_card(
        monkeypatch,
        "kd",
        published=[
            {"when": {"source": "digits"}, "params": {"temperature": 2.0}, "source": "x", "params_source": "paper"},
            {
                "when": {"source": "digits", "student": "convnet_w2"}, "params": {"temperature": 3.0},
                "source": "its table", "params_source": "official_code",
            },
            {"when": {"source": "digits", "variant": "kd+warm"}, "params": {"temperature": 7.0}, "source": "its own"},
        ],
        variants={
            "kd+hot": {"about": "hotter", "params": {"temperature": 9.0}},
            "kd+warm": {"about": "warmer", "params": {"temperature": 8.0}},
        },
    )  # fmt: skip
    plain = run_config("kd", "digits").method
    assert plain.params["temperature"] == 3.0
    assert plain.params_source == "official_code"
    assert run_config("kd+hot", "digits").method.params["temperature"] == 9.0
    assert run_config("kd+warm", "digits").method.params["temperature"] == 7.0  # published for the variant itself
    custom = run_config("kd+hot", "digits", ["method.temperature=1.5"])
    assert custom.method.params["temperature"] == 1.5
    assert custom.custom
    assert not run_config("kd", "digits").custom


def test_a_tasks_own_entry_counts_before_one_of_its_kind_wherever_it_stands(monkeypatch):
    own = {"when": {"task": "digits"}, "params": {"temperature": 2.0}, "source": "x", "params_source": "tuned"}
    of_kind = {"when": {"kind": "classification"}, "params": {"temperature": 3.0, "kd_weight": 0.5}, "source": "x"}
    for published in ([own, of_kind], [of_kind, own]):
        with_card(monkeypatch, "kd", published=published)
        found = run_config("kd", "digits").method
        assert (found.params["temperature"], found.params["kd_weight"], found.params_source) == (2.0, 0.5, "tuned")


def test_a_variant_with_its_own_protocol_is_marked(monkeypatch):
    with_card(monkeypatch, "kd", variants={"kd+long": {"about": "twice as long", "own_protocol": {"train.epochs": 60}}})
    config = run_config("kd+long", "digits")
    assert config.own_protocol
    assert config.task.train.epochs == 60
    assert config.spec_hash != run_config("kd", "digits").spec_hash


def test_a_variants_own_protocol_leaves_teachers_as_the_task_trains_them(monkeypatch):
    own = {"train.epochs": 60, "train.optimizer.lr": 0.5, "train.schedule": {"name": "constant"}}
    with_card(monkeypatch, "kd", variants={"kd+long": {"about": "another protocol", "own_protocol": own}})
    longer, usual = run_config("kd+long", "digits").task, run_config("kd", "digits").task

    def trained(task):
        teacher = task.pair.teachers["image"].train
        return {
            field: getattr(teacher, field) or getattr(task.train, field)
            for field in ("epochs", "batch", "optimizer", "schedule")
        }

    assert longer.train.optimizer.lr == 0.5
    assert trained(longer) == trained(usual)


def test_an_own_protocol_key_that_tasks_lack_is_said(monkeypatch):
    with_card(monkeypatch, "kd", variants={"kd+odd": {"about": "odd", "own_protocol": {"train.ages": 60}}})
    with pytest.raises(UserError, match=r"train\.ages"):
        run_config("kd+odd", "digits")


def test_an_inner_method_brings_its_own_parameters(monkeypatch):
    inner = {"default": "kd", "type": "method", "optional": True, "doc": "the method around which it is built"}
    own = registry.method("plain").card.model_dump()["hyper_parameters"]
    with_card(monkeypatch, "plain", hyper_parameters={**own, "inner": inner})
    config = run_config("plain", "digits", ["method.inner=reviewkd", "method.inner.review_weight=2"])
    assert config.method.inner is not None
    assert config.method.inner.ref.name == "reviewkd"
    assert config.method.inner.params["review_weight"] == 2.0
    assert config.method.plain_params()["inner"]["name"] == "reviewkd"
    with pytest.raises(UserError, match=r"did you mean 'method\.inner\.review_weight'"):
        run_config("plain", "digits", ["method.inner=reviewkd", "method.inner.review_wieght=2"])
    with pytest.raises(UserError, match="unknown method 'revewkd'"):
        run_config("plain", "digits", ["method.inner=revewkd"])


@pytest.mark.parametrize(
    "override", ["train.epochs=31", "method.temperature=5", "pair.student.net=convnet_w3", "data.subset.per_class=5"]
)
def test_the_hash_covers_all_that_decides_the_result(override):
    task = "digits/few-shot"
    assert run_config("kd", task, [override]).spec_hash != run_config("kd", task).spec_hash


def test_the_hash_is_stable_and_ignores_the_marks():
    assert run_config("kd", "digits").spec_hash == run_config("kd", "digits").spec_hash
    assert run_config("kd", "digits", ["method.temperature=4.0"]).spec_hash == run_config("kd", "digits").spec_hash
    assert run_config("kd", "digits", smoke=True).spec_hash != run_config("kd", "digits").spec_hash


@pytest.mark.parametrize(
    "rest", [".far.change.noise=0.2", "='{far:{change:{noise:0.2}}}'", ".far={source:mnist}", "=null"]
)
def test_what_is_in_no_hash_is_no_setting_of_a_run(rest):
    with pytest.raises(UserError, match=r"score\.external decides nothing of a run, .* write it into a task's file"):
        run_config("kd", "digits", [f"score.external{rest}"])


@pytest.mark.parametrize("value", ["'a,b'", "[1,2]", "x=y", "(", "ä"])
def test_odd_values_end_in_one_line(value):
    with pytest.raises(UserError) as caught:
        run_config("kd", "digits", [f"train.epochs={value}"])
    assert "\n" not in str(caught.value)


def test_keys_that_came_later_leave_every_published_hash_as_it_is():
    """What is hashed of a task is that of the published records, key by key; so is what a teacher is cached under."""
    hashed = {"data", "pair", "train", "score"}
    seen: dict[str, tuple[str, dict]] = {}
    for path in records_of(Path("leaderboard/results")):
        record = json.loads(read_text(path))
        seen[record["spec_hash"]] = (record["task"]["name"], record["provenance"]["config_resolved"]["protocol"])
    assert len(seen) > 300
    for name, protocol in seen.values():
        task = registry.task(name)
        spec = TaskSpec.model_validate({**task.model_dump(exclude=hashed), **protocol})
        assert spec.model_dump(mode="json", include=hashed) == protocol
    assert run_config("kd", "digits/few-shot").spec_hash in seen
    few = run_config("kd", "digits/few-shot").task
    own = teacher_spec(few, few.pair.teachers["image"], False)
    assert own.model_dump(mode="json")["pair"] == {"student": {"net": "convnet_w32", "input": "image"}, "teachers": {}}


def test_a_later_key_is_hashed_once_it_is_set():
    plain = run_config("kd", "digits/few-shot")
    for key in ("pair.student.weights=a.safetensors", "pair.teachers.image.init=timm"):
        changed = run_config("kd", "digits/few-shot", [key])
        assert changed.custom
        assert changed.spec_hash != plain.spec_hash
        assert run_config("kd", "digits/few-shot", [key.partition("=")[0] + "=null"]).spec_hash == plain.spec_hash


def test_init_goes_with_a_teacher_that_is_trained_and_an_ensemble_with_several():
    with pytest.raises(UserError, match="init is what training starts from"):
        run_config("kd", "digits", ["pair.teachers.image.init=a.pt", "pair.teachers.image.weights=b.pt"])
    with pytest.raises(UserError, match="needs at least two teachers"):
        run_config("kd", "digits", ["pair.ensemble=mean"])


def test_every_weights_file_that_a_task_names_is_listed():
    overrides = ["pair.student.weights=/a/s.pt#features", "pair.teachers.image.init=~/i.pt"]
    spec = run_config("kd", "digits", [f"{key}={value!r}" for key, value in (o.split("=") for o in overrides)]).task
    assert weight_files(spec) == {
        "pair.student.weights": Path("/a/s.pt"),
        "pair.teachers.image.init": Path("~/i.pt").expanduser(),
    }
    given = run_config("kd", "digits", ["pair.teachers.image.weights=t.pt", "pair.student.weights=hub:a/b@v1"]).task
    assert weight_files(given) == {"pair.teachers.image.weights": Path("t.pt")}
    assert weight_files(registry.task("digits")) == {}
