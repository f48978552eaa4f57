"""Exported tables through pdflatex."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

PASSES = 2
"""A longtable knows the widths of its columns from the pass before."""


def assert_fits(table: Path, folder: Path) -> None:
    """That a table compiles within a plain article and is no wider than its text; skips where pdflatex is missing."""
    if not shutil.which("pdflatex"):
        pytest.skip("pdflatex is not installed (apt-get install texlive-latex-recommended)")
    used = "\\usepackage{booktabs,longtable,lscape}"
    body = table.read_text(encoding="utf-8")
    (folder / "one.tex").write_text(f"\\documentclass{{article}}{used}\\begin{{document}}\n{body}\\end{{document}}")
    for _ in range(PASSES):
        words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "one"]
        made = subprocess.run(words, cwd=folder, capture_output=True, text=True, errors="replace")
        assert made.returncode == 0, made.stdout[-2000:]
    for wrong in ("Overfull", "Missing character", "Rerun"):
        assert wrong not in made.stdout, (table.name, made.stdout[-2000:])
