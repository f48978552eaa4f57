"""Panels of test pictures: from a run to its examples, to a submission, to a task's page."""

from __future__ import annotations

import copy
import io
import zipfile
from pathlib import Path

import numpy as np
import site_samples as samples
import torch
from PIL import Image

from kdbench.base.home import Home
from kdbench.kinds.base import Mark
from kdbench.records import beside, examples, items
from kdbench.records.examples import Example, Examples
from kdbench.records.intake import take_in
from kdbench.runs import run
from kdbench.runs.request import Request
from kdbench.specs.config import run_config

SQUARE = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))


def png(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (8, 6), shade).save(stream, "PNG")
    return stream.getvalue()


def some(score: float, shade: int = 9) -> Examples:
    found = (Mark(1, SQUARE, score),)
    return Examples(("cat", "<dog>"), (Example(4, "4.png", 8, 6, (Mark(1, SQUARE),), found),), {"4.png": png(shade)})


def test_examples_are_read_as_they_were_written_and_equal_ones_are_equal_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "x.zip", tmp_path / "b" / "x.zip"
    examples.dump(some(0.5), first)
    examples.dump(some(0.5), second)
    assert first.read_bytes() == second.read_bytes()
    assert examples.load(first) == some(0.5)


def test_what_is_no_zip_of_examples_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    assert examples.load(path) is None
    path.write_bytes(b"PK and nothing more")
    assert examples.load(path) is None
    examples.dump(Examples(None, some(0.5).examples, {"4.png": b"<svg onload=x>"}), path)
    assert examples.load(path) is None
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(examples.LIST, '{"names": null, "examples": [{"row": -1}]}')
    assert examples.load(path) is None


def test_a_tasks_page_shows_what_plain_and_methods_find(tmp_path: Path) -> None:
    golden = samples.golden()
    for made in golden:
        if made["seed"] == 1 and made["task"]["name"] == "golden/a":
            path = tmp_path / "records" / examples.FOLDER / f"{made['run_id']}.zip"
            shade = 10 if made["method"]["name"] == "alpha" else 9  # other pictures stand in no panel beside these
            examples.dump(some(0.875, shade), path)
    site = samples.make_site(tmp_path, golden)
    page = (site.out / "tasks" / "golden__a@v1.html").read_text()
    assert page.count('class="shown"') == 3
    assert 'alt="test picture 4, what is there: 1 object"' in page
    assert 'alt="test picture 4, found by kd: 1 object"' in page
    assert "found by alpha" not in page
    assert "&lt;dog&gt;, 0.88" in page
    (picture,) = (site.out / "data" / "examples").iterdir()
    assert picture.read_bytes() == png(9)
    assert 'class="shown"' not in (site.out / "tasks" / "golden__b@v1.html").read_text()


def test_a_run_keeps_what_it_answers_to_three_test_pictures_which_go_with_its_record(tmp_path: Path) -> None:
    home = Home(tmp_path)
    record = run.run_seed(
        Request(run_config("plain", "shapes", smoke=True), 0, torch.device("cpu"), home, overhead="off")
    )
    assert set(record.metrics.classes or {}) == {"disc", "square", "triangle"}
    kept = examples.load(examples.path_of(home.records / f"{record.run_id}.json"))
    assert kept is not None
    assert [(one.row, one.width, one.height) for one in kept.examples] == [(2, 64, 64), (8, 64, 64), (13, 64, 64)]
    assert kept.names == ("disc", "square", "triangle")
    assert any(one.truth for one in kept.examples)
    elsewhere = Home(tmp_path / "other")
    take_in(home.records, elsewhere)
    assert examples.load(examples.path_of(elsewhere.records / f"{record.run_id}.json")) == kept


def test_a_run_on_digits_keeps_no_pictures_and_the_rows_that_it_is_right_on(tmp_path: Path) -> None:
    home = Home(tmp_path)
    record = run.run_seed(
        Request(run_config("plain", "digits/few-shot", smoke=True), 0, torch.device("cpu"), home, overhead="off")
    )
    assert not (home.records / examples.FOLDER).exists()
    right = beside.Items(home.records).of(record.run_id)
    assert right is not None
    assert record.metrics is not None
    assert len(right) == record.metrics.test_items
    assert 100 * right.mean() == record.metrics.last["top1"]


def test_the_page_of_a_run_says_why_it_keeps_no_value_of_each_test_row(tmp_path: Path) -> None:
    made = samples.golden()
    linked, unsaid = "mAP, test row by test row (Parquet)", "RMSE gives no value of each test row"
    for metric, said in (("map", linked), ("rmse", unsaid)):
        raw = copy.deepcopy(made[0])
        each = np.full(797, 40.0)
        raw["task"]["metric_primary"], raw["metrics"]["last"] = metric, {metric: 40.0}
        if metric == "map":
            raw["metrics"]["items_sha256"] = items.digest(each)
            items.dump(each, tmp_path / metric / "records" / "items" / f"{raw['run_id']}.parquet")
        site = samples.make_site(tmp_path / metric, [raw])
        assert said in (site.out / "runs" / f"{raw['run_id']}.html").read_text()
    site = samples.make_site(tmp_path / "older", made)
    page = (site.out / "runs" / f"{made[0]['run_id']}.html").read_text()
    assert "from before runs kept what each test row scored" in page


def test_the_page_of_a_run_links_to_its_bits_where_they_are_its_own(tmp_path: Path) -> None:
    made, right = samples.golden(), np.arange(797) < 567
    for raw in made[:2]:  # plain with seeds 0 and 1
        raw["metrics"] |= {"items_sha256": items.digest(right)}
        raw["metrics"]["last"]["top1"] = 100 * float(right.mean())
        items.dump(right if raw is made[0] else ~right, tmp_path / "records" / "items" / f"{raw['run_id']}.parquet")
    site = samples.make_site(tmp_path, made)
    pages = [(site.out / "runs" / f"{raw['run_id']}.html").read_text() for raw in made[:2]]
    link = f"../data/items/{made[0]['run_id']}.parquet"
    assert [f'href="{link}"' in page for page in pages] == [True, False]
    assert [path.stem for path in (site.out / "data" / "items").iterdir()] == [made[0]["run_id"]]
    assert made[0]["run_id"] in (site.out / "data" / "SHA256SUMS").read_text()
