"""Answers of teachers that are kept: a run's bits are those without, whoever reads, writes or dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import AUGMENTED, EPOCHS, LAST, ROWS, Told, place, same, task, trained

from kdbench.contract import Needs
from kdbench.data.feed.augment import augmentation
from kdbench.data.feed.drawn import Choice, Draws
from kdbench.engine.assemble import Prepared, prepare
from kdbench.engine.standin import refusal
from kdbench.engine.stored_teacher import KEPT, StoredTeacher
from kdbench.engine.teacher_store import Filling, Shelf, TeacherStore, place_of
from kdbench.engine.trainer import Trained
from kdbench.specs.options import STORE_MIB, EngineOptions

STORE = EngineOptions(teacher_store=True)
WIDTH, PLACES = 5, 40


# files


def shelf(folder: Path, places: int = PLACES) -> Shelf:
    return Shelf(folder / "one.rows", places, WIDTH)


def values_of(numbers: np.ndarray) -> np.ndarray:
    return (numbers[:, None] * 10 + np.arange(WIDTH)).astype(np.float32)


def test_a_shelf_gives_what_it_was_given_and_nothing_else(tmp_path):
    numbers = np.array([3, 39, 0])
    assert shelf(tmp_path).write(numbers, values_of(numbers)) == 3
    found, there = shelf(tmp_path).read(np.array([0, 1, 3, 39, 43]))
    assert there.tolist() == [True, False, True, True, False]  # 43 would lie where 3 lies
    assert np.array_equal(found[there], values_of(np.array([0, 3, 39])))


def test_a_place_is_whose_it_was_first(tmp_path):
    one = shelf(tmp_path, places=2)
    assert one.write(np.array([0, 1]), values_of(np.array([0, 1]))) == 2
    assert one.write(np.array([2, 3]), values_of(np.array([2, 3]))) == 0
    assert one.read(np.array([0, 1, 2]))[1].tolist() == [True, True, False]
    at_once = Shelf(tmp_path / "two.rows", 2, WIDTH)
    assert at_once.write(np.array([5, 3]), values_of(np.array([5, 3]))) == 1
    assert at_once.read(np.array([5, 3]))[1].tolist() == [True, False]


def test_half_a_row_is_no_row_wherever_its_writer_died(tmp_path):
    numbers = np.array([7])
    shelf(tmp_path).write(numbers, values_of(numbers))
    path, size = tmp_path / "one.rows", place_of(WIDTH).itemsize
    whole = path.read_bytes()
    for end in range(7 * size, 8 * size):
        path.write_bytes(whole[:end] + bytes(len(whole) - end))
        _, there = shelf(tmp_path).read(numbers)
        assert not there.any() or path.read_bytes() == whole
    path.write_bytes(whole)
    assert shelf(tmp_path).read(numbers)[1].all()


def test_a_file_cut_short_loses_what_was_cut_also_under_a_reader(tmp_path):
    numbers, one = np.arange(PLACES), shelf(tmp_path)
    one.write(numbers, values_of(numbers))
    os.truncate(tmp_path / "one.rows", 10 * place_of(WIDTH).itemsize + 3)
    assert one.read(numbers)[1].tolist() == [True] * 10 + [False] * (PLACES - 10)
    assert one.write(numbers, values_of(numbers)) == PLACES - 10
    assert shelf(tmp_path).read(numbers)[1].all()


def _writes_for_ever(folder: Path, begin: int) -> None:
    one, file = shelf(folder), os.open(folder / "one.rows", os.O_RDWR)
    while True:
        for number in range(begin, begin + PLACES):
            one.write(np.array([number % PLACES]), values_of(np.array([number % PLACES])))
        os.pwrite(file, bytes(PLACES * place_of(WIDTH).itemsize), 0)


def test_two_that_write_at_once_and_are_killed_leave_whole_rows(tmp_path):
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=_writes_for_ever, args=(tmp_path, begin)) for begin in (0, PLACES // 2)]
    for writer in writers:
        writer.start()
    one, numbers, seen = shelf(tmp_path), np.arange(PLACES), 0
    until = time.monotonic() + 20
    while seen < 200 and time.monotonic() < until:
        found, there = one.read(numbers)
        assert np.array_equal(found[there], values_of(numbers[there]))
        seen += int(there.sum())
    for writer in writers:
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    assert seen
    found, there = shelf(tmp_path).read(numbers)
    assert np.array_equal(found[there], values_of(numbers[there]))
    one.write(numbers, values_of(numbers))
    assert one.read(numbers)[1].all()


def test_a_store_keeps_to_its_size_and_begins_anew_where_it_cannot_be_read(tmp_path):
    said: list[str] = []
    store = TeacherStore(tmp_path / "store", {"of": "this"}, 1, said.append)
    size = place_of(WIDTH).itemsize
    made = store.make("logits-16", (WIDTH,), 2**20 // size - 5)
    assert made is not None
    second = store.make("emb-16", (WIDTH,), 1000)
    assert second is not None
    assert second.shelf.places == 5
    assert store.make("logits-8", (WIDTH,), 1000) is None
    assert ["is full (1 MiB, engine.teacher_store_mib)" in line for line in said] == [True]
    assert sum(path.stat().st_size for path in (tmp_path / "store").glob("*.rows")) <= 2**20
    (tmp_path / "store" / "facts.json").write_text("{")
    anew = TeacherStore(tmp_path / "store", {"of": "this"}, 1, said.append)
    assert anew.field("logits-16") is None
    assert anew.make("logits-16", (WIDTH,), 10) is not None
    assert "cannot be read; what teachers answered is kept anew" in said[-1]


# what a batch holds


def test_every_picture_that_an_augmentation_makes_has_one_number():
    picture = torch.randint(256, (1, 1, 4, 4), dtype=torch.uint8)
    rng, made = torch.Generator().manual_seed(0), {}
    for _ in range(400):
        choice, pixels = Choice(), picture
        for fn in augmentation(["crop1", "flip"]).without(()):
            pixels = fn(pixels, rng, choice=choice)
        assert choice.of == 18
        assert choice.number is not None
        assert torch.equal(made.setdefault(int(choice.number), pixels), pixels)
    assert sorted(made) == list(range(18))


def test_what_was_changed_mixed_or_cut_out_is_no_drawn_batch():
    draws, x = Draws(100, np.array([90, 7, 8])), torch.rand(2, 3)
    choice = Choice()
    choice.add(torch.tensor([1, 4]), 6)
    draws.note(x, torch.tensor([2, 0]), choice, 2)
    drawn = draws.of(x)
    assert drawn is not None
    assert (drawn.numbers.tolist(), drawn.of, drawn.batch) == ([8 * 6 + 1, 90 * 6 + 4], 600, 2)
    assert draws.of(x[:]) is None
    assert draws.of(x.clone()) is None
    x[0] += 1
    assert draws.of(x) is None


# runs


def filling(of: tuple[Prepared, Trained]) -> Filling:
    found = of[0].task.filling
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("method", "augment"),
    [
        ("rkd", ()),
        pytest.param("kd", (), marks=pytest.mark.slow),
        ("kd", AUGMENTED),
        pytest.param("rkd", AUGMENTED, marks=pytest.mark.slow),
    ],
)
def test_a_run_has_the_bits_of_one_whose_teacher_computes(method, augment, tmp_path):
    plain = trained(task(method, augment=augment), tmp_path / "plain", tmp_path / "none")
    first = trained(task(method, STORE, augment), tmp_path / "first", tmp_path)
    second = trained(task(method, STORE, augment), tmp_path / "second", tmp_path)
    other = trained(task(method, STORE, augment), tmp_path / "other", tmp_path, seed=1)
    without = trained(task(method, augment=augment), tmp_path / "other-plain", tmp_path / "none", seed=1)
    assert same(plain, first)
    assert same(plain, second)
    assert same(without, other)
    assert not (tmp_path / "none" / "answers").exists()
    once = ROWS if not augment else filling(first).computed
    assert 0 < filling(first).kept <= once
    assert first[1].stored > 0
    # of each size of batches the first is computed to be compared; nothing is kept that is there
    assert (filling(second).kept, second[1].stored) == (0, 0)
    assert filling(second).computed == 16 + LAST
    assert filling(second).read == EPOCHS * ROWS - 16 - LAST
    if augment:
        assert 0 < filling(other).kept < filling(first).kept
    else:
        assert (filling(other).kept, filling(other).computed) == (0, 16 + LAST)


def _runs(method: str, folder: Path, home: Path, seed: int, results: multiprocessing.Queue) -> None:
    torch.set_num_threads(1)
    results.put((seed, trained(task(method, STORE, AUGMENTED), folder, home, seed)[1].digest))


@pytest.mark.slow
def test_two_processes_that_fill_one_store_have_the_bits_of_each_alone(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    runs = [
        context.Process(target=_runs, args=("kd", tmp_path / str(seed), tmp_path, seed, results)) for seed in (0, 1)
    ]
    for run in runs:
        run.start()
    found = dict(results.get(timeout=60) for _ in runs)
    for run in runs:
        run.join()
    torch.set_num_threads(1)
    for seed in (0, 1):
        assert found[seed] == trained(task("kd", augment=AUGMENTED), tmp_path / f"p{seed}", tmp_path, seed)[1].digest
        again = trained(task("kd", STORE, AUGMENTED), tmp_path / f"again{seed}", tmp_path, seed)
        assert again[1].digest == found[seed]


def test_rows_that_are_missing_are_computed_alone_and_no_bit_is_another(tmp_path):
    plain = trained(task("kd"), tmp_path / "plain", tmp_path / "none")
    trained(task("kd", STORE), tmp_path / "first", tmp_path)
    (file,) = tmp_path.glob("answers/*/logits-16.rows")
    os.truncate(file, 50 * file.stat().st_size // ROWS + 3)
    again = trained(task("kd", STORE), tmp_path / "again", tmp_path)
    assert same(plain, again)
    assert filling(again).kept == 10
    assert filling(again).computed < 3 * 16 + LAST


def test_a_full_store_computes_what_it_does_not_hold(tmp_path, monkeypatch):
    most = 30 * place_of(task("kd").data.classes).itemsize
    monkeypatch.setattr(TeacherStore, "__init__", _tiny_store(TeacherStore.__init__, most))
    plain, said = trained(task("kd"), tmp_path / "plain", tmp_path / "none"), list[str]()
    first = trained(task("kd", STORE), tmp_path / "first", tmp_path, said=said)
    second = trained(task("kd", STORE), tmp_path / "second", tmp_path)
    assert same(plain, first)
    assert same(plain, second)
    assert filling(first).kept == 30
    assert ["is full" in line for line in said] == [True]
    assert filling(second).kept == 0
    assert second[1].stored == 0


def _tiny_store(init: Callable[..., None], most: int) -> Callable[..., None]:
    def made(self: TeacherStore, *args: object) -> None:
        init(self, *args)
        self._most = most

    return made


def test_answers_that_are_not_those_computed_here_are_not_believed(tmp_path):
    plain, said = trained(task("kd"), tmp_path / "plain", tmp_path / "none"), list[str]()
    first, _ = trained(task("kd", STORE), tmp_path / "first", tmp_path)
    teacher = first.method.teacher
    assert isinstance(teacher, StoredTeacher)
    (file,) = tmp_path.glob("answers/*/logits-16.rows")
    file.unlink()
    field = teacher._store.__class__(file.parent, {}, STORE_MIB, print).field("logits-16")
    assert field is not None
    numbers = np.arange(ROWS)
    field.shelf.write(numbers, np.ones((ROWS, *field.shape), np.float32))
    again = trained(task("kd", STORE), tmp_path / "again", tmp_path, said=said)
    assert same(plain, again)
    assert filling(again).read == 0
    assert any("batches of 16 rows give other bits here than what is kept; they are computed" in line for line in said)


def test_a_place_that_cannot_be_written_costs_no_run(tmp_path):
    (tmp_path / "answers").touch()
    said: Told = []
    stored = trained(task("kd", STORE), tmp_path / "stored", tmp_path, said=said)
    assert same(trained(task("kd"), tmp_path / "plain", tmp_path / "none"), stored)
    assert len(said) == 1
    assert said[0].endswith("teachers compute")


@pytest.mark.parametrize(
    ("method", "augment", "line"),
    [
        ("fitnet", (), "engine.teacher_store: fitnet reads maps of its teachers; they compute"),
        (
            "kd",
            ("affine10",),
            "stage 'distill' sees another picture at every draw (affine10); its teachers compute",
        ),
        ("ccd", (), "makes views of a row; its teachers compute"),
    ],
)
def test_what_cannot_be_kept_is_one_line(method, augment, line, tmp_path):
    said: Told = []
    prepared = prepare(task(method, STORE, augment).config, 0, place(tmp_path / "run", tmp_path, said),
                       (of := task(method)).data, of.copies())  # fmt: skip
    prepared.task.loader(next(prepared.method.stages()), 1)
    (told,) = said
    assert line in told
    assert not (tmp_path / "answers").exists()


@pytest.mark.parametrize(
    ("needs", "reason"),
    [
        (Needs(teacher=frozenset({"emb", "preact", "maps"})), "reads maps, preact of its teachers"),
        (Needs(trains_teacher=True), "trains its teachers"),
        (Needs(teacher_batchnorm="batch"), "has its teachers normalise by the batch"),
        (Needs(teacher=frozenset()), "reads no answers of its teachers"),
        (Needs(teacher=frozenset({"emb", "logits"})), None),
    ],
)
def test_what_a_method_needs_says_whether_its_teachers_answers_are_kept(needs, reason):
    assert refusal(needs, KEPT) == reason
