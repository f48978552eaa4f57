"""Building the board of 10,000 records. Run by name: ``pytest tests/bench_site.py -s``."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
import site_samples as samples

METHODS, TASKS, SEEDS = 50, 40, 5


def write_many(folder: Path, methods: int = METHODS, tasks: int = TASKS, seeds: int = SEEDS) -> int:
    """Valid records of ``methods`` x ``tasks`` x ``seeds``, written fast; a curve of 40 points and 60 packages each."""
    raw = samples.record("kd", "a", 0, 70.0)
    point = raw["curve"][0]
    raw["curve"] = [{**point, "epoch": e, "step": 10 * e, "train_loss": 2.0 / (e + 1)} for e in range(40)]
    raw["environment"]["packages"] = {f"package-{i}": f"1.{i}.0" for i in range(60)}
    folder.mkdir(parents=True)
    count = 0
    for m in range(methods):
        method = "kd" if m == 0 else "plain" if m == 1 else f"method-{m}"
        for t in range(tasks):
            measured = samples.run_id(m, t, 0)
            for seed in range(seeds):
                place = m * 3 + t
                raw["run_id"] = samples.run_id(m, t, seed)
                raw["method"]["name"], raw["seed"] = method, seed
                raw["task"]["name"], raw["task"]["suite"] = f"many/t{t}", f"suite-{t // 8}"
                raw["overhead"]["measured_by"] = measured
                raw["metrics"]["last"]["top1"] = 60 + m / 10 + t / 20 + (seed * 7 + place) % 5 / 10
                raw["spec_hash"] = f"{m * 1000 + t:064x}"
                (folder / f"{raw['run_id']}.json").write_text(json.dumps(raw))
                count += 1
    return count


BUILD = """
import resource, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import site_samples as samples
known = samples.catalogue("kd", "plain", *(f"method-{m}" for m in range(2, int(sys.argv[4]))))
start = time.process_time()
report = samples.build(Path(sys.argv[2]), Path(sys.argv[3]), built_at=samples.BUILT, catalogue=known)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(report.records, report.pages, round(report.seconds, 1), round(time.process_time() - start, 1), round(peak))
"""


@pytest.mark.timeout(900)
def test_ten_thousand_records(tmp_path: Path) -> None:
    """Under 60 s of processor time and 1 GB; the pages stay within their budget."""
    count = write_many(tmp_path / "records")
    support, site = Path(samples.__file__).parent, tmp_path / "site"
    arguments = [str(support), str(tmp_path / "records"), str(site), str(METHODS)]
    command = [sys.executable, "-c", BUILD, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    records, pages, wall, busy, peak = map(float, done.stdout.split())
    print(f"\n{records:.0f} records, {pages:.0f} pages: {wall} s, processor {busy} s, peak {peak} MB")
    assert records == count
    assert busy < 60
    assert peak < 1000
    sizes = {path.relative_to(site).as_posix(): len(gzip.compress(path.read_bytes())) for path in site.rglob("*.html")}
    print(sorted(sizes.items(), key=lambda one: -one[1])[:6])
    assert max(sizes.values()) <= 290_000  # style sheet and script come to 10 kB
    assert sizes["index.html"] <= 140_000
