"""The index's tables and the statements that fill them from records."""

from __future__ import annotations

import json

from kdbench.index.columns import DEPLOY, ENERGY, ENVIRONMENT, EXTERNAL, GPU, OVERHEAD, PATHS, RUNS, STAGE, structure

STORE_VERSION = 11
"""Bumped with any change here, in the columns or in the views; an index of another version is rebuilt from records."""


COUNTED = dict.fromkeys(("step_ratio", "lo", "hi", "step_ms", "plain_step_ms", "throughput_samples_s"), "DOUBLE")
"""Columns of ``overhead`` that follow from the builds that count (:mod:`kdbench.records.counted`)."""
_STATED = {name: kind for name, kind in OVERHEAD.items() if name not in COUNTED}


def _declared(columns: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in columns.items())


TABLES = f"""
CREATE TABLE schema_meta(version INTEGER NOT NULL, kdbench VARCHAR NOT NULL, built_at TIMESTAMP NOT NULL);
CREATE TABLE sources(kind VARCHAR, run_id VARCHAR, size BIGINT, mtime_ns BIGINT, sha256 VARCHAR,
    PRIMARY KEY(kind, run_id));
CREATE TABLE runs(
    {_declared(RUNS)},
    method VARCHAR NOT NULL, device VARCHAR, dtype VARCHAR, teacher VARCHAR, teacher_sha256 VARCHAR NOT NULL,
    teacher_metric DOUBLE, score DOUBLE CHECK(isfinite(score)), error VARCHAR, created_at TIMESTAMP NOT NULL,
    finished_at TIMESTAMP NOT NULL, record_sha256 VARCHAR NOT NULL,
    protocol VARCHAR NOT NULL, student_protocol VARCHAR NOT NULL, own_params BOOLEAN NOT NULL,
    ruleset VARCHAR NOT NULL,
    identity VARCHAR, student_code VARCHAR NOT NULL, data VARCHAR, data_sha256 VARCHAR, test_sha256 VARCHAR,
    record JSON NOT NULL USING COMPRESSION zstd,  -- the default spends most of an ingest on compressing it worse
    PRIMARY KEY(run_id));
CREATE TABLE metrics(run_id VARCHAR, selection VARCHAR, name VARCHAR, value DOUBLE NOT NULL CHECK(isfinite(value)),
    PRIMARY KEY(run_id, selection, name));
CREATE TABLE class_scores(run_id VARCHAR, class VARCHAR, value DOUBLE NOT NULL CHECK(isfinite(value)),
    PRIMARY KEY(run_id, class));
CREATE TABLE external(run_id VARCHAR, name VARCHAR, {_declared(EXTERNAL)}, PRIMARY KEY(run_id, name));
CREATE TABLE overhead(run_id VARCHAR PRIMARY KEY, {_declared(OVERHEAD)}, lo DOUBLE, hi DOUBLE,
    {_declared({f"energy_{name}": kind for name, kind in ENERGY.items()})});
CREATE TABLE stages(run_id VARCHAR, ord INTEGER, {_declared(STAGE)}, PRIMARY KEY(run_id, ord));
CREATE TABLE deploy(run_id VARCHAR PRIMARY KEY, {_declared(DEPLOY)});
CREATE TABLE environment(run_id VARCHAR PRIMARY KEY, {_declared(ENVIRONMENT)},
    {_declared({f"gpu_{name}": kind for name, kind in GPU.items()})});
CREATE TABLE verifications(run_id VARCHAR, ord INTEGER, level INTEGER, "by" VARCHAR, date TIMESTAMP, run_id_ref VARCHAR,
    delta DOUBLE, verdict VARCHAR, note VARCHAR);
CREATE TABLE withdrawn(run_id VARCHAR, date TIMESTAMP, reason VARCHAR);
"""

_SPOOLED = (
    "read_json(?, format='newline_delimited', maximum_object_size=4194304, columns="
    "{sha256: 'VARCHAR', size: 'BIGINT', mtime_ns: 'BIGINT', device: 'VARCHAR', dtype: 'VARCHAR', protocol: 'VARCHAR', "
    "student_protocol: 'VARCHAR', "
    "own_params: 'BOOLEAN', ruleset: 'VARCHAR', identity: 'VARCHAR', student_code: 'VARCHAR', data: 'VARCHAR', "
    f"data_sha256: 'VARCHAR', test_sha256: 'VARCHAR', counted: 'STRUCT({_declared(COUNTED)})', doc: 'JSON'}})"
)
_NAMED = ", ".join(f"r.{path} AS {name}" for name, path in PATHS.items())


def _fields(prefix: str, columns: dict[str, str], rename: str = "") -> str:
    return ", ".join(f"{prefix}.{name} AS {rename}{name}" for name in columns)


STAGE_RUNS = f"""
CREATE OR REPLACE TEMP TABLE staged AS
SELECT sha256, size, mtime_ns, device, dtype, protocol, student_protocol, own_params, ruleset, identity, student_code,
       data, data_sha256, test_sha256, counted, doc,
       from_json(doc, '{structure()}') AS r FROM {_SPOOLED}
"""

INSERT_RUNS = f"""
INSERT INTO runs BY NAME
SELECT {_NAMED}, coalesce(r.method.variant, r.method.name) AS method,
       device, dtype,
       array_to_string(list_transform(r.models.teachers, lambda t: t.arch), ' + ') AS teacher,
       array_to_string(list_transform(r.models.teachers, lambda t: coalesce(t.weights_sha256, '?')), '+')
           AS teacher_sha256,
       coalesce(r.models.ensemble.val_metric, r.models.teachers[1].val_metric) AS teacher_metric,
       CASE WHEN r.protocol.selection = 'best_on_val' THEN r.metrics.best ELSE r.metrics.last END[r.task.metric_primary]
           AS score,
       r.error.type || ': ' || r.error.message AS error, r.created_at AS created_at, r.finished_at AS finished_at,
       sha256 AS record_sha256, protocol, student_protocol, own_params, ruleset,
       identity, student_code, data, data_sha256, test_sha256, doc AS record
FROM staged;
INSERT INTO metrics
SELECT run_id, selection, entry.key, entry.value FROM (
    SELECT r.run_id AS run_id, 'last' AS selection, unnest(map_entries(r.metrics.last)) AS entry FROM staged
    UNION ALL SELECT r.run_id, 'best', unnest(map_entries(r.metrics.best)) FROM staged);
INSERT INTO class_scores
SELECT run_id, entry.key, entry.value FROM (
    SELECT r.run_id AS run_id, unnest(map_entries(r.metrics.classes)) AS entry FROM staged);
INSERT INTO external BY NAME
SELECT run_id, entry.key AS name, {_fields("entry.value", EXTERNAL)} FROM (
    SELECT r.run_id AS run_id, unnest(map_entries(r.metrics.external)) AS entry FROM staged);
INSERT INTO overhead BY NAME
SELECT r.run_id AS run_id, {_fields("r.overhead", _STATED)},
       {_fields("counted", COUNTED)},
       {_fields("r.overhead.energy", ENERGY, "energy_")}
FROM staged WHERE r.overhead.mode <> 'off';
INSERT INTO stages BY NAME
SELECT run_id, ord, {_fields("s", STAGE)}
FROM (SELECT r.run_id AS run_id, unnest(range(len(r.stages))) AS ord, unnest(r.stages) AS s FROM staged);
INSERT INTO deploy BY NAME
SELECT r.run_id AS run_id, {_fields("r.deploy", DEPLOY)} FROM staged WHERE r.deploy IS NOT NULL;
INSERT INTO environment BY NAME
SELECT r.run_id AS run_id, {_fields("r.environment", ENVIRONMENT)},
       {_fields("r.environment.gpu", GPU, "gpu_")} FROM staged;
INSERT INTO sources SELECT 'run', r.run_id, size, mtime_ns, sha256 FROM staged;
DROP TABLE staged;
"""

STAGE_SIDES = f"""
CREATE OR REPLACE TEMP TABLE staged AS
SELECT sha256, size, mtime_ns, from_json(doc, '{
    json.dumps(
        {
            "run_id": "VARCHAR",
            "verifications": [
                {
                    "level": "INTEGER",
                    "by": "VARCHAR",
                    "date": "TIMESTAMP",
                    "run_id_ref": "VARCHAR",
                    "delta": "DOUBLE",
                    "verdict": "VARCHAR",
                    "note": "VARCHAR",
                }
            ],
            "withdrawn": {"date": "TIMESTAMP", "reason": "VARCHAR"},
        }
    )
}') AS r FROM {_SPOOLED}
"""

INSERT_SIDES = """
DELETE FROM verifications WHERE run_id IN (SELECT r.run_id FROM staged);
DELETE FROM withdrawn WHERE run_id IN (SELECT r.run_id FROM staged);
INSERT INTO verifications BY NAME
SELECT run_id, ord, v.level AS level, v."by" AS "by", v.date AS date, v.run_id_ref AS run_id_ref, v.delta AS delta,
       v.verdict AS verdict, v.note AS note
FROM (SELECT r.run_id AS run_id, unnest(range(len(r.verifications))) AS ord, unnest(r.verifications) AS v FROM staged);
INSERT INTO withdrawn SELECT r.run_id, r.withdrawn.date, r.withdrawn.reason FROM staged WHERE r.withdrawn IS NOT NULL;
INSERT OR REPLACE INTO sources SELECT 'side', r.run_id, size, mtime_ns, sha256 FROM staged;
DROP TABLE staged;
"""
EXTERNAL_SCORES = """
SELECT r.task, r.task_version, e.name, e.about, e.run_id, e.value FROM external e JOIN runs r USING (run_id)
QUALIFY e.sha256 = arg_max(e.sha256, r.created_at) OVER (PARTITION BY r.task, r.task_version, e.name)
ORDER BY e.name, e.run_id
"""
"""Of sets that share a name those whose rows are the newest run's."""
