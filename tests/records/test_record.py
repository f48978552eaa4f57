"""The result record: round trip, every rule and the message it gives, privacy, upgrades, the validator."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import records as factory

from kdbench.base.errors import UserError
from kdbench.records import files as records
from kdbench.records.files import RecordError, dump, load, parse, privacy_problems, scrub
from kdbench.records.validate import check_file, check_folder

make: Callable[..., dict[str, Any]] = factory.make_record


def _file(folder: Path, raw: dict[str, Any]) -> Path:
    path = folder / f"{raw['run_id']}.json"
    path.write_text(json.dumps(raw))
    return path


def test_round_trip(tmp_path: Path) -> None:
    record = parse(make())
    path = dump(record, tmp_path)
    assert path.name == f"{record.run_id}.json"
    assert load(path) == record
    before = path.read_bytes()
    dump(load(path), tmp_path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert check_file(path) == []


def test_failed_record(tmp_path: Path) -> None:
    record = load(dump(parse(make(status="oom")), tmp_path))
    assert (record.score, record.measured, record.overhead.mode) == (None, None, "off")


def test_score_follows_selection() -> None:
    chosen = {"protocol__selection": "best_on_val", "metrics__best": {"top1": 80.0}, "metrics__best_epoch": 1}
    assert parse(make()).score == 71.5
    assert parse(make(**chosen, metrics__best_selected_on="val")).score == 80.0
    with pytest.raises(RecordError, match=r"metrics\.best: needs the primary metric, selected on val"):
        parse(make(**chosen, metrics__best_selected_on="test"))


def test_record_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse(make()).seed = 3  # type: ignore[misc]


def test_names() -> None:
    record = parse(make(method__name="cgan_kd", method__variant="cgan_kd+reviewkd"))
    assert record.method_name == "cgan_kd+reviewkd"
    assert record.published_path == f"digits__few-shot@v1/cgan_kd+reviewkd/{record.run_id}.json"


RULES: list[tuple[str, Any, str]] = [
    ("run_id", "ABC", "run_id"),
    ("spec_hash", "0" * 63, "spec_hash"),
    ("engine_version", 0, "engine_version"),
    ("engine_version", "1", "engine_version"),
    ("custom", 1, "custom"),
    ("status", "fine", "status"),
    ("created_at", "2026-01-02 03:04:05", "created_at"),
    ("created_at", "2026-13-02T03:04:05Z", "created_at"),
    ("created_at", "2026-01-02T03:04:05+01:00", "created_at"),
    ("finished_at", "2026-01-02T03:04:05.6Z", "finished_at: lies before created_at"),
    ("method.name", "../kd", "method.name"),
    ("method.name", "KD", "method.name"),
    ("method.adapter_version", "1.0", "method.adapter_version"),
    ("method.params_source", "guess", "method.params_source"),
    ("method.paper.url", "http://arxiv.org/abs/1", "method.paper.url"),
    ("method.paper.url", "javascript:alert(1)", "method.paper.url"),
    ("method.params", {"a": {"b": [[[[[[[[[[1]]]]]]]]]]}}, "method.params: is nested more than 8 deep"),
    ("method.params", {"a": [float("inf")]}, "method.params: holds a number that is not finite"),
    ("task.name", "a/b/c", "task.name"),
    ("task.name", "a__b", "task.name"),
    ("task.version", 0, "task.version"),
    ("task.metric_max", 70.0, "metrics: top1 lies over the task's maximum 70.0"),
    ("task.metric_min", 72.0, "metrics: top1 lies under the task's minimum 72.0"),
    ("task.data.0.sha256", "", "task.data.0.sha256"),
    ("device_class", "gpu", "device_class"),
    ("device_class", "cuda:H100/fp32/x1", "overhead.device: does not belong to the device class"),
    ("models.teachers.0.params", -1, "models.teachers.0.params"),
    ("protocol.selection", "test", "protocol.selection"),
    ("protocol.amp", True, "protocol.amp"),
    ("seed", -1, "seed"),
    ("seed", 2**63, "seed"),
    ("seed", 1.5, "seed"),
    ("metrics", None, "metrics: missing although status is ok"),
    ("metrics.last", {"nll": 0.1}, "metrics.last: lacks the primary metric 'top1'"),
    ("metrics.last.top1", None, "metrics.last.top1"),
    ("metrics.last.nll", float("inf"), "metrics.last.nll"),
    ("metrics.best", {"top1": 1.0}, "metrics: best, best_epoch and best_selected_on go together"),
    ("metrics.test_items", 0, "metrics.test_items"),
    ("curve.0.train_loss", float("nan"), "curve.0.train_loss"),
    ("curve.0.loss", 1.0, "curve.0.loss: is not a field of a record"),
    ("digest.losses", [0.0] * 21, "digest.losses"),
    ("overhead.mode", "some", "overhead"),
    ("overhead.builds", [], "overhead: give either builds or phases"),
    ("overhead.builds", [[[1.0, 0.0]]] * 5, "overhead.builds"),
    ("overhead.builds", [[[1.0, 1.0, 1.0]]] * 5, "overhead.builds"),
    ("overhead.builds", [[[1.0, 1.0]] * 41] * 5, "overhead.builds"),
    ("overhead.builds", [[[1.0, 1.0]] * 5], "overhead.builds"),
    ("overhead.builds", [[[1.0, 1.0]], []], "overhead.builds"),
    ("overhead.measured_by", "me", "overhead.measured_by"),
    ("overhead.data_wait_frac", 1.1, "overhead.data_wait_frac"),
    ("overhead.peak_alloc_mib", -1.0, "overhead.peak_alloc_mib"),
    ("stages", [], "stages: lacks a stage on the ledger line 'distill'"),
    ("stages.0.ledger", "training", "stages.0.ledger"),
    ("stages.0.basis", "guessed", "stages.0.basis"),
    ("deploy", None, "deploy: missing although status is ok"),
    ("deploy.equals_plain", False, "deploy.equals_plain"),
    ("environment.hostname", "node", "environment.hostname: is not a field"),
    ("provenance.licence", "MIT", "provenance.licence"),
    ("provenance.contact_url", "http://example.org", "provenance.contact_url"),
    ("error", {"type": "x", "message": "y"}, "error: must be null when status is ok"),
    ("surplus", 1, "surplus: is not a field of a record"),
]


@pytest.mark.parametrize(("field", "value", "said"), RULES, ids=[f"{f}={v!r:.20}" for f, v, _ in RULES])
def test_every_rule_names_file_and_field(field: str, value: Any, said: str, tmp_path: Path) -> None:
    raw = factory.set_field(make(), field, value)
    with pytest.raises(RecordError) as caught:
        parse(raw, "some/file.json")
    assert any(said in f"{p.field}: {p.message}" for p in caught.value.problems), str(caught.value)
    assert str(caught.value).startswith("some/file.json: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("block", ["run_id", "method", "task", "overhead", "environment", "provenance", "protocol"])
def test_missing_block(block: str) -> None:
    raw = make()
    del raw[block]
    with pytest.raises(RecordError, match=f"{block}: is missing"):
        parse(raw)


def test_failed_record_rules() -> None:
    failed = make(status="diverged")
    for field, value, said in [
        ("error", None, "error: missing although status is diverged"),
        ("metrics", make()["metrics"], "metrics: must be null when status is diverged"),
        ("deploy", make()["deploy"], "deploy: must be null when status is diverged"),
        ("error.message", "x" * 2001, "error.message"),
    ]:
        with pytest.raises(RecordError) as caught:
            parse(factory.set_field(copy.deepcopy(failed), field, value))
        assert said in str(caught.value)


def test_curve_length() -> None:
    point = make()["curve"][0]
    parse(make(curve=[point] * 60))
    with pytest.raises(RecordError, match="curve: "):
        parse(make(curve=[point] * 61))


def test_projector_is_declared() -> None:
    record = make(deploy__equals_plain=False, method__needs={"changes_student": True})
    assert parse(record).deploy is not None


def test_two_teachers_of_one_role() -> None:
    teacher = make()["models"]["teachers"][0]
    with pytest.raises(RecordError, match=r"models\.teachers: a role is named twice"):
        parse(make(models__teachers=[teacher, teacher]))


BROKEN: list[tuple[str, bytes, str]] = [
    ("truncated", b'{"schema_version": 1, "run_id": "ab', "is not whole JSON"),
    ("empty", b"", "is not whole JSON"),
    ("junk", b"\x00\x01 hello", "is not whole JSON"),
    ("not utf-8", b'{"a": "\xff"}', "is not UTF-8"),
    ("a list", b"[1]", "holds no JSON object"),
    ("NaN", b'{"schema_version": 1, "seed": NaN}', "holds NaN"),
    ("-Infinity", b'{"schema_version": 1, "seed": -Infinity}', "holds -Infinity"),
    ("deep", b'{"a": ' + b"[" * 100_000, "is not whole JSON"),
    ("huge number", b'{"schema_version": ' + b"9" * 10_000 + b"}", "is not whole JSON"),
    ("half a character", b'{"a": "\\ud800"}', "is not whole JSON"),
    ("no version", b"{}", "schema_version: must be an integer"),
    ("newer", b'{"schema_version": 2}', "schema_version: 2 is newer than 1, which this kdbench reads; upgrade kdbench"),
    ("older", b'{"schema_version": -1}', "schema_version: -1 is too old"),
    ("too large", b" " * 1_000_001, "larger than 1000000 bytes"),
]


@pytest.mark.parametrize(("content", "said"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_broken_files(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / f"{'0' * 32}.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert check_file(path)


def test_infinite_numbers_in_file(tmp_path: Path) -> None:
    for old, new, field in [('"top1": 71.5', '"top1": 1e999', "metrics.last.top1"), ("4.0", "1e999", "method.params")]:
        raw = make()
        path = tmp_path / f"{raw['run_id']}.json"
        path.write_text(json.dumps(raw).replace(old, new, 1))
        with pytest.raises(RecordError, match=field):
            load(path)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be read"):
        load(tmp_path / "missing.json")
    with pytest.raises(RecordError, match="cannot be read"):
        load(tmp_path)


def test_file_name_is_run_id(tmp_path: Path) -> None:
    raw = make()
    path = _file(tmp_path, raw).rename(tmp_path / f"{'0' * 32}.json")
    with pytest.raises(RecordError, match=rf"run_id: the file must be named {raw['run_id']}\.json"):
        load(path)


def test_nul_character() -> None:
    with pytest.raises(RecordError, match=r"provenance\.command: holds a NUL character"):
        parse(make(provenance__command="a\0b"))
    assert parse(make(provenance__command="a\\u0000b")).provenance.command == "a\\u0000b"


def test_dump_writes_nothing_it_could_not_read(tmp_path: Path) -> None:
    record = parse(make())
    leaky = record.model_copy(update={"provenance": record.provenance.model_copy(update={"command": "x /home/me/a"})})
    with pytest.raises(RecordError, match=r"provenance\.command: holds an absolute path"):
        dump(leaky, tmp_path)
    long = {f"k{number}": "x" * 1900 for number in range(600)}
    large = record.model_copy(update={"method": record.method.model_copy(update={"params": long})})
    with pytest.raises(RecordError, match="would be larger than 1000000 bytes"):
        dump(large, tmp_path)
    assert list(tmp_path.iterdir()) == []


LEAKS = [
    ("/home/alice/data", "an absolute path"),
    ("data.root=/mnt/disk1/set", "an absolute path"),
    ("No such file: '/tmp/x'", "an absolute path"),
    ("/root", "an absolute path"),
    ("C:\\Users\\alice\\x", "an absolute path"),
    ("\\\\server\\share\\x", "an absolute path"),
    ("file:///data/x", "an absolute path"),
    ("alice@example.org", "an e-mail address"),
    ("alice@node17:~/x", "an e-mail address or login"),
    ("https://alice:secret@example.org/x", "login"),
    ("http://example.org", "a link that is not https"),
    ("10.1.2.3", "an IP address"),
    ("tcp connect 192.168.0.7:29500 refused", "an IP address"),
    ("https://10.0.0.1/x", "an IP address"),
    ("fe80::1ff:fe23:4567:890a", "an IP address"),
    ("gpu-3.cluster.internal", "a host name"),
    ("node.cs.example.edu", "a host name"),
    ("ip-10-0-3-7", "a host name"),
]
HARMLESS = [
    "kdbench evaluate --method plain@reviewkd --task digits/few-shot --seeds 0-4",
    "https://arxiv.org/abs/1503.02531",
    "https://github.com/a/b/blob/main/x.py#L1",
    "doi 10.1000/182",
    "aten::add", "cuda:NVIDIA-H100/bf16/x1", "5/10 samples/s", "2026-01-02T03:04:05.678Z", "torch 2.15.0+cu126",
    "pair.student.net=resnet8x4", "and/or", "12:30:45", "1/2/3", "<script>alert(1)</script>", "=cmd|' /C calc'!A0",
    "\u202egnp.exe", "535.104.05", "a ratio of 3:1", "::",
]  # fmt: skip


@pytest.mark.parametrize(("text", "what"), LEAKS)
def test_leaks_are_found_and_scrubbed(text: str, what: str) -> None:
    found = privacy_problems({"error": {"message": f"it said {text}"}})
    assert len(found) == 1
    assert found[0].startswith("error.message: holds ")
    assert what in found[0]
    assert privacy_problems({"provenance": {"config": {text: 1}}}), "keys are scanned too"
    cleaned = scrub(f"it said {text} and stopped")
    assert privacy_problems({"message": cleaned}) == []
    assert cleaned.startswith("it said ")
    assert cleaned.endswith(" and stopped")
    with pytest.raises(RecordError, match=r"provenance\.command: holds"):
        parse(make(provenance__command=f"kdbench {text}"))


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_stays(text: str) -> None:
    assert privacy_problems({"x": text}) == []
    assert scrub(text) == "".join(letter for letter in text if letter.isprintable())


def test_versions_of_four_parts_only_in_environment() -> None:
    assert parse(make(environment__cudnn="9.1.0.70", environment__packages={"nvidia-cudnn-cu12": "9.1.0.70"}))
    with pytest.raises(RecordError, match=r"environment\.cpu: holds an IP address"):
        parse(make(environment__cpu="9.1.0.70"))


def test_scrub_takes_out_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "machine42")
    monkeypatch.setattr("getpass.getuser", lambda: "alice")
    text = scrub('File "/opt/env/lib/loop.py", line 3, on machine42 as alice: malice')
    assert text == 'File "loop.py", line 3, on [host] as [user]: malice'
    assert len(scrub("x" * 5000)) == 2000
    assert records.scrub_values({"a": ["see /opt/x/y.py", 1]}) == {"a": ["see y.py", 1]}


def test_upgrade_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def rename_machine(raw: dict[str, Any]) -> dict[str, Any]:
        return {**{k: v for k, v in raw.items() if k != "machine"}, "environment": raw["machine"]}

    old = make()
    old["schema_version"], old["machine"] = 0, old.pop("environment")
    path = _file(tmp_path, old)
    with pytest.raises(RecordError, match="schema_version: 0 is too old"):
        load(path)
    monkeypatch.setitem(records.UPGRADES, 0, rename_machine)
    record = load(path)
    assert record.schema_version == 1
    assert record.environment.torch == "2.15.0"


def test_json_schema() -> None:
    schema = records.json_schema()
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["additionalProperties"] is False
    assert {"run_id", "overhead", "provenance"} <= set(schema["required"])
    json.dumps(schema)


def test_needs_are_the_contracts() -> None:
    from dataclasses import fields

    from kdbench.contract import Needs

    assert set(factory.NEEDS) <= {field.name for field in fields(Needs)}


def test_ledger_lines_are_the_contracts() -> None:
    from typing import get_args

    from kdbench.base.fields import Ledger
    from kdbench.contract import Stage

    # What no stage of a method is: a search before it, and training that only measures.
    assert all(
        f"``{line}``" in (Stage.__doc__ or "") for line in set(get_args(Ledger)) - {"hparam_search", "evaluation"}
    )


def test_import_is_cheap() -> None:
    program = "import sys, kdbench.records.files, kdbench.records.validate; print({'torch', 'duckdb'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_side_files(tmp_path: Path) -> None:
    raw = make()
    _file(tmp_path, raw)
    side = records.SideFile.model_validate_json(
        json.dumps(
            {
                "schema_version": 1, "run_id": raw["run_id"],
                "verifications": [
                    {"level": 2, "by": "maintainers", "date": "2026-02-01T00:00:00Z", "verdict": "passed"}
                ],
                "withdrawn": {"date": "2026-02-02T00:00:00Z", "reason": "wrong split"},
            }
        )
    )  # fmt: skip
    path = records.dump_side(side, tmp_path / records.SIDE_FOLDER)
    assert records.load_side(path) == side
    assert check_folder(tmp_path) == []
    path.write_text(path.read_text().replace('"level": 2', '"level": 7'))
    assert any("verifications.0.level" in str(p) for p in check_folder(tmp_path))
    path.unlink()
    lone = side.model_copy(update={"run_id": "0" * 32})
    records.dump_side(lone, tmp_path / records.SIDE_FOLDER)
    assert any("no such record" in p.message for p in check_folder(tmp_path))


def test_dump_to_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        dump(parse(make()), tmp_path / "file" / "records")
    assert os.listdir(tmp_path) == ["file"]


def test_options_that_do_not_go_together_are_a_problem_of_protocol(make_record):
    raw = make_record()
    raw["protocol"] |= {"cuda_graphs": True, "fused": False}
    with pytest.raises(RecordError) as error:
        parse(raw)
    (problem,) = error.value.problems
    assert problem.field == "protocol"
    assert problem.message.startswith("cuda_graphs replays the update too, which must be fused")


def test_a_teacher_in_full_precision_beside_students_in_half_is_a_class_of_its_own(make_record):
    raw = make_record(device_class="cpu/bf16/x1/teacher-fp32", overhead={"mode": "off"})
    raw["protocol"] |= {"amp": "bf16", "teacher_dtype": "fp32"}
    assert parse(raw).ran_on.options == ("teacher-fp32",)
