"""Scores on rows from elsewhere: a column with its interval, a chart beside the test rows, and no rank."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import site_samples as samples

from kdbench.leaderboard.draw.panels import differences


def scored(sets: dict[str, tuple[float, str]]) -> dict[str, Any]:
    return {
        name: {"value": value, "items": 50, "sha256": digest * 64, "about": f"rows <{name}>"}
        for name, (value, digest) in sets.items()
    }


def test_a_tasks_page_shows_them_beside_the_test_rows_and_ranks_by_none(tmp_path: Path) -> None:
    worse = {"plain": 60.0, "kd": 55.0, "alpha": 40.0}
    golden = samples.golden()
    without = samples.make_site(tmp_path / "without", golden)
    for made in golden:
        if made["task"]["name"] == "golden/a":
            away = worse[made["method"]["name"]] + made["seed"]
            stale = "b" if made["seed"] or made["method"]["name"] != "plain" else "c"  # one run saw other rows
            made["metrics"]["external"] = scored({"far": (away, "a"), "noisy": (away / 2, stale)})
    site = samples.make_site(tmp_path / "with", golden)
    page, before = ((one.out / "tasks" / "golden__a@v1.html").read_text() for one in (site, without))
    assert "On rows from elsewhere" in page
    assert "rows &lt;far&gt;" in page
    assert "On rows from elsewhere" not in before
    held = re.findall(r'c-external-far" data-sort="([\d.]+)"[^>]*><span class="v"><a [^>]*>([^<]*)<', page)
    assert sorted(held) == [("41.0", "41.00 ± 2.48"), ("56.0", "56.00 ± 2.48"), ("61.0", "61.00 ± 2.48")]
    ranks = [re.findall(r'c-rank"[^>]*>(.*?)</td>', one) for one in (page, before)]
    assert ranks[0] == ranks[1] != []
    assert "n = 2" in page, "rows that are not those of the others are left out"


def test_panels_share_one_scale_and_say_where_nothing_was_measured() -> None:
    panels = [("test rows", [(1.0, 0.0, 2.0), (4.0, 3.0, 5.0)]), ("far", [(4.0, 3.0, 5.0), None])]
    drawn = str(differences("k", ["a", "b"], panels, title="t", digits=1))
    assert drawn.count("not measured") == 1
    assert drawn.count("+4.0") == 2
    marks = re.findall(r'class="mark"[^>]*', drawn)
    assert len(marks) == 3
