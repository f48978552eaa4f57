"""Weights, checkpoints and tables from strangers, damaged byte by byte: read as what they say, or refused in one line.

Readers of other languages may take the whole process down, so each batch is read in a process of its own.
"""

from __future__ import annotations

import io
import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzzing
import pytest
from hypothesis import strategies as st

pytestmark = pytest.mark.timeout(900)


def in_a_fork(action: Callable[[], None], log: Path) -> None:
    """Runs an action in a copy of this process; what it prints is shown when it fails, however it ends."""
    child = os.fork()
    if child == 0:
        with log.open("w") as file:
            os.dup2(file.fileno(), 2)
            try:
                action()
            except BaseException:
                traceback.print_exc(file=file)
                file.flush()
                os._exit(1)
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"status {status}: {log.read_text()[-3000:]}"


@pytest.mark.parametrize("count", [30, pytest.param(1500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", ["safetensors", "pt"])
def test_damaged_weights_are_whole_or_refused(count: int, form: str, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save

    from kdbench import models
    from kdbench.models.weights import load_weights

    net = models.build("convnet_w2", (1, 8, 8), 10, input_name="image")
    state = {key: value.clone() for key, value in net.state_dict().items()}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = save(state) if form == "safetensors" else buffer.getvalue()
    path = tmp_path / f"weights.{form}"

    def check(cuts: list[Any], near: list[Any]) -> None:
        path.write_bytes(fuzzing.cut(fuzzing.cut(content, cuts), near))
        if fuzzing.refused_in_one_line(lambda: load_weights(net, path)) is None:
            net.load_state_dict(state)

    head = st.lists(st.tuples(st.integers(0, 600), st.integers(0, 4), st.binary(max_size=4)), max_size=2)

    def batch() -> None:
        fuzzing.fuzz(count, [tmp_path], check, fuzzing.cuts, head)

    in_a_fork(batch, tmp_path / "log")


@pytest.mark.parametrize("count", [20, pytest.param(1500, marks=pytest.mark.slow)])
def test_a_damaged_checkpoint_is_whole_or_set_aside(count: int, tmp_path: Path) -> None:
    """A checkpoint whose bytes changed is never taken for another state: its tensors are those written, or none."""
    import torch

    from kdbench.engine import checkpoint

    path, cpu = tmp_path / "stage-0.pt", torch.device("cpu")
    state = {"method": {"w": torch.arange(300.0)}, "number": 3, "sums": {}, "seconds": 0.25, "rng": torch.arange(5)}
    checkpoint.save(path, state)
    content = path.read_bytes()

    def check(cuts: list[Any]) -> None:
        path.write_bytes(fuzzing.cut(content, cuts))
        found = checkpoint.load(path, cpu)
        assert found is None or (
            {k: found[k] for k in ("number", "sums", "seconds")} == {"number": 3, "sums": {}, "seconds": 0.25}
            and torch.equal(found["method"]["w"], state["method"]["w"])
            and torch.equal(found["rng"], state["rng"])
        )
        assert path.exists() == (found is not None)

    def batch() -> None:
        fuzzing.fuzz(count, [tmp_path], check, fuzzing.cuts)

    in_a_fork(batch, tmp_path / "log")


@pytest.mark.parametrize("count", [10, pytest.param(1500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_damaged_table_is_read_or_refused(count: int, form: str, tmp_path: Path, load: Callable[[str], Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from kdbench.base.progress import Progress
    from kdbench.data import Place
    from kdbench.data.decode.decoded import decode

    samples = load("support/data_samples.py")
    spec, data = samples.spec(), tmp_path / "data" / "toy"
    data.mkdir(parents=True)
    table = pa.table(samples.image_rows(6))
    for part in ("train", "test"):
        pq.write_table(table, data / f"{part}.parquet", compression="snappy")
    if form == "arrow":
        for part in ("train", "test"):
            (data / f"{part}.parquet").unlink()
            with pa.OSFile(str(data / f"{part}.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
    file = data / f"train.{form}"
    content = file.read_bytes()
    place = Place(tmp_path / "data", tmp_path / "cache", Progress.silent())

    def check(cuts: list[Any], tail: list[Any]) -> None:
        whole = fuzzing.cut(content, cuts)
        file.write_bytes(whole[:-900] + fuzzing.cut(whole[-900:], tail))
        found = fuzzing.refused_in_one_line(lambda: decode(spec, None, place))
        if found is not None:
            facts = json.loads((found.folder / "facts.json").read_text())
            assert found.array("train", "y").shape == (facts["parts"]["train"]["rows"],)

    def batch() -> None:
        fuzzing.fuzz(count, [tmp_path], check, fuzzing.cuts, fuzzing.cuts)

    in_a_fork(batch, tmp_path / "log")
