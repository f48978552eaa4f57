"""Which data were found: the official ones, a known copy, or others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import data_samples as samples
import numpy as np
import pytest

from kdbench.base.errors import UserError
from kdbench.data import Place
from kdbench.data.decode.specification import Hub, set_names, set_spec
from kdbench.data.feed import described
from kdbench.specs import registry

encoded, picture, spec, image_rows = samples.encoded, samples.picture, samples.spec, samples.image_rows
write, contents = samples.write, samples.contents


def test_equal_pixels_have_one_content_hash_whatever_the_file_format_and_order(tmp_path: Path) -> None:
    pixels, labels = [picture() for _ in range(6)], [0, 1, 2, 0, 1, 2]
    found = []
    for name, form, options, order in (
        ("a", "PNG", {}, range(6)),
        ("b", "WEBP", {"lossless": True}, range(6)),
        ("c", "PNG", {"compress_level": 1}, reversed(range(6))),
        ("d", "JPEG", {"quality": 75}, range(6)),
    ):
        ids = list(order)
        rows = {"img": [{"bytes": encoded(pixels[i], form, **options), "path": None} for i in ids]}
        rows["label"] = [labels[i] for i in ids]
        place = Place(write(tmp_path / name, rows, rows), tmp_path / name / "cache")
        described.load(spec(), {}, place)
        found.append(contents(place)["parts"]["train"])
    png, webp, turned, jpeg = found
    assert png["content"] == webp["content"] == turned["content"] != jpeg["content"]
    assert png["ordered"] == webp["ordered"] != turned["ordered"]
    assert [f["jpeg"] for f in found] == [False, False, False, True]


def test_known_copies_are_told_apart_and_unknown_ones_named(tmp_path: Path) -> None:
    kinds = {name: {"train": image_rows(6), "test": image_rows(3)} for name in ("official", "copy", "unknown")}
    places = {n: Place(write(tmp_path / n, r["train"], r["test"]), tmp_path / n / "cache") for n, r in kinds.items()}
    hashes = {}
    for name, place in places.items():
        described.load(spec(), {}, place)
        hashes[name] = {part: contents(place)["parts"][part]["content"] for part in ("train", "test")}
    about = {"about": "drawn anew", "folders": ["toy"], "identity": {"content": hashes["copy"]}}
    known = spec(identity={"content": hashes["official"]}, copies={"redrawn": about})
    official = described.load(known, {}, places["official"])
    assert (official.name, official.official) == ("toy", True)
    copy = described.load(known, {"copy": "redrawn"}, places["copy"])
    assert (copy.name, copy.official) == ("toy-redrawn", True)
    other = described.load(known, {}, places["unknown"])
    assert other.name.startswith("toy-other-")
    assert not other.official
    with pytest.raises(UserError, match=r"holds toy-redrawn \(drawn anew\), not toy; run the tasks toy-redrawn/"):
        described.load(known, {}, places["copy"])
    with pytest.raises(UserError, match="holds toy, not toy-redrawn"):
        described.load(known, {"copy": "redrawn"}, places["official"])
    with pytest.raises(UserError, match=r"no copy 'redrawm' \(did you mean 'redrawn'"):
        described.load(known, {"copy": "redrawm"}, places["official"])


def test_a_copy_with_all_that_is_known_of_the_official_data_is_still_that_copy(place: Place) -> None:
    """CIFAR-100 under another split has the official pool."""
    assert place.folder is not None
    write(place.folder, image_rows(6), image_rows(3))
    described.load(spec(), {}, place)
    facts = contents(place)
    content = {part: facts["parts"][part]["content"] for part in ("train", "test")}
    copy = {"about": "another split", "folders": ["toy"], "identity": {"content": content}}
    known = spec(identity={"pool": facts["pool"]}, copies={"resplit": copy})
    with pytest.raises(UserError, match="holds toy-resplit"):
        described.load(known, {}, place)
    assert not described.load(spec(identity={"pool": "0" * 64, "content": content}), {}, place).official


def moments(pixels: list[np.ndarray]) -> tuple[list[int], list[int]]:
    """Sums and sums of squares by channel, in Python's own whole numbers."""
    channels = [[int(v) for p in pixels for v in p[..., c].ravel()] for c in range(3)]
    return [sum(values) for values in channels], [sum(v * v for v in values) for values in channels]


def test_the_sums_of_the_pixels_prove_the_official_data_and_disprove_copies(tmp_path: Path) -> None:
    pixels = {part: [picture() for _ in range(count)] for part, count in (("train", 6), ("test", 3))}
    known = {part: moments(values) for part, values in pixels.items()}
    official = spec(
        identity={
            "sums": {part: sums for part, (sums, _) in known.items()},
            "squares": {part: squares for part, (_, squares) in known.items()},
        }
    )

    def loaded(name: str, change: Any = None, form: str = "PNG", **options: Any) -> Any:
        folder = tmp_path / name
        rows = {}
        for part, values in pixels.items():
            kept = [change(p) if change else p for p in values]
            files = [{"bytes": encoded(p, form, **options), "path": None} for p in kept]
            rows[part] = {"img": files, "label": [n % 3 for n in range(len(files))]}
        return described.load(official, {}, Place(write(folder, rows["train"], rows["test"]), folder / "cache"))

    assert loaded("same").official
    assert loaded("webp", None, "WEBP", lossless=True).official
    assert not loaded("jpeg", None, "JPEG", quality=90).official
    mirrored = loaded("mirrored", lambda p: p[..., ::-1])  # the channels exchanged
    assert (mirrored.official, mirrored.name[:10]) == (False, "toy-other-")


def test_numbers_of_rows_prove_nothing(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A shrunken copy has as many rows as the original."""
    assert place.folder is not None
    write(place.folder, image_rows(6), image_rows(3))
    counted = spec(identity={"rows": {"train": 6, "test": 3}})
    assert not described.load(counted, {}, place).official
    assert "nothing on file proves that these files are the original ones" in capsys.readouterr().err
    fewer = spec(identity={"rows": {"train": 7, "test": 3}})
    assert not described.load(fewer, {}, place).official
    assert "its train part has other numbers of rows: 6, not 7" in capsys.readouterr().err
    pinned = counted.model_copy(update={"hub": Hub(id="someone/toy", revision="abc")})
    assert not described.load(pinned, {}, place).official  # the same files, but not from there


def test_jpeg_files_are_not_a_lossless_original(place: Place) -> None:
    assert place.folder is not None
    rows = {"img": [{"bytes": encoded(picture(), "JPEG"), "path": None} for _ in range(3)], "label": [0, 1, 2]}
    write(place.folder, rows, rows)
    described.load(spec(), {}, place)
    content = {part: contents(place)["parts"][part]["content"] for part in ("train", "test")}
    assert described.load(spec(identity={"content": content}), {}, place).official
    assert not described.load(spec(identity={"content": content, "lossless": True}), {}, place).official


def test_where_nothing_is_known_nothing_is_official(place: Place) -> None:
    assert place.folder is not None
    write(place.folder, image_rows(3), image_rows(3))
    found = described.load(spec(), {}, place)
    assert not found.official
    assert found.name.startswith("toy-yours-")


def test_a_ranked_task_has_data_that_can_be_recognised() -> None:
    for name, task in registry.tasks().items():
        if not task.ranked or task.data.source not in set_names():
            continue
        about = set_spec(task.data.source)
        copy = task.data.options.get("copy")
        pinned = copy is None and about.hub is not None and about.hub.revision is not None
        assert about.known(copy).proves or pinned, name
        assert copy is not None or "identity" in about.notes, name
