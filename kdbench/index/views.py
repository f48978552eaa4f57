"""The index's views: runs that count, cells, seed-paired differences, coverage. SQL groups; statistics are Python's.

Aggregates run over ordered lists, never over rows in arrival order, so that the same records give the same digits.
"""

COMPARABLE = """
    b.seed = r.seed AND b.ruleset = r.ruleset AND b.task = r.task AND b.task_version = r.task_version
    AND b.device_class = r.device_class AND b.engine_version = r.engine_version
    AND b.smoke = r.smoke AND b.student_code = r.student_code
    AND b.data IS NOT DISTINCT FROM r.data AND b.test_sha256 IS NOT DISTINCT FROM r.test_sha256
    AND (b.data_sha256 = r.data_sha256 OR b.data_sha256 IS NULL OR r.data_sha256 IS NULL)
    AND ((b.teacher_sha256 = r.teacher_sha256 AND b.protocol = r.protocol)
         OR ((b.teacher_sha256 = '' OR r.teacher_sha256 = '') AND b.student_protocol = r.student_protocol))"""
"""Which two runs, ``b`` and ``r``, a difference is taken between: one seed, ruleset and protocol (data, pair,
train, score) on the same rows, seen alike. Old records keep no digest of how rows are seen.

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

-- What a method's name stands for: of the newest engine, adapter and code on the task's rows one cell a teacher, for a
-- teacher that somebody else trained makes another result and no newer one.
CREATE VIEW v_cell AS
SELECT * EXCLUDE (newest), newest = {{'ranked': ranked, 'engine': engine_version, 'adapter': adapter_version,
                                     'known': known, 'data': data, 'test': test_sha256}}
       AND row_number() OVER (
           PARTITION BY method, ruleset, task, task_version, device_class, custom, smoke, ranked, engine_version,
                        adapter_version, known, data, test_sha256, teacher_sha256,
                        CASE WHEN custom THEN spec_hash END
           ORDER BY n DESC, last_at DESC, spec_hash) = 1 AS current
FROM (
SELECT *, list_avg(scores) AS mean, CASE WHEN n > 1 THEN list_stddev_samp(scores) END AS sd,
       first({{'ranked': ranked, 'engine': engine_version, 'adapter': adapter_version, 'known': known, 'data': data,
              'test': test_sha256}}) OVER (
           PARTITION BY method, ruleset, task, task_version, device_class, custom, smoke,
                        CASE WHEN custom THEN spec_hash || known END
           ORDER BY ranked DESC, engine_version DESC, string_split(adapter_version, '.')::INTEGER[] DESC, known_at DESC,
                    n DESC, last_at DESC, spec_hash, teacher_sha256) AS newest
FROM (SELECT *, max(last_at) OVER (
          PARTITION BY method, ruleset, task, task_version, device_class, custom, smoke, known, data,
                       test_sha256) AS known_at
FROM (
    SELECT method, ruleset, any_value(card) AS card, task, task_version, any_value(suite) AS suite,
           any_value(kind) AS kind, bool_and(ranked) AS ranked, any_value(baseline) AS baseline,
           any_value(metric) AS metric, any_value(higher_is_better) AS higher_is_better, any_value(unit) AS unit,
           device_class, spec_hash, engine_version, adapter_version, known, data, test_sha256,
           any_value(data_sha256) AS data_sha256,
           teacher_sha256, any_value(teacher) AS teacher,
           any_value(student) AS student,
           custom, smoke, bool_or(own_protocol) AS own_protocol, any_value(params_source) AS params_source,
           any_value(matched_method) AS matched_method, any_value(search_hours) AS search_hours,
           any_value(protocol) AS protocol,
           any_value(student_protocol) AS student_protocol,
           any_value(student_code) AS student_code, count(*) AS n, list(seed ORDER BY seed) AS seeds,
           list(score ORDER BY seed) AS scores, list(run_id ORDER BY seed) AS run_ids, min(level) AS level,
           bool_or(verification_failed) AS verification_failed, max(created_at) AS last_at,
           first(run_id ORDER BY mode = 'full' DESC, measured_by = run_id DESC, created_at, run_id)
               FILTER (mode IS NOT NULL) AS overhead_run_id
    FROM v_counted LEFT JOIN (SELECT run_id, mode, measured_by FROM overhead) USING (run_id)
    GROUP BY method, ruleset, task, task_version, device_class, spec_hash, engine_version, adapter_version, known, data,
             test_sha256, teacher_sha256, custom, smoke)));

-- Seed-paired difference to the task's baseline and to plain, by the rule of COMPARABLE. An overridden protocol has its
-- own reference: one that overrides the same and no hyper-parameter.
CREATE VIEW v_delta AS
SELECT r.run_id, r.method, r.ruleset, r.task, r.task_version, r.device_class, r.spec_hash, r.adapter_version,
       r.teacher_sha256, r.engine_version, r.custom, r.smoke, r.seed, r.reference,
       r.reference = r.baseline AS is_baseline,
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
SELECT method, ruleset, task, task_version, device_class,
       count(DISTINCT seed) FILTER (status = 'ok' AND NOT is_withdrawn) AS ok,
       count(*) FILTER (status IN ('failed', 'timeout', 'oom', 'diverged') AND NOT is_withdrawn) AS failed,
       count(*) FILTER (status = 'not_applicable' AND NOT is_withdrawn) AS not_applicable,
       count(*) FILTER (is_withdrawn) AS withdrawn,
       arg_max(error, (created_at, run_id)) FILTER (status <> 'ok' AND NOT is_withdrawn) AS last_error
FROM v_runs WHERE NOT custom AND NOT smoke GROUP BY method, ruleset, task, task_version, device_class;
"""
