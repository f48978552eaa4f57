"""The tuned entry: what is kept of a search, where it lies, and what of it is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from entries import RATE_FOUND, an_entry

from kdbench.base import plugins
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.specs import tuned
from kdbench.specs.config import RunConfig, run_config
from kdbench.specs.order import ConfigOrder
from kdbench.specs.tuned import TunedEntry

TASK = "digits/few-shot"


def test_an_entry_is_read_as_it_was_kept(tmp_path: Path) -> None:
    entry = an_entry("kd", TASK, RATE_FOUND)
    path = tuned.keep(entry, Home(tmp_path))
    assert path == tmp_path / "tuned" / "digits__few-shot" / "kd.tuned-2.json"
    assert tuned.read(path) == entry
    assert next((one.path, one.changed) for one in tuned.listed("tuned", Home(tmp_path))) == (path, "")
    assert not [one for one in tuned.listed("tuned-3", Home(tmp_path)) if one.path == path]


def test_searches_that_are_not_the_same_lie_beside_one_another(tmp_path: Path) -> None:
    home = Home(tmp_path)
    kept = {
        tuned.keep(an_entry("kd", TASK, RATE_FOUND, scores, **changes), home)
        for scores, changes in [
            ((80.0, 85.0), {}),
            ((80.0, 85.0, 70.0), {}),
            ((80.0, 85.0), {"sampler": "tpe"}),
            ((80.0, 85.0), {"seeds": (1000, 1001)}),
            ((80.0, 85.0), {"smoke": True}),
            ((80.0, 85.0), {"overrides": ("train.epochs=3",)}),
        ]
    }
    assert len(kept) == 6
    assert tuned.keep(an_entry("kd", TASK, RATE_FOUND, overrides=("engine.fused=true",)), home) in kept


@pytest.mark.usefixtures("none_published")
@pytest.mark.parametrize(
    ("budget", "name", "asked"),
    [
        ((8, 1, "qmc"), "tuned-8", "--trials 8"),
        ((8, 3, "qmc"), "tuned-8x3", "--trials 8 --seeds 1000-1002"),
        ((16, 1, "tpe"), "tuned-16-tpe", "--trials 16 --sampler tpe"),
        ((16, 10, "tpe"), "tuned-16x10-tpe", "--trials 16 --seeds 1000-1009 --sampler tpe"),
    ],
)
def test_a_ruleset_says_all_of_its_budget(tmp_path: Path, budget: tuple[int, int, str], name: str, asked: str) -> None:
    assert tuned.ruleset_of(*budget) == name
    with pytest.raises(UserError, match=rf"`kdbench tune --method dkd --task {TASK} {asked}` searches them"):
        tuned.find(run_config("dkd", TASK), name, Home(tmp_path / "home"))


@pytest.mark.parametrize("name", ["tuned-8x1", "tuned-8x0", "tuned-8x", "tuned-x3", "tuned-8-tpex3", "tuned-8-qmc"])
def test_a_budget_has_one_name(name: str) -> None:
    with pytest.raises(UserError, match="no ruleset"):
        tuned.require_ruleset(name)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda raw: raw.update(best=0), "best is 0, which is not the first trial of the best score"),
        (lambda raw: raw["trials"][1].update(score=99.0), r"trials\.1\.score is 99.0, its seeds give 85.0"),
        (lambda raw: raw["values"].update({"train.optimizer.lr": 0.4}), "values are not those of trial 1"),
        (lambda raw: raw.update(trials=[]), "trials: "),
        (lambda raw: raw.update(note="x"), "unknown key 'note'"),
    ],
)
def test_an_edited_entry_is_refused_in_one_line(tmp_path: Path, change, line: str) -> None:
    path = tuned.keep(an_entry("kd", TASK, RATE_FOUND), Home(tmp_path))
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))
    with pytest.raises(UserError, match=line) as error:
        tuned.read(path)
    assert "\n" not in str(error.value)


def test_what_has_changed_since_is_named() -> None:
    entry, config = an_entry("kd", TASK, RATE_FOUND), run_config("kd", TASK)
    assert entry.changes(config) == []
    older = entry.model_copy(
        update={"cards": {"kd": "0.1.0"}, "engine_version": 0, "task": entry.task.model_copy(update={"version": 9})}
    )
    assert older.changes(config) == [
        f"task {TASK} was version 9 and is {config.task.version}",
        f"card kd was version 0.1.0 and is {config.method.ref.card.version}",
        f"engine was version 0 and is {entry.engine_version}",
    ]


def used(entry: TunedEntry, method: str = "kd") -> RunConfig:
    return run_config(method, TASK, tuned=entry.tuned)


def test_a_tuned_run_takes_the_values_and_shares_the_protocol() -> None:
    published = run_config("kd", TASK)
    config = used(an_entry("kd", TASK, {**RATE_FOUND, "method.temperature": 2.0}))
    assert config.task.train.optimizer.lr == 0.1
    assert config.method.params["temperature"] == 2.0
    assert config.method.params_source == "tuned"
    assert config.task.pair.teachers["image"].train.optimizer.lr == published.task.train.optimizer.lr
    assert not config.custom
    assert config.ruleset == "tuned-2"
    spec, own = config.spec(), published.spec()
    assert spec["protocol"] == own["protocol"]
    assert spec["searched"]["ruleset"] == "tuned-2"
    assert spec["params"]["temperature"] == 2.0
    assert "searched" not in own
    assert config.spec_hash != published.spec_hash


def test_given_values_that_were_best_are_a_run_of_the_ruleset_still() -> None:
    config = used(an_entry("kd", TASK, RATE_FOUND, (90.0, 85.0)))
    assert config.method.params == run_config("kd", TASK).method.params
    assert config.spec_hash != run_config("kd", TASK).spec_hash


def test_another_process_makes_the_same_configuration() -> None:
    config = used(an_entry("kd", TASK, RATE_FOUND))
    order = ConfigOrder.of(config)
    assert ConfigOrder.read(order.text()).config().spec_hash == config.spec_hash
    assert hash(order) == hash(ConfigOrder.of(config))


def test_seeds_that_chose_the_values_give_no_result() -> None:
    config = used(an_entry("kd", TASK, RATE_FOUND))
    config.require_unseen([0, 1])
    with pytest.raises(UserError, match="kd on digits/few-shot: seed 1000 chose the values of ruleset tuned-2"):
        config.require_unseen([0, 1000])


@pytest.fixture
def none_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """No entry lies beside a card."""
    monkeypatch.setattr(tuned, "FOLDER", "no-such-folder")


@pytest.mark.usefixtures("none_published")
def test_the_one_search_that_there_is_is_found(tmp_path: Path) -> None:
    home, config = Home(tmp_path), run_config("kd", TASK)
    assert tuned.find(config, "published", home) is None
    kept = an_entry("kd", TASK, RATE_FOUND)
    tuned.keep(kept, home)
    tuned.keep(an_entry("kd", TASK, RATE_FOUND, (80.0, 85.0, 84.0, 83.0), smoke=True), home)
    tuned.keep(an_entry("kd", TASK, RATE_FOUND, (80.0, 85.0, 84.0), overrides=("train.epochs=3",)), home)
    assert tuned.find(config, "tuned", home) == kept.tuned
    assert tuned.find(config, "tuned-2", home) == kept.tuned
    longer = run_config("kd", TASK, ["train.epochs=3"])
    assert tuned.find(longer, "tuned", home).ruleset == "tuned-3"
    assert tuned.find(run_config("kd", TASK, smoke=True), "tuned-4", home).ruleset == "tuned-4"


@pytest.mark.usefixtures("none_published")
@pytest.mark.parametrize(
    ("method", "ruleset", "line"),
    [
        ("kd", "best", r"no ruleset 'best'; published, tuned, or one of so many trials such as tuned-8"),
        ("kd", "tuned-0", r"no ruleset 'tuned-0'"),
        (
            "dkd",
            "tuned",
            r"dkd on digits/few-shot: no values of ruleset tuned; `kdbench tune --method dkd ",
        ),
        ("kd", "tuned-9", r"no values of ruleset tuned-9; there are tuned-2, tuned-3; `kdbench tune"),
        ("kd", "tuned", r"searches of several sizes; name one with --ruleset: tuned-2, tuned-3"),
        ("plain@kd", "tuned", r"plain@kd takes its length from results as published"),
        ("crd", "tuned", r"crd.tuned-2.json: card crd was version 0.1.0 and is [\d.]+ since the search"),
        ("at", "tuned", r"at.tuned-2.json: task digits/few-shot was version 9 and is 1 since the search"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path: Path, method: str, ruleset: str, line: str) -> None:
    home = Home(tmp_path)
    tuned.keep(an_entry("kd", TASK, RATE_FOUND), home)
    tuned.keep(an_entry("kd", TASK, RATE_FOUND, (80.0, 85.0, 84.0)), home)
    tuned.keep(an_entry("crd", TASK, RATE_FOUND, cards={"crd": "0.1.0"}), home)
    entry = an_entry("at", TASK, RATE_FOUND)
    tuned.keep(entry.model_copy(update={"task": entry.task.model_copy(update={"version": 9})}), home)
    with pytest.raises(UserError, match=line) as error:
        tuned.find(run_config(method, TASK), ruleset, home)
    assert "\n" not in str(error.value)


def test_a_search_of_other_settings_is_named_with_them(tmp_path: Path) -> None:
    home = Home(tmp_path)
    tuned.keep(an_entry("kd", TASK, RATE_FOUND), home)
    own = ["engine.fused=true", "method.temperature=3"]
    with pytest.raises(UserError) as error:
        tuned.find(run_config("kd", TASK, own), "tuned", home)
    assert str(error.value) == (
        "kd on digits/few-shot: no values of ruleset tuned searched with method.temperature=3; "
        "`kdbench tune --method kd --task digits/few-shot method.temperature=3` searches them"
    )


def test_published_entries_are_of_cards_and_tasks_as_they_are() -> None:
    published = sorted(plugins.package_folder("kdbench.methods").glob("*/tuned/*/*.json"))
    assert published
    for path in published:
        entry = tuned.read(path)
        assert entry.changes(run_config(entry.method, entry.task.name)) == [], path
        assert path.parts[-2:] == entry.place.parts[-2:]
