"""mypy on the package as it is built: every folder of the checkout where ``[tool.setuptools]`` puts it.

``python tests/support/as_built.py [mypy's own words]`` from anywhere. In the checkout itself ``kdbench`` has no
``methods`` and no ``leaderboard``, so mypy run there sees neither and calls what they hold ``Any``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def lay_out(root: Path, into: Path) -> None:
    """Links the Python files of a checkout to where the built package has them; ``into`` is made anew.

    Args:
        root: the checkout; its ``pyproject.toml`` maps packages to folders.
    """
    mapped: dict[str, str] = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    shutil.rmtree(into, ignore_errors=True)
    for package, folder in mapped.items():
        for path in [*(root / folder).rglob("*.py"), *(root / folder).glob("py.typed")]:
            place = into.joinpath(*package.split("."), path.relative_to(root / folder))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(path.resolve())


def mypy(root: Path = ROOT, words: Sequence[str] = ()) -> int:
    """mypy's exit status on the built package of a checkout; what it says goes to stdout.

    Args:
        words: options beside those of ``pyproject.toml``.
    """
    built = root / "build" / "typed"
    lay_out(root, built)
    settings = ["--config-file", str(root / "pyproject.toml"), "--cache-dir", str(root / ".mypy_cache")]
    return subprocess.run([sys.executable, "-m", "mypy", *settings, *words], cwd=built).returncode


if __name__ == "__main__":
    sys.exit(mypy(words=sys.argv[1:]))
