"""Methods of other kinds on codes, what they compare there, and BRCD's protocol on pictures of the data's columns."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hashed import net
from PIL import Image

from kdbench import cli, data
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.checks.stubs import Stub, assembled, batch_of, hyper_parameters
from kdbench.contract import Out, Rows, bits
from kdbench.methods.pkt.adapter import pkt_loss
from kdbench.methods.rkd.adapter import relational_losses
from kdbench.runs import run
from kdbench.runs.request import Request
from kdbench.specs.config import run_config


@pytest.mark.parametrize("method", ["rkd", "pkt", "cc", "crd", "sp"])
def test_relation_losses_run_on_codes_without_a_line_of_their_own(method: str, tmp_path: Path) -> None:
    config = run_config(method, "digits/hash", ["pair.teachers.image.net='hash16:convnet_w8'"], smoke=True)
    record = run.run_seed(Request(config, 0, torch.device("cpu"), Home(tmp_path), overhead="off"))
    assert record.status == "ok", record.error
    assert record.metrics is not None
    assert record.metrics.last.keys() == {"map", "map_teacher_database"}


@pytest.mark.parametrize("method", ["rkd", "pkt"])
def test_what_is_compared_are_bits(method: str) -> None:
    """Scores of another size and equal signs give the same terms."""
    torch.manual_seed(0)
    student, teacher = torch.randn(6, 8), torch.randn(6, 8)

    def terms(factor: float) -> dict[str, torch.Tensor]:
        batch = batch_of(torch.arange(6))
        made = assembled(method, {}, batch, [net(factor * student)], net(teacher), kind="hashing", n_train=6)
        found = made.terms()
        found.pop("task")
        return found

    for name, value in terms(1.0).items():
        assert value.item() == pytest.approx(terms(3.0)[name].item(), rel=1e-6)
    s, t = bits(student), bits(teacher)
    hp = hyper_parameters(method, {})
    if method == "rkd":
        distance, angle = relational_losses(s, t)
        wanted = {"distance": hp.distance_weight * distance, "angle": hp.angle_weight * angle}
    else:
        wanted = {"pkt": hp.pkt_weight * pkt_loss(s, t)}
    assert terms(1.0).keys() == wanted.keys()
    for name, value in wanted.items():
        assert terms(1.0)[name].item() == pytest.approx(value.item(), rel=1e-6)


def test_sp_compares_the_maps_of_a_hashing_nets_body() -> None:
    """Its paper compares activation maps, which a hashing net has: other bits of equal maps change nothing."""
    torch.manual_seed(0)
    maps = (torch.randn(6, 3, 2, 2).relu(),)

    def term(code: torch.Tensor) -> float:
        nets = [Stub(Out(c, maps, maps, None, bits(c), c)) for c in (code, torch.randn(6, 8))]
        made = assembled("sp", {}, batch_of(torch.arange(6)), nets[:1], nets[1], kind="hashing", n_train=6)
        return made.terms()["similarity"].item()

    assert term(torch.randn(6, 8)) == term(torch.randn(6, 8)) == 0


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("pair.student.net=hash1:convnet_w4", "has 2 to 16 bits, as many as its embedding is wide; 1 are asked for"),
        ("pair.student.net=hash32:convnet_w4", "has 2 to 16 bits, as many as its embedding is wide; 32 are asked for"),
        ("score.k=1001", "score.k=1001 is more than the 1000 rows of the database; lower score.k"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    override: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["evaluate", "--method", "plain", "--task", "digits/hash", "--seed", "0", "--smoke", "--overhead", "off"]
    monkeypatch.setattr("sys.argv", ["kdbench", *words, "--out", str(tmp_path), override])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert line in said[-1]
    assert "Traceback" not in "\n".join(said)


def test_a_database_without_the_queries_classes_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = run_config("plain", "digits/hash", ["score.k=100"])
    request = Request(config, 0, torch.device("cpu"), Home(tmp_path))
    whole = request.load()
    few = whole.train.y < 8  # of ten classes
    cut = replace(whole, train=Rows({"image": whole.train.x["image"][few]}, whole.train.y[few]))
    monkeypatch.setattr(data, "load", lambda *given: cut)
    with pytest.raises(UserError, match=r"digits/hash: .*no row of the queries' class 8, 9; change the data"):
        request.load()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_brcds_protocol_runs_end_to_end_on_pictures_of_the_same_columns(tmp_path: Path) -> None:
    """20 training and 10 test rows of CIFAR-10's columns at 224 pixels, random weights; the ViT is the tiny one."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data" / "cifar10"
    folder.mkdir(parents=True)
    for part, count in (("train", 20), ("test", 10)):
        pictures = []
        for _ in range(count):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file, "PNG")
            pictures.append({"bytes": file.getvalue(), "path": None})
        table = pa.table({"img": pictures, "label": pa.array([i % 10 for i in range(count)], pa.int64())})
        pq.write_table(table, folder / f"{part}.parquet")
    overrides = [
        "pair.student.weights=null", "pair.teachers.image.init=null", "data.subset.per_class=2", "score.k=20",
        "train.batch=8", "pair.teachers.image.net='hash64_linear:timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k'",
    ]  # fmt: skip
    config = run_config("brcd", "cifar10-224/hash-vit_b16-efficientnet_b0", overrides, smoke=True)
    record = run.run_seed(
        Request(config, 0, torch.device("cpu"), Home(tmp_path), data=tmp_path / "data", overhead="off")
    )
    assert record.status == "ok", record.error
    assert record.metrics is not None
    assert record.metrics.last.keys() == {"map", "map_teacher_database"}
    assert not record.task.ranked
