"""Methods that each break one rule of the contract; ``checks/test_checks.py`` says which."""

from __future__ import annotations

import sys
import time

import torch
from torch import nn

from kdbench.contract import Group, NotApplicable, Out

toys = sys.modules["kdbench_tests.support.toy_methods"]  # tests are no package: the fixture loads it first
Toy, Adversary, Headed = toys.Toy, toys.Adversary, toys.Headed


class NoTerms(Toy):
    def losses(self, batch, at):
        return {}


class NotFinite(Toy):
    def losses(self, batch, at):
        return {"task": super().losses(batch, at)["task"], "near": torch.tensor(0.0).log()}


class NotReduced(Toy):
    def losses(self, batch, at):
        return {"task": self.student(batch).logits}


class Detached(Toy):
    def losses(self, batch, at):
        return {"task": super().losses(batch, at)["task"].detach()}


class Reserved(Toy):
    def losses(self, batch, at):
        return {"total": super().losses(batch, at)["task"]}


class DetachedUpdate(Adversary):
    def fool(self, draw, at, update):
        return super().fool(draw, at, lambda loss, group=None: update(loss.detach(), group))


class Raises(Toy):
    def losses(self, batch, at):
        raise IndexError("row 7 of nothing")


class Refuses(Toy):
    def __init__(self, *args):
        raise NotApplicable("it wants a transformer")


class NoStage(Toy):
    def stages(self):
        return iter(())


class NewNames(Toy):
    def losses(self, batch, at):
        terms = super().losses(batch, at)
        return terms if at.step < 3 else terms | {"late": terms["task"] * 0}


class Unused(Toy):
    def __init__(self, *args):
        super().__init__(*args)
        self.embed = nn.Linear(2, 3)


class Ungrouped(Unused):
    def losses(self, batch, at):
        return {"task": super().losses(batch, at)["task"] + 0 * self.embed.weight.sum() + 0 * self.embed.bias.sum()}

    def groups(self):
        return [Group("student", list(self.student.parameters()))]


class WeightOfZero(Unused):
    def losses(self, batch, at):
        return {**super().losses(batch, at), "near": 0 * self.embed.weight.sum() + 0 * self.embed.bias.sum()}


class Rounded(Unused):
    def losses(self, batch, at):
        out = self.student(batch)
        return {"task": self.task.loss(out, batch), "near": self.embed(out.logits[:, :2]).round().mean()}


class NeverRamped(Unused):
    def losses(self, batch, at):
        near = self.embed(self.student(batch).logits[:, :2]).square().mean()
        return {**super().losses(batch, at), "near": max(0, at.epoch - 100) * near}


class MovesTeacher(Toy):
    def after_step(self, batch, at):
        self.teacher.classifier.bias += 1e-6


class WakesTeacher(Toy):
    def __init__(self, *args):
        super().__init__(*args)
        self.teacher.train()


class TakesTeacher(Toy):
    def groups(self):
        return [*super().groups(), Group("teacher", list(self.teacher.parameters()))]


class Climbs(Toy):
    def losses(self, batch, at):
        return {"task": -super().losses(batch, at)["task"]}


class Keeps(Headed):
    NEEDS = Toy.NEEDS


class Hooked(Toy):
    def __init__(self, *args):
        super().__init__(*args)
        self.student.register_forward_hook(lambda net, given, out: out._replace(logits=out.logits * 2))


class Unseeded(Toy):
    def losses(self, batch, at):
        return {"task": super().losses(batch, at)["task"] * (1 + time.perf_counter_ns() % 1000 / 1e6)}


class Forgets(Toy):
    calls = 0

    def losses(self, batch, at):
        self.calls += 1
        return {"task": super().losses(batch, at)["task"] * (1 + 0.1 * self.calls)}


class ForgetsStage(Adversary):
    told = 1.0

    def fool(self, draw, at, update):
        terms = super().fool(draw, at, update)
        self.told += terms["told"].item()
        return terms

    def distill(self, batch, at):
        return {name: term * self.told for name, term in super().distill(batch, at).items()}


class Rebinds(Toy):
    def __init__(self, *args):
        super().__init__(*args)
        self.register_buffer("mean", torch.zeros(10))

    def losses(self, batch, at):
        return {"task": super().losses(batch, at)["task"] * (1 + self.mean.square().mean())}

    def after_step(self, batch, at):
        self.mean = 0.9 * self.mean + 0.1 * self.student(batch).logits.mean(0)


class RebindsTheSame(Toy):
    """Its values stay right for as long as nothing else takes the memory."""

    def __init__(self, *args):
        super().__init__(*args)
        self.register_buffer("scale", torch.zeros(()))

    def losses(self, batch, at):
        task = super().losses(batch, at)["task"]
        with torch.no_grad():
            self.scale = torch.where(self.scale > 0, self.scale, 1 + task)
        return {"task": task * self.scale}


class NeedsMore(Toy):
    def losses(self, batch, at):
        logits = self.student(batch).logits
        assert len(logits) > 2, "three rows at least"
        return {"task": self.task.loss(Out(logits), batch)}


class CardOnly(Toy):
    pass
