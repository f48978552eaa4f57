"""The form of an adapter: absent fields, setup(), what losses hand over; and adapters of before, as they stand."""

from __future__ import annotations

import copy
import pickle
import warnings
from types import SimpleNamespace

import pytest
import torch

from kdbench.base.once import said_once
from kdbench.contract import Method, NotApplicable, Out


@pytest.fixture(autouse=True)
def unsaid():
    said_once.cache_clear()


def test_an_absent_field_raises_with_what_is_there():
    out = Out(torch.zeros(2, 3), maps=(torch.zeros(2, 4, 1, 1),))
    with pytest.warns(FutureWarning, match=r"ask out\.has\('emb'\) first"), pytest.raises(NotApplicable) as raised:
        _ = out.emb
    assert str(raised.value) == "a network that it reads gives no emb, but logits, maps"
    assert [field for field in out._fields if out.has(field)] == ["logits", "maps"]


def test_an_output_is_the_tuple_it_was():
    out = Out(None, (), (), None, torch.ones(2, 1))
    logits, maps, preact, stem, emb = out
    assert (logits, maps, preact, stem) == (None, (), (), None)
    assert list(out._asdict()) == ["logits", "maps", "preact", "stem", "emb"]
    assert torch.equal(copy.copy(out).emb, emb)
    assert type(out._replace(logits=emb)) is Out
    assert out._replace(logits=emb).float().logits.dtype is torch.float32
    assert len(pickle.loads(pickle.dumps(out))) == len(Out(*out)) == len(out)
    coded = out._replace(code=emb)
    assert list(coded._asdict())[-1] == "code"
    assert torch.equal(copy.copy(coded).float().code, emb)
    assert torch.equal(pickle.loads(pickle.dumps(coded)).code, emb)


def test_compiled_networks_return_it():
    class Net(torch.nn.Module):
        def forward(self, x):
            out = Out(x, (x,))
            return Out(out.logits + 1, out.maps)

    out = torch.compile(Net(), backend="eager", fullgraph=True)(torch.zeros(2))
    assert type(out) is Out
    assert out.logits.tolist() == [1, 1]


def made(cls):
    return cls(SimpleNamespace(), [torch.nn.Linear(1, 1)], {}, SimpleNamespace(width=3))


def test_setup_is_called_when_task_and_networks_are_there():
    class New(Method):
        def setup(self):
            self.layer = torch.nn.Linear(self.student.out_features, self.hp.width)

    assert made(New).layer.out_features == 3


def test_a_constructor_of_before_works_and_says_nothing():
    class Old(Method):
        def __init__(self, task, students, teachers, hp):
            super().__init__(task, students, teachers, hp)
            self.layer = torch.nn.Linear(1, hp.width)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert made(Old).layer.out_features == 3


def test_a_setup_of_before_is_called_by_its_own_constructor_alone():
    class Old(Method):
        def __init__(self, *args):
            super().__init__(*args)
            self.calls = []
            self.setup("a width")

        def setup(self, what):
            self.calls.append(what)

    class Derived(Old):
        def setup(self, what):
            super().setup(f"{what} more")

    with pytest.warns(FutureWarning, match="Old has __init__ and setup"):
        assert made(Old).calls == ["a width"]
    with pytest.warns(FutureWarning, match="Derived has __init__ and setup"):
        assert made(Derived).calls == ["a width more"]


def test_a_wrapper_of_before_passes_on_what_was_handed(tmp_path):
    """One that gives an inner method's stages and forwards ``after_step(batch, at)`` as it is."""
    from kdbench.checks.tiny import method_config, tiny
    from kdbench.engine.assemble import hyper_parameters
    from kdbench.engine.stage import StageRun
    from kdbench.specs import registry

    ref = registry.method("crd+jda")
    config = method_config(ref)
    needs = ref.adapter().needs(hyper_parameters(config))
    prepared = tiny(ref, config, needs, "classification").prepare(tmp_path)
    inner = prepared.method.inner
    before = [bank.rows.clone() for bank in inner.banks]
    run = StageRun(prepared.method.train(), next(iter(prepared.method.stages())), prepared.task)
    run.step()
    assert all(not torch.equal(old, bank.rows) for old, bank in zip(before, inner.banks, strict=True))
