"""All that wants a GPU, in less than a quarter of an hour: ``python tests/on_a_gpu.py OUT --data DATA``.

In this order, as far as the time goes: the check-up; every method's step with CUDA itself looking for waits, and
replayed beside eager; step times beside the sum of their kernels; steps a second of several seeds in turns; a whole run
of kd for 240 epochs with all options.
What is left in OUT: ``summary.json`` (each part's command, seconds and exit code), ``log.txt``, ``benchmarks.json`` and
``records.tar.gz``. ``--rehearse`` goes the same way on a CPU, with tests that wait for a GPU skipped and a smoke run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TASK = "cifar100-resplit/resnet32x4-resnet8x4"
ALL_OPTIONS = (
    "engine.channels_last=true", "engine.fold_teacher=true", "engine.fused=true", "engine.compile=true",
    "engine.cuda_graphs=true", "engine.precision=bf16",
)  # fmt: skip
SKIPPED = "skipped"


@dataclass(frozen=True)
class Part:
    """One thing to do.

    Attributes:
        most_s: seconds it may take at most.
        command: what follows ``python``.
        lacks: why it cannot be done, "" where it can.
    """

    name: str
    most_s: float
    command: Sequence[str]
    lacks: str = ""


def parts(out: Path, data: Path | None, rehearse: bool) -> list[Part]:
    """What is done, in order."""
    tests = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
    several = () if rehearse else ("-n", "4")
    benchmarks = (f"--benchmark-json={out / 'benchmarks.json'}", "-s", "-n0")
    where = ("--device", "cpu", "--smoke") if rehearse else ("--device", "cuda")
    task = "digits/few-shot" if rehearse else TASK
    run = ("-m", "kdbench", "evaluate", "-m", "kd", "-t", task, "--seed", "0", "--overhead", "off", *where)
    given = () if data is None else ("--data", str(data))
    lacks = "" if rehearse or data is not None else "it needs CIFAR-100: name the folder with --data"
    return [
        Part("check-up", 60, ("-m", "kdbench", "doctor")),
        Part("waits", 150, (*tests, *several, "tests/engine/test_host_sync.py")),
        Part("replay", 150, (*tests, *several, "tests/engine/test_replay.py")),
        Part("kernels", 150, (*tests, *benchmarks, "tests/bench_engine_cuda.py", "-k", "kernels")),
        Part("seeds in turns", 60, (*tests, "-s", "-n0", "tests/bench_together.py", "-k", "steps_a_second")),
        Part("240 epochs", 600, (*run, *given, *(() if rehearse else ALL_OPTIONS)), lacks),
    ]


def done(part: Part, left_s: float, home: Path, log: Path) -> dict[str, object]:
    """What became of a part; its output goes to the log."""
    said = {"name": part.name, "command": ["python", *part.command]}
    if part.lacks or left_s < 5:
        return {**said, "outcome": SKIPPED, "why": part.lacks or "no time is left", "seconds": 0.0}
    begin = time.monotonic()
    environment = {**os.environ, "KDBENCH_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    with log.open("a") as file:
        print(f"\n== {part.name}", file=file, flush=True)
        try:
            code: int | None = subprocess.run(
                [sys.executable, *part.command], cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT,
                timeout=min(part.most_s, left_s), check=False,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            code = None
    outcome = "out of time" if code is None else "ok" if code == 0 else f"exit code {code}"
    return {**said, "outcome": outcome, "seconds": round(time.monotonic() - begin, 1)}


def main(words: Sequence[str] | None = None) -> int:
    """Does all parts; 0 where none failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("out", type=Path, help="folder for what is left")
    parser.add_argument("--data", type=Path, help="the data folder, for the run of 240 epochs")
    parser.add_argument("--minutes", type=float, default=14.0, help="time for everything")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU")
    given = parser.parse_args(words)
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    home, until = out.parent / f"{out.name}-home", time.monotonic() + 60 * given.minutes
    found = []
    for part in parts(out, given.data and given.data.resolve(), given.rehearse):
        found.append(done(part, until - time.monotonic(), home, out / "log.txt"))
        (out / "summary.json").write_text(json.dumps(found, indent=1))  # after each: this process may be ended too
        print(f"{found[-1]['name']}: {found[-1]['outcome']}, {found[-1]['seconds']} s", flush=True)
    with tarfile.open(out / "records.tar.gz", "w:gz") as file:
        for path in sorted((home / "records").glob("*.json")):
            file.add(path, path.name)
    return int(any(part["outcome"] not in ("ok", SKIPPED) for part in found))


if __name__ == "__main__":
    sys.exit(main())
