"""Small methods that together use every part of the adapter contract, each right in itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.checks.tiny import method_config
from kdbench.contract import VALUES, At, Batch, Group, Method, Needs, Network, Out, Rows, Stage, Terms, Views
from kdbench.engine.assemble import hyper_parameters
from kdbench.specs.card import Card
from kdbench.specs.registry import MethodRef


@dataclass(frozen=True)
class ToyRef(MethodRef):
    """A method that is in no package."""

    cls: type[Method] = field(default=Method)

    def adapter(self) -> type[Method]:
        return self.cls


def toy_ref(cls: type[Method], **card: Any) -> ToyRef:
    """A registered form of a toy; ``card`` sets fields of its card."""
    facts = {
        "name": cls.__name__.lower(), "adapter": cls.__name__, "title": "A toy", "authors": ["kdbench"], "year": 2026,
        "venue": "kdbench", "bibkey": "toy", "family": "logit", "summary": "A toy.", "version": "1.0.0",
        "kinds": sorted(getattr(cls, "KINDS", {"classification"})),
    }  # fmt: skip
    made = Card.model_validate({**facts, "hyper_parameters": getattr(cls, "HYPER_PARAMETERS", {}), **card})
    ref = ToyRef(name=made.name, card=made, package="toys", cls=cls)
    needs = card.get("needs", cls.needs(hyper_parameters(method_config(ref))).words())
    return replace(ref, card=made.model_copy(update={"needs": needs}))


class Toy(Method):
    """Task loss and nothing else; ``NEEDS`` holds what differs from the defaults."""

    KINDS = frozenset({"classification"})
    NEEDS: ClassVar[dict[str, Any]] = {}

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(kinds=cls.KINDS, **cls.NEEDS)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        return {"task": self.task.loss(self.student(batch), batch)}


class Bank(Toy):
    """A memory bank written after each step from what the losses hand over, noise from ``at.rng``, a ramp by epoch."""

    NEEDS: ClassVar[dict[str, Any]] = {
        "batch": frozenset({"index"}),
        "student": frozenset({"logits", "emb"}),
        "teacher": frozenset({"emb"}),
    }

    def setup(self) -> None:
        self.embed = nn.Linear(self.task.probe(self.student).emb.shape[1], self.task.probe(self.teacher).emb.shape[1])
        self.register_buffer("memory", torch.zeros(self.task.n_train, self.embed.out_features))

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        out = self.student(batch)
        noise = torch.randn(out.emb.shape, generator=at.rng, device=out.emb.device)
        wanted = self.teacher(batch).emb + self.memory[batch.index]
        embedded = self.embed(out.emb + 0.1 * noise)
        near = F.mse_loss(embedded, wanted)
        terms = {"task": self.task.loss(out, batch), "near": 0.1 * at.epoch / at.epochs * near}
        return Terms(terms, handed=embedded.detach())

    def after_step(self, batch: Batch, at: At) -> None:
        self.memory[batch.index] = 0.9 * self.memory[batch.index] + 0.1 * batch.handed


class Adversary(Toy):
    """A stage with two optimisers and two batches a step, then one with losses; modules made between stages."""

    KINDS = frozenset({"classification", "regression"})
    NEEDS: ClassVar[dict[str, Any]] = {
        "student": frozenset({"logits", "emb"}),
        "teacher": frozenset({"emb"}),
        "min_batch": 2,
    }

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        width = self.task.probe(self.student).emb.shape[1]
        self.embed = nn.Linear(width, self.task.probe(self.teacher).emb.shape[1])
        self.critic = nn.Sequential(
            nn.Linear(self.embed.out_features, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1)
        )

    def fool(self, draw: Any, at: At, update: Any) -> dict[str, Tensor]:
        batch, other = draw(), draw()
        fake, real = self.embed(self.student(batch).emb), self.teacher(other).emb
        told = F.softplus(self.critic(fake.detach())).mean() + F.softplus(-self.critic(real)).mean()
        update(told, "critic")
        fooled = F.softplus(-self.critic(fake)).mean()
        update(fooled, "student")
        return {"told": told, "fooled": fooled}

    def stages(self) -> Iterator[Stage]:
        student = [*self.student.parameters(), *self.embed.parameters()]
        rates = {"name": "sgd", "lr": 0.01, "momentum": 0.5}
        critic = Group("critic", list(self.critic.parameters()), rates, schedule="constant")
        yield Stage(
            "fool", [critic, Group("student", student)], step=self.fool, steps=7, batch=20, ledger="warmup_phase"
        )
        self.critic.requires_grad_(False)
        self.head = nn.Linear(self.embed.out_features, 1, bias=False)  # from the stage's own stream, resumed or not
        groups = [Group("student", student, {"weight_decay": 1e-3}), Group("head", list(self.head.parameters()))]
        yield Stage("distill", groups, losses=self.distill, epochs=self.task.epochs)

    def distill(self, batch: Batch, at: At) -> dict[str, Tensor]:
        out = self.student(batch)
        near = F.mse_loss(self.head(self.embed(out.emb)), self.head(self.teacher(batch).emb))
        return {"task": self.task.loss(out, batch), "near": 0.1 * near}


class RawViews(Toy):
    """Two shifted views of the raw pixels; owns the flip."""

    NEEDS: ClassVar[dict[str, Any]] = {"teachers": (), "teacher": frozenset(), "views": 2}

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        out = self.student(batch)
        first, second = batch.unview(out.logits).softmax(-1)
        return {"task": self.task.loss(out, batch), "agree": F.mse_loss(first, second)}

    def stages(self) -> Iterator[Stage]:
        views = Views(2, self.shifted, where="raw", replaces=("flip",))
        yield Stage("distill", self.groups(), losses=self.losses, epochs=self.task.epochs, views=views)

    @staticmethod
    def shifted(pixels: Tensor, rng: torch.Generator) -> Tensor:
        assert pixels.dtype is torch.uint8
        by = torch.randint(3, (1,), generator=rng)
        width = pixels.shape[-1]
        return torch.stack(
            [pixels, pixels[..., (torch.arange(width) - by) % width]]
        )  # rolled, and the host waits for nothing


class FinalViews(RawViews):
    """Four rotations of the finished pixels; one view alone is labelled."""

    NEEDS: ClassVar[dict[str, Any]] = {**RawViews.NEEDS, "views": 4, "data": frozenset({"rotation_safe"})}

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        upright = batch.view(0)
        spread = batch.unview(self.student(batch).logits).softmax(-1).var(0).mean()
        return {"task": self.task.loss(self.student(upright), upright), "spread": spread}

    def stages(self) -> Iterator[Stage]:
        views = Views(4, lambda x, rng: torch.stack([x.rot90(k, (2, 3)) for k in range(4)]))
        yield Stage("distill", self.groups(), losses=self.losses, epochs=self.task.epochs, views=views)


class Mutual(Toy):
    """Three students that teach each other; the leader has an optimiser of its own."""

    NEEDS: ClassVar[dict[str, Any]] = {"teachers": (), "teacher": frozenset(), "students": 3}

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        outs = [student(batch) for student in self.students]
        mean = torch.stack([out.logits.softmax(1) for out in outs]).mean(0).detach()
        terms = {f"task{k}": self.task.loss(out, batch) for k, out in enumerate(outs)}
        return terms | {"mutual": sum(F.kl_div(o.logits.log_softmax(1), mean, reduction="batchmean") for o in outs)}

    def groups(self) -> list[Group]:
        peers = [p for student in self.students[1:] for p in student.parameters()]
        return [Group("leader", list(self.student.parameters())), Group("peers", peers, {"lr": 0.005}, "constant")]


class Generated(Toy):
    """Trains a generator, keeps what it makes, trains the student on real and made rows."""

    NEEDS: ClassVar[dict[str, Any]] = {"min_batch": 2, "inputs": "same", "batch": frozenset({VALUES})}

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.shape = self.task.raw_shape["image"]
        self.register_buffer("basis", torch.rand(self.task.classes, 6, generator=self.task.rng("basis")))
        self.generator = nn.Linear(6, torch.Size(self.shape).numel())

    def make(self, labels: Tensor) -> Tensor:
        return self.generator(self.basis[labels]).sigmoid().unflatten(1, self.shape)

    def imitate(self, draw: Any, at: At, update: Any) -> dict[str, Tensor]:
        batch = draw()
        loss = self.task.loss(self.teacher(replace(batch, x={"image": self.make(batch.y) * 4 - 1})), batch)
        update(loss)
        return {"imitate": loss}

    def stages(self) -> Iterator[Stage]:
        means = self.task.keep("means", self.class_means, scope="task", ledger="bank_init")["means"]
        with torch.no_grad():
            self.generator.bias.copy_(torch.logit(means.mean(0).flatten() / 255, eps=1e-3))
        group = Group("generator", list(self.generator.parameters()), {"name": "adamw", "lr": 1e-2}, "constant")
        yield Stage("gan", [group], step=self.imitate, steps=8, ledger="generator_train", once=True)
        self.generator.requires_grad_(False)
        kept = self.task.keep("rows", self.generate)
        extra = Rows({"image": kept["image"]}, kept["y"])
        self.shift = nn.Linear(self.task.classes, self.task.classes)  # initialised after what keep ran, or did not run
        assert self.task.extend(extra).n_train == self.task.n_train + len(extra.y)
        groups = [Group("student", [*self.student.parameters(), *self.shift.parameters()])]
        yield Stage("distill", groups, losses=self.distill, epochs=self.task.epochs, extra=extra)

    def distill(self, batch: Batch, at: At) -> dict[str, Tensor]:
        out = self.student(batch)
        near = F.mse_loss(out.logits, self.shift(self.teacher(batch).logits))
        return {"task": self.task.loss(out, batch), "near": 0.01 * near}

    def class_means(self) -> dict[str, Tensor]:
        rows = self.task.rows(torch.arange(self.task.n_train))
        found = [rows.x["image"][rows.y == c].float() for c in range(self.task.classes)]
        return {"means": torch.stack([x.mean(0) if len(x) else torch.zeros(self.shape) for x in found])}

    def generate(self) -> dict[str, Tensor]:
        labels = torch.randint(self.task.classes, (20,), generator=self.task.rng("labels"))
        noisy = self.make(labels) + 0.1 * torch.rand((20, *self.shape))  # the global generator: made once, kept
        return {"image": (255 * noisy).clamp(0, 255).to(torch.uint8), "y": labels}


class Outer(Toy):
    """A method around another: its stage first, then the inner method's on more rows."""

    HYPER_PARAMETERS: ClassVar[dict[str, Any]] = {
        "inner": {"default": "kd", "type": "method", "doc": "the method inside"}
    }

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return replace(hp.inner.needs(), kinds=cls.KINDS)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.extra = self.task.rows(torch.arange(5))
        self.inner = self.hp.inner.build(self.task.extend(self.extra), list(self.students), self.teachers)

    def stages(self) -> Iterator[Stage]:
        yield Stage("warm", self.groups(), losses=self.losses, epochs=1)
        for stage in self.inner.stages():
            yield replace(stage, extra=self.extra)


class Headed(Toy):
    """The deployed network keeps a module of the method's."""

    NEEDS: ClassVar[dict[str, Any]] = {"changes_student": True, "student": frozenset({"logits", "emb", "classifier"})}

    class Deployed(nn.Module):
        def __init__(self, student: Network, outputs: int) -> None:
            super().__init__()
            self.student, self.head = student, nn.Linear(student.classifier.in_features, outputs)

        def forward(self, batch: Batch) -> Out:
            emb = self.student(batch).emb
            return Out(self.head(emb), emb=emb)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.student.classifier.requires_grad_(False)
        self.headed = self.Deployed(self.student, self.task.classes)

    @property
    def deployed(self) -> nn.Module:
        return self.headed

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        return {"task": self.task.loss(self.headed(batch), batch)}


class TrainedTeacher(Toy):
    """Teacher and student train together, the teacher on batch statistics."""

    NEEDS: ClassVar[dict[str, Any]] = {"trains_teacher": True, "teacher_batchnorm": "batch"}

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.peer = self.teacher  # registered, so that its state is kept with the method's

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        out, teacher = self.student(batch), self.teacher(batch)
        return {"task": self.task.loss(out, batch), "teacher": self.task.loss(teacher, batch)}


class TwoRoles(Toy):
    """A student of one input, teachers of two others."""

    NEEDS: ClassVar[dict[str, Any]] = {"teachers": ("image", "audio"), "inputs": "other"}

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        assert set(batch.x) == {"profiles", "image", "audio"}
        wanted = sum(self.teachers[role](batch).logits for role in ("image", "audio")) / 2
        out = self.student(batch)
        return {"task": self.task.loss(out, batch), "near": 0.01 * F.mse_loss(out.logits, wanted)}


class Gaps(TwoRoles):
    """One teacher's input is missing in some rows."""

    NEEDS: ClassVar[dict[str, Any]] = {"teachers": ("image", "audio"), "batch": frozenset({"present"})}

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        there, out = batch.present["audio"], self.student(batch)
        assert "image" not in batch.present
        assert there.dtype is torch.bool
        far = (out.logits - self.teachers["audio"](batch).logits).square().sum(1)
        return {"task": self.task.loss(out, batch), "near": 0.01 * torch.where(there, far, 0).sum() / len(there)}


class BatchStatistics(Toy):
    """The frozen teacher normalises with the statistics of the batch, so its running statistics move."""

    NEEDS: ClassVar[dict[str, Any]] = {"teacher_batchnorm": "batch", "min_batch": 2}

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        out = self.student(batch)
        return {"task": self.task.loss(out, batch), "near": 0.01 * F.mse_loss(out.logits, self.teacher(batch).logits)}


TOYS = [
    Bank, Adversary, RawViews, FinalViews, Mutual, Generated, Outer, Headed, TrainedTeacher, TwoRoles, Gaps,
    BatchStatistics,
]  # fmt: skip
