"""Python objects as methods, nets and tasks: known by content, carried to other processes, refused in one line."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from as_new import forget
from sweeps import ENV, check_equal
from torch import Tensor, nn
from torch.utils.data import Dataset

from kdbench import identity, models, objects
from kdbench.base.content import of
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.contract import At, Batch, Method, Needs
from kdbench.data import Place, load
from kdbench.models.weights import load_weights
from kdbench.specs import registry
from kdbench.specs.config import run_config
from kdbench.specs.order import ConfigOrder

SCALE = 2.0
FAULTS = Path(__file__).parents[1] / "support" / "faults"


class Mine(Method):
    """Squared distance of scores."""

    defaults = {"weight": 0.5, "stages": [1, 2]}  # noqa: RUF012

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        out, taught = self.student(batch), self.teacher(batch)
        distance = (out.logits - taught.logits.detach()).square().mean() * SCALE
        return {"ce": self.task.loss(out, batch), "l2": self.hp.weight * distance}


class Net(nn.Module):
    def __init__(self, channels: int, classes: int, width: int = 4) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(channels, width, 3, 1, 1), nn.ReLU())
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer1(x).mean((2, 3)))


def mini(shape: tuple[int, ...], classes: int) -> nn.Module:
    return Net(shape[0], classes)


class Pictures(Dataset[Any]):
    def __init__(self, rows: int, noise: bool = False) -> None:
        generator = torch.Generator().manual_seed(rows)
        self.y = torch.arange(rows) % 3
        self.x = torch.randint(0, 256, (rows, 1, 6, 6), generator=generator, dtype=torch.uint8)
        self.noise = noise

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        x = self.x[number]
        return x + torch.randint(0, 9, x.shape, dtype=torch.uint8) if self.noise else x, int(self.y[number])


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def toy(home: Home, **changes: Any) -> str:
    given = {"train": Pictures(30), "test": Pictures(12), "student": mini, "teacher": Net(1, 3, 8), **changes}
    return objects.task("toy", home, **given)


def test_a_class_is_a_method_with_a_card_of_its_own(home: Home) -> None:
    assert objects.method(Mine, home) == "mine"
    card = registry.card("mine")
    assert (card.adapter, card.summary, card.needs) == ("Mine", "Squared distance of scores.", ["teacher"])
    assert card.defaults() == {"weight": 0.5, "stages": (1, 2)}
    config = run_config("mine", "digits", ["method.weight=2"])
    assert config.method.params["weight"] == 2.0
    assert config.method.ref.adapter().__name__ == "Mine"
    with pytest.raises(UserError, match=r"did you mean 'method\.weight'"):
        run_config("mine", "digits", ["method.wait=1"])


def test_data_and_networks_are_a_task(home: Home) -> None:
    teacher = Net(1, 3, 8)
    spec = registry.task(toy(home, teacher=teacher, augment=["flip"]))
    assert (spec.kind, spec.ranked, spec.pair.student.net, spec.data.augment) == (
        "classification", False, "toy-student", ["flip"],
    )  # fmt: skip
    data = load(spec.data, Place(None, home.data))
    assert (data.classes, len(data.train.y), data.shape("image")) == (3, 30, (1, 6, 6))
    assert torch.equal(data.train.x["image"], Pictures(30).x)
    seen, _ = data.finish(data.train.x)
    assert torch.equal(seen["image"], Pictures(30).x / 255)
    (taught,) = spec.pair.teachers.values()
    net = models.build(taught.net, (1, 6, 6), 3)
    load_weights(net, taught.weights)
    assert taught.weights == "own"
    assert torch.equal(net.body.fc.weight, teacher.fc.weight)  # type: ignore[union-attr]
    fresh = models.build(taught.net, (1, 6, 6), 3)
    assert not torch.equal(fresh.body.fc.weight, teacher.fc.weight)  # type: ignore[union-attr]


def test_tensors_and_numbers_are_a_task_too(home: Home) -> None:
    pair = torch.randn(10, 5), torch.randn(10, 1)
    spec = registry.task(objects.task("numbers", home, train=pair, test=pair, student="mlp_w4"))
    data = load(spec.data, Place(None, home.data))
    assert (spec.kind, data.classes, data.train.y.shape) == ("regression", 1, (10,))
    assert torch.equal(data.finish(data.train.x)[0]["image"], pair[0])


def test_the_same_objects_are_the_same_and_changed_ones_are_others(home: Home) -> None:
    def known() -> tuple[str, str, str, str]:
        config = run_config(objects.method(Mine, home), toy(home, teacher=teacher))
        found = identity.of(config)
        return found.code["mine"], found.nets["toy-student"], found.nets["toy-teacher"], config.spec_hash

    torch.manual_seed(0)
    teacher = Net(1, 3, 8)
    first = known()
    forget()
    assert known() == first
    folders = sorted(path.name for path in home.objects.iterdir())
    with torch.no_grad():
        teacher.fc.bias.add_(1)
    second = known()
    assert [a == b for a, b in zip(first, second, strict=True)] == [True, True, False, True]
    assert set(folders) < {path.name for path in home.objects.iterdir()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "SCALE", 3.0)
        assert known()[0] != first[0]
    assert known()[0] == first[0]


def test_an_object_that_was_changed_and_is_given_again_is_what_it_was(home: Home, tmp_path: Path) -> None:
    """Cells of a notebook are run again in any order."""
    one, other = Net(1, 3), Net(1, 3)

    def first_weights(given: nn.Module, at: Home = home) -> Tensor:
        name = objects.net(given, at, "again")
        net = models.build(name, (1, 6, 6), 3)
        load_weights(net, "own")
        return next(net.parameters())

    for given in (one, other, one, other):
        assert torch.equal(first_weights(given), next(given.parameters()))
    assert torch.equal(first_weights(one, Home(tmp_path / "another")), next(one.parameters()))
    for _ in range(2):  # the very same function, in one home and the next
        for at in (home, Home(tmp_path / "another")):
            assert objects.net(mini, at) == "mini"


@pytest.mark.slow
def test_another_process_makes_the_same_configuration_from_an_order(home: Home) -> None:
    config = run_config(objects.method(Mine, home), toy(home))
    text = ConfigOrder.of(config).text()
    assert [one.said for one in ConfigOrder.read(text).given] == [
        "object:mine", "object:toy", "object:toy-student", "object:toy-teacher",
    ]  # fmt: skip
    code = """
    import sys
    from kdbench import identity, models
    from kdbench.specs.order import ConfigOrder
    config = ConfigOrder.read(sys.stdin.read()).config()
    models.build("toy-student", (1, 6, 6), 3)
    print(config.spec_hash, config.method.ref.adapter().__name__, *identity.of(config).code.values())
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(code)], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [config.spec_hash, "Mine", *identity.of(config).code.values()]


class Locked(Mine):
    """Holds what no process can give to another."""

    lock = threading.Lock()


class Wide(Mine):
    defaults = {"weight": object()}  # noqa: RUF012


class Broken(Mine):
    @classmethod
    def needs(cls, hp: Any) -> Needs:
        raise ValueError("no idea")


def tensors(**changes: Any) -> tuple[Tensor, Tensor]:
    """Rows of three classes, some of them made wrong: ``x`` or ``y`` is the value of row 4."""
    x, y = torch.rand(6, 1, 6, 6), changes.pop("targets", torch.arange(6) % 3)
    for name, value in changes.items():
        {"x": x[4, 0, 2, 2:3], "y": y[4:5]}[name].fill_(value)
    return x, y


class Unreadable(Pictures):
    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        if number == 2:
            raise OSError("no such\nfile")
        return super().__getitem__(number)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda home: toy(home, train=tensors(x=float("nan"))), "row 4 of the train rows: its image holds a number"),
        (lambda home: toy(home, test=tensors(x=float("inf"))), "row 4 of the test rows: its image .* not finite"),
        (lambda home: toy(home, train=tensors(targets=torch.rand(6), y=float("nan"))), "row 4 .* its target holds"),
        (lambda home: toy(home, train=tensors(y=-100)), "row 4 of the train rows: its target is below 0"),
        (
            lambda home: toy(home, train=tensors(), test=tensors(y=7)),
            "class 7 of the test rows",
        ),
        (lambda home: toy(home, **dict.fromkeys(("train", "test"), tensors(targets=torch.ones(6).long()))), "class 1;"),
        (lambda home: toy(home, train=(tensors()[0].to_sparse(), torch.arange(6))), "sparse_coo; give plain real"),
        (lambda home: toy(home, train=(tensors()[0] * 1j, torch.arange(6))), "complex64"),
        (
            lambda home: toy(home, train=Unreadable(30)),
            "row 2 of the train rows .* OSError: no such file",
        ),
        (lambda home: toy(home, epochs="3"), "epochs='3': a whole number from 1 on"),
        (lambda home: toy(home, optimizer={"name": "sgdd", "lr": 1}), r"train\.optimizer\.name: .*'sgd'"),
        (lambda home: toy(home, optimizer="sgd"), "optimizer='sgd': a mapping of settings"),
        (lambda home: toy(home, augment="flip"), "augment='flip': a list of names"),
        (lambda home: toy(home, seeds=3), "seeds=3: a list of seeds"),
        (lambda home: toy(home, mean={"image": [0.1, 0.2]}), r"mean: 'image' is of shape \(1, 6, 6\), 2 numbers"),
        (lambda home: toy(home, std={"image": [0.0]}), "std: 'image' has 0; deviations are above 0"),
        (lambda home: toy(home, mean={"imge": [0.1]}), "mean: the rows have no input 'imge'.*'image'"),
        (lambda home: toy(home, teacher=[mini]), "is no net; give a module"),
        (lambda home: objects.task(3, home, train=0, test=0, student=mini), "not 3"),  # type: ignore[arg-type]
        (lambda home: objects.method(Locked, home), "'locked'.* lock is a lock, which has no content.*make that part"),
        (lambda home: objects.method(Wide, home), "method 'wide'"),
        (lambda home: objects.method(Broken, home), "'broken'.*ValueError: no idea"),
        (lambda home: objects.method(Net, home), "is no method; derive a class from kdbench.Method"),
        (lambda home: objects.method(Mine, home, "kd"), "there is a method 'kd' already"),
        (lambda home: objects.method(Mine, home, "Not A Name"), "a method's name is of"),
        (lambda home: objects.net(3, home), "3 is no net; give a module"),  # type: ignore[arg-type]
        (lambda home: objects.net(mini, home, mops=["a"]), "unexpected keyword argument 'mops'.*taps are maps"),
        (lambda home: toy(home, train=Pictures(30, noise=True)), "row 0 of the train rows is another when it is read"),
        (lambda home: toy(home, train=3), "the train rows are a int; give a torch.utils.data.Dataset"),
        (lambda home: toy(home, test=[(1, 2), (3, 4)]), "test .*give both one form|differ"),
        (lambda home: toy(home, train=(torch.ones(3, 2), torch.ones(4))), "of equal number are asked for"),
        (lambda home: toy(home, epochs=0), "epochs=0: a whole number from 1 on"),
        (lambda home: toy(home, student=5), "5 is no net"),
    ],
)
def test_what_cannot_be_is_one_line(home: Home, make: Any, line: str) -> None:
    with pytest.raises(UserError, match=line) as refused:
        make(home)
    assert "\n" not in str(refused.value)


def test_rows_that_were_left_out_of_the_home_are_said(home: Home, tmp_path: Path) -> None:
    spec = registry.task(toy(home))
    with pytest.raises(UserError, match=r"rows [0-9a-f]{12} are not in this home; give the datasets again"):
        load(spec.data, Place(None, tmp_path / "elsewhere"))


def test_content_follows_what_an_object_refers_to() -> None:
    def make(step: float) -> Any:
        def inner(x: float) -> float:
            return x + step

        return lambda x: inner(x) * 2

    same, again, other = (of(make(step), "it").digest for step in (1.0, 1.0, 2.0))
    assert same == again != other
    assert (
        of({"a": [1, {2, 3}], "b": torch.ones(2)}, "it").digest
        != of({"a": [1, {2, 3}], "b": torch.zeros(2)}, "it").digest
    )
    cycle: list[Any] = []
    cycle.append(cycle)
    assert of(cycle, "it").digest == of(cycle, "it").digest


SCRIPT = """
import sys
from pathlib import Path
import torch, kdbench
from torch import nn
from kdbench import objects
from kdbench.base.home import Home
from kdbench.runs.evaluate import Command, evaluate_seeds
from kdbench.specs.order import ConfigOrder

class Mine(kdbench.Method):
    defaults = {"weight": WEIGHT}
    def losses(self, batch, at):
        out = self.student(batch)
        with torch.no_grad():
            taught = self.teacher(batch)
        return {"ce": self.task.loss(out, batch), "l2": self.hp.weight * (out.logits - taught.logits).square().mean()}

@kdbench.net("mini", maps=["0"])
def mini(shape, classes):
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(nn.Conv2d(shape[0], 4, 3), nn.ReLU(), pool, nn.Flatten(), nn.Linear(4, classes))

def main():
    home = Home(Path(sys.argv[1]))
    torch.manual_seed(0)
    x, y = torch.randn(60, 1, 6, 6), torch.arange(60) % 3
    task = objects.task("toy", home, train=(x, y), test=(x, y), student=mini, teacher=mini, epochs=1, batch=20)
    order = ConfigOrder(method=objects.method(Mine, home), task=task)
    command = Command(order, "cpu", home.root)
    done = evaluate_seeds(command, seeds=[0], overhead="quick", force=False, announce=lambda record: None)
    (record,) = done.records
    print(record.run_id, record.status, record.overhead.mode if record.overhead else "")

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_script_is_run_measured_answered_from_its_record_and_verified(tmp_path: Path) -> None:
    def python(weight: str) -> list[str]:
        script = tmp_path / "mine.py"
        script.write_text(SCRIPT.replace("WEIGHT", weight))
        command = [sys.executable, str(script), str(tmp_path / "home")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    first = python("0.5")
    assert first[1:] == ["ok", "quick"]
    assert python("0.5") == first  # from its record
    assert python("0.25")[0] != first[0]
    home = Home(tmp_path / "home")
    record = str(home.records / f"{first[0]}.json")
    kdbench = [sys.executable, "-m", "kdbench", "verify", record, "--replay", "--out", str(home.root)]
    done = subprocess.run(kdbench, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is of object:mine, which is not registered here; give its path with --local" in done.stderr
    paths = [path for path in home.objects.glob("*/[!.]*") if not (path.name == "mine" and "0.25" in _card(path))]
    named = [word for path in paths for word in ("--local", str(path))]
    done = subprocess.run([*kdbench, *named], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "the first losses are the same bits" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_script_that_was_killed_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT.replace("WEIGHT", "0.5").replace('"quick"', '"off"').replace("epochs=1", "epochs=6"))
    undisturbed, home = Home(tmp_path / "undisturbed"), Home(tmp_path / "home")
    fault = {"do": "kill", "event": "os.rename", "path": r"/runs/.*/\.current\.pt", "nth": 3}
    struck = {"PYTHONPATH": str(FAULTS), "KDBENCH_FAULT": json.dumps(fault | {"mark": str(tmp_path / "mark")})}

    def python(home: Home, **env: str) -> int:
        own = {**ENV, "KDBENCH_CHECKPOINT_SECONDS": "0", **env}
        return subprocess.run([sys.executable, str(script), str(home.root)], env=own, check=False).returncode

    assert python(undisturbed) == 0
    assert python(home, **struck) == -9
    assert list(home.records.glob("*.json")) == []
    assert python(home) == 0
    check_equal(home, undisturbed)


def _card(folder: Path) -> str:
    return (folder / "card.yaml").read_text()
