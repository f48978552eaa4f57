"""What a run imports: seconds that every command waits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

WORDS = ["evaluate", "-m", "kd", "-t", "digits/few-shot", "--seed", "0", "--smoke", "--overhead", "off"]
PROGRAM = f"""
import sys
from kdbench import cli
sys.argv = ["kdbench", *{WORDS!r}, "--device", "cpu"]
try:
    cli.main()
except SystemExit as stop:
    assert not stop.code, stop.code
print(*sys.modules, file=sys.stderr)
"""
NOT_NEEDED = {
    "torch._dynamo", "triton", "sympy", "sklearn", "scipy", "pandas", "pyarrow", "timm", "torchvision", "datasets",
}  # fmt: skip
"""Libraries that a smoke run on digits has no use for; torch's compiler and scikit-learn took longer than torch itself.
A whole run changes its test rows with torchvision."""


def test_a_smoke_run_on_digits_imports_no_library_that_it_does_not_use(tmp_path: Path) -> None:
    env = os.environ | {"KDBENCH_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    imported = set(done.stderr.splitlines()[-1].split())
    assert "torch.optim" in imported
    assert not imported & NOT_NEEDED
