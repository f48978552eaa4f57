"""The index's tables, its views and the statements that fill them from records. SQL groups; statistics are Python's.

Aggregates run over ordered lists, never over rows in arrival order, so that the same records give the same digits.
"""

from __future__ import annotations

import json
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from kdbench.base.fields import Part
from kdbench.records.schema.overhead import Energy, Measured

STORE_VERSION = 6
"""Bumped with any change below; an index of another version is rebuilt from the records."""

_TYPES = {bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE", str: "VARCHAR"}


def _sql_type(annotation: Any) -> str | None:
    """The column type of a field that holds one value, or may be null; None of lists and blocks."""
    if get_origin(annotation) is Annotated:
        return _sql_type(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return _TYPES[type(get_args(annotation)[0])]
    if isinstance(annotation, UnionType) or get_origin(annotation) is Union:
        kinds = {_sql_type(one) for one in get_args(annotation) if one is not NoneType}
        return kinds.pop() if len(kinds) == 1 else None
    return _TYPES.get(annotation)


def _columns_of(block: type[Part]) -> dict[str, str]:
    """Those fields of a block that hold one value, with their column type."""
    typed = {name: _sql_type(field.annotation) for name, field in block.model_fields.items()}
    return {name: kind for name, kind in typed.items() if kind is not None}


_OVERHEAD = _columns_of(Measured)
_ENERGY = _columns_of(Energy)
MEASURED = frozenset(_OVERHEAD)
"""Columns of ``overhead`` that follow from the block's fields: an index without one of them is an older one."""
_STAGE = {
    "name": "VARCHAR", "ledger": "VARCHAR", "device_h": "DOUBLE", "steps": "BIGINT", "flops": "DOUBLE",
    "energy_kwh": "DOUBLE", "basis": "VARCHAR", "artefact_sha256": "VARCHAR", "reusable": "BOOLEAN",
}  # fmt: skip
_DEPLOY = {
    "params": "BIGINT", "gflops": "DOUBLE", "latency_ms_b1": "DOUBLE", "latency_ms_b128": "DOUBLE",
    "size_mib": "DOUBLE", "equals_plain": "BOOLEAN",
}  # fmt: skip
_ENVIRONMENT = {
    "os": "VARCHAR", "python": "VARCHAR", "torch": "VARCHAR", "cuda": "VARCHAR", "cudnn": "VARCHAR",
    "driver": "VARCHAR", "cpu": "VARCHAR", "cores": "INTEGER", "threads": "INTEGER", "ram_gib": "DOUBLE",
    "packages_sha256": "VARCHAR",
}  # fmt: skip
_GPU = {"name": "VARCHAR", "count": "INTEGER", "mem_mib": "DOUBLE", "power_limit_w": "DOUBLE", "mig": "BOOLEAN"}
_TEACHER = {"role": "VARCHAR", "arch": "VARCHAR", "weights_sha256": "VARCHAR", "val_metric": "DOUBLE"}
_COLUMNS = {  # column of `runs`: its type and the path it is read from
    "run_id": ("VARCHAR", "run_id"),
    "spec_hash": ("VARCHAR", "spec_hash"),
    "engine_version": ("INTEGER", "engine_version"),
    "status": ("VARCHAR", "status"),
    "custom": ("BOOLEAN", "custom"),
    "own_protocol": ("BOOLEAN", "own_protocol"),
    "smoke": ("BOOLEAN", "smoke"),
    "card": ("VARCHAR", "method.name"),
    "variant": ("VARCHAR", "method.variant"),
    "adapter_version": ("VARCHAR", "method.adapter_version"),
    "params_source": ("VARCHAR", "method.params_source"),
    "task": ("VARCHAR", "task.name"),
    "task_version": ("INTEGER", "task.version"),
    "kind": ("VARCHAR", "task.kind"),
    "suite": ("VARCHAR", "task.suite"),
    "ranked": ("BOOLEAN", "task.ranked"),
    "baseline": ("VARCHAR", "task.baseline"),
    "metric": ("VARCHAR", "task.metric_primary"),
    "higher_is_better": ("BOOLEAN", "task.higher_is_better"),
    "unit": ("VARCHAR", "task.unit"),
    "device_class": ("VARCHAR", "device_class"),
    "student": ("VARCHAR", "models.student.arch"),
    "batch": ("BIGINT", "protocol.batch"),
    "epochs": ("BIGINT", "protocol.epochs"),
    "selection": ("VARCHAR", "protocol.selection"),
    "seed": ("BIGINT", "seed"),
    "test_items": ("BIGINT", "metrics.test_items"),
    "matched_method": ("VARCHAR", "compute_match.method"),
    "git_commit": ("VARCHAR", "provenance.git_commit"),
    "dirty": ("BOOLEAN", "provenance.dirty"),
    "submitter": ("VARCHAR", "provenance.submitter"),
}


def _declared(columns: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in columns.items())


def _structure() -> str:
    """What is read of a record, for ``from_json``: declared, never inferred."""
    tree: dict[str, object] = {}
    for kind, path in _COLUMNS.values():
        at = tree
        *blocks, leaf = path.split(".")
        for block in blocks:
            at = at.setdefault(block, {})  # type: ignore[assignment]
        at[leaf] = kind
    tree["created_at"] = tree["finished_at"] = "TIMESTAMP"
    tree["error"] = {"type": "VARCHAR", "message": "VARCHAR"}
    tree["metrics"] |= {"last": "MAP(VARCHAR, DOUBLE)", "best": "MAP(VARCHAR, DOUBLE)"}  # type: ignore[operator]
    tree["models"] |= {"teachers": [_TEACHER], "ensemble": {"val_metric": "DOUBLE"}}  # type: ignore[operator]
    tree["overhead"] = {**_OVERHEAD, "ci95": ["DOUBLE"], "energy": _ENERGY}
    tree["stages"] = [_STAGE]
    tree["deploy"] = _DEPLOY
    tree["environment"] = {**_ENVIRONMENT, "gpu": _GPU}
    return json.dumps(tree)


TABLES = f"""
CREATE TABLE schema_meta(version INTEGER NOT NULL, kdbench VARCHAR NOT NULL, built_at TIMESTAMP NOT NULL);
CREATE TABLE sources(kind VARCHAR, run_id VARCHAR, size BIGINT, mtime_ns BIGINT, sha256 VARCHAR,
    PRIMARY KEY(kind, run_id));
CREATE TABLE runs(
    {_declared({name: kind for name, (kind, _) in _COLUMNS.items()})},
    method VARCHAR NOT NULL, device VARCHAR, dtype VARCHAR, teacher VARCHAR, teacher_sha256 VARCHAR NOT NULL,
    teacher_metric DOUBLE, score DOUBLE CHECK(isfinite(score)), error VARCHAR, created_at TIMESTAMP NOT NULL,
    finished_at TIMESTAMP NOT NULL, record_sha256 VARCHAR NOT NULL,
    protocol VARCHAR NOT NULL, student_protocol VARCHAR NOT NULL, own_params BOOLEAN NOT NULL,
    identity VARCHAR, student_code VARCHAR NOT NULL, data VARCHAR, data_sha256 VARCHAR, test_sha256 VARCHAR,
    record JSON NOT NULL USING COMPRESSION zstd,  -- the default spends most of an ingest on compressing it worse
    PRIMARY KEY(run_id));
CREATE TABLE metrics(run_id VARCHAR, selection VARCHAR, name VARCHAR, value DOUBLE NOT NULL CHECK(isfinite(value)),
    PRIMARY KEY(run_id, selection, name));
CREATE TABLE overhead(run_id VARCHAR PRIMARY KEY, {_declared(_OVERHEAD)}, lo DOUBLE, hi DOUBLE,
    {_declared({f"energy_{name}": kind for name, kind in _ENERGY.items()})});
CREATE TABLE stages(run_id VARCHAR, ord INTEGER, {_declared(_STAGE)}, PRIMARY KEY(run_id, ord));
CREATE TABLE deploy(run_id VARCHAR PRIMARY KEY, {_declared(_DEPLOY)});
CREATE TABLE environment(run_id VARCHAR PRIMARY KEY, {_declared(_ENVIRONMENT)},
    {_declared({f"gpu_{name}": kind for name, kind in _GPU.items()})});
CREATE TABLE verifications(run_id VARCHAR, ord INTEGER, level INTEGER, "by" VARCHAR, date TIMESTAMP, run_id_ref VARCHAR,
    delta DOUBLE, verdict VARCHAR, note VARCHAR);
CREATE TABLE withdrawn(run_id VARCHAR, date TIMESTAMP, reason VARCHAR);
"""

COMPARABLE = """
    b.seed = r.seed AND b.task = r.task AND b.task_version = r.task_version AND b.device_class = r.device_class
    AND b.engine_version = r.engine_version AND b.smoke = r.smoke AND b.student_code = r.student_code
    AND b.data IS NOT DISTINCT FROM r.data AND b.test_sha256 IS NOT DISTINCT FROM r.test_sha256
    AND (b.data_sha256 = r.data_sha256 OR b.data_sha256 IS NULL OR r.data_sha256 IS NULL)
    AND ((b.teacher_sha256 = r.teacher_sha256 AND b.protocol = r.protocol)
         OR ((b.teacher_sha256 = '' OR r.teacher_sha256 = '') AND b.student_protocol = r.student_protocol))"""
"""Which two runs, ``b`` and ``r``, a difference is taken between: one seed of one protocol (data, pair, train, score)
on the same rows, seen alike. Old records keep no digest of how rows are seen.

Of a run that reads no teacher the teachers of the pair decide nothing.
"""

VIEWS = f"""
CREATE VIEW v_runs AS
SELECT r.* EXCLUDE (released), coalesce(v.level, 0) AS level, coalesce(v.failed, false) AS verification_failed,
       w.run_id IS NOT NULL AS is_withdrawn,
       -- An old record keeps no identity: it is of the released code of its versions, and joins those that say so if
       -- they agree with one another.
       coalesce(r.identity, CASE WHEN min(r.released) OVER same = max(r.released) OVER same
                                 THEN min(r.released) OVER same END, '') AS known
FROM (SELECT *, CASE WHEN NOT contains(identity, '+') THEN identity END AS released FROM runs) r
LEFT JOIN (SELECT run_id, coalesce(max(level) FILTER (verdict = 'passed'), 0) AS level,
                  bool_or(verdict = 'failed') AS failed
           FROM verifications GROUP BY run_id) v USING (run_id)
LEFT JOIN withdrawn w USING (run_id)
WINDOW same AS (PARTITION BY method, task, task_version, spec_hash, engine_version, adapter_version, data, test_sha256);

CREATE VIEW methods AS
SELECT method AS name, arg_max(card, (created_at, run_id)) AS card, arg_max(variant, (created_at, run_id)) AS variant,
       bool_or(own_protocol) AS own_protocol, arg_max(record->>'$.method.paper.title', (created_at, run_id)) AS title,
       arg_max(record->>'$.method.paper.url', (created_at, run_id)) AS url
FROM runs WHERE NOT custom GROUP BY method;

CREATE VIEW tasks AS
SELECT task AS name, task_version AS version, arg_max(kind, (created_at, run_id)) AS kind,
       arg_max(suite, (created_at, run_id)) AS suite, arg_max(ranked, (created_at, run_id)) AS ranked,
       arg_max(baseline, (created_at, run_id)) AS baseline, arg_max(metric, (created_at, run_id)) AS metric,
       arg_max(higher_is_better, (created_at, run_id)) AS higher_is_better, arg_max(unit, (created_at, run_id)) AS unit,
       task_version = max(task_version) OVER (PARTITION BY task) AS newest
FROM runs WHERE NOT custom GROUP BY task, task_version;

CREATE VIEW curve AS
SELECT run_id, (p->>'epoch')::BIGINT AS epoch, (p->>'step')::BIGINT AS step, p->'losses' AS losses, p->'val' AS val,
       (p->>'train_loss')::DOUBLE AS train_loss, (p->>'lr')::DOUBLE AS lr, (p->>'elapsed_s')::DOUBLE AS elapsed_s
FROM (SELECT run_id, unnest((record->'curve')::JSON[]) AS p FROM runs);

CREATE VIEW blocks AS
SELECT run_id, phase, build, unnest(range(len(pairs))) AS i, unnest(pairs)[1] AS plain_ms, unnest(pairs)[2] AS method_ms
FROM (
    SELECT run_id, phase, unnest(range(len(builds))) AS build, unnest(builds) AS pairs
    FROM (
        SELECT run_id, NULL AS phase, (record->'$.overhead.builds')::DOUBLE[][][] AS builds FROM runs
        UNION ALL
        SELECT run_id, p->>'name', (p->'builds')::DOUBLE[][][]
        FROM (SELECT run_id, unnest((record->'$.overhead.phases')::JSON[]) AS p FROM runs)))
WHERE run_id IN (SELECT run_id FROM overhead WHERE measured_by = run_id);

-- One run a seed. A repeat never replaces the first result: that would be choosing.
CREATE VIEW v_counted AS
SELECT * FROM v_runs WHERE status = 'ok' AND NOT is_withdrawn
QUALIFY row_number() OVER (
    PARTITION BY method, task, task_version, device_class, spec_hash, engine_version, adapter_version, known, data,
                 test_sha256, teacher_sha256, custom, smoke, seed
    ORDER BY created_at, run_id) = 1;

CREATE VIEW v_cell AS
SELECT *, list_avg(scores) AS mean, CASE WHEN n > 1 THEN list_stddev_samp(scores) END AS sd,
       row_number() OVER (
           PARTITION BY method, task, task_version, device_class, custom, smoke,
                        CASE WHEN custom THEN spec_hash || known END
           ORDER BY ranked DESC, engine_version DESC, string_split(adapter_version, '.')::INTEGER[] DESC, known_at DESC,
                    n DESC, last_at DESC, spec_hash, teacher_sha256) = 1 AS current
FROM (SELECT *, max(last_at) OVER (
          PARTITION BY method, task, task_version, device_class, custom, smoke, known, data, test_sha256) AS known_at
FROM (
    SELECT method, any_value(card) AS card, task, task_version, any_value(suite) AS suite, any_value(kind) AS kind,
           bool_and(ranked) AS ranked, any_value(baseline) AS baseline, any_value(metric) AS metric,
           any_value(higher_is_better) AS higher_is_better, any_value(unit) AS unit, device_class, spec_hash,
           engine_version, adapter_version, known, data, test_sha256, any_value(data_sha256) AS data_sha256,
           teacher_sha256, any_value(teacher) AS teacher,
           any_value(student) AS student,
           custom, smoke, bool_or(own_protocol) AS own_protocol, any_value(params_source) AS params_source,
           any_value(matched_method) AS matched_method, any_value(protocol) AS protocol,
           any_value(student_protocol) AS student_protocol,
           any_value(student_code) AS student_code, count(*) AS n, list(seed ORDER BY seed) AS seeds,
           list(score ORDER BY seed) AS scores, list(run_id ORDER BY seed) AS run_ids, min(level) AS level,
           bool_or(verification_failed) AS verification_failed, max(created_at) AS last_at,
           first(run_id ORDER BY mode = 'full' DESC, measured_by = run_id DESC, created_at, run_id)
               FILTER (mode IS NOT NULL) AS overhead_run_id
    FROM v_counted LEFT JOIN (SELECT run_id, mode, measured_by FROM overhead) USING (run_id)
    GROUP BY method, task, task_version, device_class, spec_hash, engine_version, adapter_version, known, data,
             test_sha256, teacher_sha256, custom, smoke));

-- Seed-paired difference to the task's baseline and to plain, by the rule of COMPARABLE. An overridden protocol has its
-- own reference: one that overrides the same and no hyper-parameter.
CREATE VIEW v_delta AS
SELECT r.run_id, r.method, r.task, r.task_version, r.device_class, r.spec_hash, r.adapter_version, r.teacher_sha256,
       r.engine_version, r.custom, r.smoke, r.seed, r.reference, r.reference = r.baseline AS is_baseline,
       b.run_id AS reference_run_id, r.score, b.score AS reference_score, r.score - b.score AS delta,
       CASE WHEN r.higher_is_better THEN r.score - b.score ELSE b.score - r.score END AS gain
FROM (SELECT *, unnest(list_distinct([baseline, 'plain'])) AS reference FROM v_counted) r
JOIN v_counted b ON b.method = r.reference AND {COMPARABLE} AND NOT b.own_protocol
    AND (NOT b.custom OR (r.custom AND NOT b.own_params AND (b.teacher_sha256 = '' OR b.protocol = r.protocol)))
QUALIFY row_number() OVER (
    PARTITION BY r.run_id, r.reference
    ORDER BY b.protocol = r.protocol DESC, b.custom, string_split(b.adapter_version, '.')::INTEGER[] DESC,
             b.created_at, b.run_id) = 1;

CREATE VIEW v_coverage AS
SELECT method, task, task_version, device_class, count(DISTINCT seed) FILTER (status = 'ok' AND NOT is_withdrawn) AS ok,
       count(*) FILTER (status IN ('failed', 'timeout', 'oom', 'diverged') AND NOT is_withdrawn) AS failed,
       count(*) FILTER (status = 'not_applicable' AND NOT is_withdrawn) AS not_applicable,
       count(*) FILTER (is_withdrawn) AS withdrawn,
       arg_max(error, (created_at, run_id)) FILTER (status <> 'ok' AND NOT is_withdrawn) AS last_error
FROM v_runs WHERE NOT custom AND NOT smoke GROUP BY method, task, task_version, device_class;

CREATE VIEW v_leaderboard AS
SELECT c.*, t.newest, d.n AS n_paired, d.mean_gain, p.mean_gain AS mean_gain_plain, o.* EXCLUDE (run_id)
FROM v_cell c
JOIN tasks t ON t.name = c.task AND t.version = c.task_version
LEFT JOIN overhead o ON o.run_id = c.overhead_run_id
LEFT JOIN (SELECT spec_hash, adapter_version, teacher_sha256, device_class, smoke, is_baseline, count(*) AS n,
                  list_avg(list(gain ORDER BY seed)) AS mean_gain
           FROM v_delta WHERE NOT custom GROUP BY ALL) d
    ON (d.spec_hash, d.adapter_version, d.teacher_sha256, d.device_class, d.smoke, d.is_baseline)
     = (c.spec_hash, c.adapter_version, c.teacher_sha256, c.device_class, c.smoke, true)
LEFT JOIN (SELECT spec_hash, adapter_version, teacher_sha256, device_class, smoke,
                  list_avg(list(gain ORDER BY seed)) AS mean_gain
           FROM v_delta WHERE NOT custom AND reference = 'plain' GROUP BY ALL) p
    ON (p.spec_hash, p.adapter_version, p.teacher_sha256, p.device_class, p.smoke)
     = (c.spec_hash, c.adapter_version, c.teacher_sha256, c.device_class, c.smoke)
WHERE c.current AND c.ranked AND NOT c.custom AND NOT c.smoke;
"""

_SPOOLED = (
    "read_json(?, format='newline_delimited', maximum_object_size=4194304, columns="
    "{sha256: 'VARCHAR', size: 'BIGINT', mtime_ns: 'BIGINT', device: 'VARCHAR', dtype: 'VARCHAR', protocol: 'VARCHAR', "
    "student_protocol: 'VARCHAR', "
    "own_params: 'BOOLEAN', identity: 'VARCHAR', student_code: 'VARCHAR', data: 'VARCHAR', data_sha256: 'VARCHAR', "
    "test_sha256: 'VARCHAR', doc: 'JSON'})"
)
_NAMED = ", ".join(f"r.{path} AS {name}" for name, (_, path) in _COLUMNS.items())


def _fields(prefix: str, columns: dict[str, str], rename: str = "") -> str:
    return ", ".join(f"{prefix}.{name} AS {rename}{name}" for name in columns)


STAGE_RUNS = f"""
CREATE OR REPLACE TEMP TABLE staged AS
SELECT sha256, size, mtime_ns, device, dtype, protocol, student_protocol, own_params, identity, student_code, data,
       data_sha256, test_sha256, doc,
       from_json(doc, '{_structure()}') AS r FROM {_SPOOLED}
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
       sha256 AS record_sha256, protocol, student_protocol, own_params, identity,
       student_code, data, data_sha256, test_sha256, doc AS record
FROM staged;
INSERT INTO metrics
SELECT run_id, selection, entry.key, entry.value FROM (
    SELECT r.run_id AS run_id, 'last' AS selection, unnest(map_entries(r.metrics.last)) AS entry FROM staged
    UNION ALL SELECT r.run_id, 'best', unnest(map_entries(r.metrics.best)) FROM staged);
INSERT INTO overhead BY NAME
SELECT r.run_id AS run_id, {_fields("r.overhead", _OVERHEAD)}, r.overhead.ci95[1] AS lo, r.overhead.ci95[2] AS hi,
       {_fields("r.overhead.energy", _ENERGY, "energy_")}
FROM staged WHERE r.overhead.mode <> 'off';
INSERT INTO stages BY NAME
SELECT run_id, ord, {_fields("s", _STAGE)}
FROM (SELECT r.run_id AS run_id, unnest(range(len(r.stages))) AS ord, unnest(r.stages) AS s FROM staged);
INSERT INTO deploy BY NAME
SELECT r.run_id AS run_id, {_fields("r.deploy", _DEPLOY)} FROM staged WHERE r.deploy IS NOT NULL;
INSERT INTO environment BY NAME
SELECT r.run_id AS run_id, {_fields("r.environment", _ENVIRONMENT)},
       {_fields("r.environment.gpu", _GPU, "gpu_")} FROM staged;
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
