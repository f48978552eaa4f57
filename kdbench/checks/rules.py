"""The rules of the adapter contract. Each says in the words of an adapter's author what is wrong and what to do."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from kdbench.base.errors import UserError, described
from kdbench.checks import golden
from kdbench.checks.replayed import replayed
from kdbench.checks.result import Skipped, Verdict
from kdbench.checks.tiny import Tiny, method_config
from kdbench.checks.watch import Interrupted, Seen, Violation, WatchedStages, first_difference, state_copy
from kdbench.contract import Batch, Needs, NotApplicable, Stage
from kdbench.engine.assemble import Prepared, hyper_parameters
from kdbench.engine.stage import StageRun
from kdbench.engine.task import Task, evaluating
from kdbench.engine.trainer import Trainer
from kdbench.kinds import current
from kdbench.specs.config import run_config
from kdbench.specs.registry import MethodRef

RULES = {
    "unknown hyper-parameter": "a mistyped hyper-parameter is refused with the right name",
    "kinds": "the card lists the task kinds that needs() gives",
    "needs": "the card's needs are the words of needs() at the defaults",
    "runs": "all stages train on a tiny task of every kind it declares",
    "losses": "terms are named, finite and 0-d, and what is minimised depends on a parameter",
    "loss names": "a stage logs the same terms at every step",
    "gradients": "every parameter of a group gets a gradient that is not always 0, every own parameter is in a group",
    "teachers": "teachers stay bitwise as they were, in eval mode, unless needs() says otherwise",
    "teacher groups": "no teacher parameter is in a group unless needs() says so",
    "task loss": "the deployed network's own task loss falls",
    "deployment": "the deployed network gives the same outputs without the method",
    "same seed": "the same seed gives the same terms, bit for bit",
    "resume": "training stopped in the middle of any stage goes on to the same bits",
    "replay": "a step done again without Python, as a CUDA graph does it, is the step",
    "smallest batch": "the smallest batch it declares works, a smaller one is refused",
    "golden vectors": "those of a package of its own give the stored values; a card that says verified has some",
}
"""Rule to what it says."""
ON_TASK = tuple(RULES)[3:-1]
"""Those that run on a tiny task."""
FEW_STEPS = 2


@dataclass
class TinyRun:
    """A tiny run that came to its end."""

    prepared: Prepared
    seen: Seen
    state: dict[str, Tensor]


def crash(doing: str, error: Exception) -> str:
    """An exception of an adapter, with the place it came from."""
    return f"{doing} raised {type(error).__name__}: {described(error)}"


def unknown_hyper_parameter(ref: MethodRef) -> Verdict:
    """Rule ``unknown hyper-parameter``."""
    right = next((name for name, hp in ref.card.hyper_parameters.items() if hp.kind != "method"), None)
    wrong = f"{right or 'temperature'}x"
    try:
        run_config(ref.name, "digits", [f"method.{wrong}=1"])
    except UserError as error:
        if right is None or repr(f"method.{right}") in str(error):
            return None
        return f"method.{wrong}=1 is refused without naming {right!r}: {error}"
    return f"method.{wrong}=1 is accepted; declare every hyper-parameter in the card"


def kinds(ref: MethodRef, needs: Needs) -> Verdict:
    """Rule ``kinds``."""
    found = needs.kinds if needs.kinds is None else frozenset(current(sorted(needs.kinds)))
    if found == (None if ref.kinds is None else frozenset(ref.kinds)):
        return None
    given = "any (None)" if found is None else ", ".join(sorted(found)) or "none"
    return f"the card says kinds: {ref.kinds_said}; needs() gives {given}; make them equal"


def needs_said(ref: MethodRef) -> Verdict:
    """Rule ``needs``: at the defaults, not at the smoke values that the other rules run with."""
    whole = replace(ref, card=ref.card.model_copy(update={"smoke": {}}))
    found = whole.adapter().needs(hyper_parameters(method_config(whole))).words()
    if list(ref.needs) == found:
        return None
    where = "its variant in the card" if ref.variant is not None else "the card"
    return f"{where} says needs: [{', '.join(ref.needs)}]; needs() gives [{', '.join(found)}]; write those there"


def golden_vectors(ref: MethodRef) -> Verdict:
    """Rule ``golden vectors``, of a method that is not kdbench's own: those are run by ``tests/test_parity.py``."""
    folder, cases = golden.folder_of(ref), golden.cases_of(ref)
    if not cases:
        return f"the card says parity: {ref.card.parity}, and no case lies in {folder}; write unverified, or add some"
    try:
        mapping = golden.mapping_of(folder)
        found = [golden.read(path, ref.card.name, mapping) for path in cases]
        wrong = [
            f"{case.name} in {precision}: {problem}"
            for case in found
            for precision in case.bounds
            for problem in golden.run(case, mapping, precision)
        ]
    except Exception as error:
        return f"the golden vectors in {folder} raised {type(error).__name__}: {error}"
    more = f" ({len(wrong) - 1} more)" if len(wrong) > 1 else ""
    return f"{wrong[0]}{more}; the cases are in {folder}" if wrong else None


def on_task(tiny: Tiny, folder: Path) -> Iterator[tuple[str, Verdict]]:
    """All rules about training, on one tiny task.

    Args:
        folder: empty; holds the runs' checkpoints.
    """
    first = tiny.prepare(folder / "first")
    teachers = {role: state_copy(teacher.net) for role, teacher in first.teachers.items()}
    watch = WatchedStages(first)
    try:
        before = task_loss(first.task, first.method.deployed)
        Trainer(first.method, first.task, folder / "first" / "run").run()
        if not watch.seen.lengths:
            raise NotApplicable("stages() yields no stage")
    except Exception as error:
        broken, found = ("losses", str(error)) if isinstance(error, Violation) else ("runs", crash("training", error))
        yield broken, found
        yield from ((rule, Skipped(f"{broken} failed")) for rule in ON_TASK if rule != broken)
        return
    run = TinyRun(first, watch.seen, state_copy(first.method))
    verdicts: dict[str, Verdict] = {}

    @functools.cache
    def stopped() -> Verdict:
        try:
            return resume(tiny, run, folder / "resume")
        except Exception as error:
            return crash("checking it", error)

    judges: dict[str, Callable[[], Verdict]] = {
        "runs": lambda: None,
        "losses": lambda: None,
        "loss names": lambda: loss_names(run.seen),
        "gradients": lambda: gradients(run),
        "teachers": lambda: teachers_kept(run, teachers),
        "teacher groups": lambda: teacher_groups(run),
        "task loss": lambda: falls(
            before, task_loss(first.task, first.method.deployed), tiny.config.task.of_kind.one_way
        ),
        "deployment": lambda: deployment(tiny, run, folder / "deployment"),
        # A run that was stopped and gave the same bits is a second run of the seed already.
        "same seed": lambda: same_seed(tiny, run, folder / "same") if stopped() else None,
        "resume": lambda: Skipped("same seed failed") if verdicts["same seed"] else stopped(),
        "replay": lambda: Skipped("same seed failed") if verdicts["same seed"] else _replayed(tiny, folder / "replay"),
        "smallest batch": lambda: smallest_batch(tiny, first.needs, folder / "smallest"),
    }
    for rule, judge in judges.items():
        try:
            verdicts[rule] = judge()
        except Exception as error:  # an adapter may fail anywhere; that is a finding, not a traceback
            verdicts[rule] = crash("checking it", error)
        yield rule, verdicts[rule]


def loss_names(seen: Seen) -> Verdict:
    """Rule ``loss names``."""
    first: dict[str, tuple[str, ...]] = {}
    for (stage, step), terms in seen.terms.items():
        names = first.setdefault(stage, tuple(terms))
        if tuple(terms) != names:
            return (
                f"stage {stage!r} logs {', '.join(names)} at first and {', '.join(terms)} at step {step}; "
                "return every term at every step, as zeros where it does not apply"
            )
    return None


def gradients(run: TinyRun) -> Verdict:
    """Rule ``gradients``."""
    seen = run.seen
    missed = [name for p, name in seen.declared.items() if p not in seen.reached]
    if missed:
        return f"no gradient ever reaches {_some(missed)}; use it in a loss of its stage or leave it out of the group"
    still = [name for p, name in seen.declared.items() if p not in seen.moved]
    if still:
        return (
            f"the gradient of {_some(still)} is exactly 0 at every step; look for a weight of 0 or a function without "
            "slope (sign, round, argmax) on its way to the losses; a term that starts at weight 0 has to rise within "
            "this short run: shorten its ramp in the card's smoke values"
        )
    students = {p for student in run.prepared.method.students for p in student.parameters()}
    named = run.prepared.method.named_parameters()
    idle = [n for n, p in named if p.requires_grad and p not in seen.declared and p not in students]
    if idle:
        return f"{_some(idle)} is in no group of any stage; put it into groups() or set requires_grad_(False)"
    return None


def teachers_kept(run: TinyRun, before: dict[str, dict[str, Tensor]]) -> Verdict:
    """Rule ``teachers``."""
    needs = run.prepared.needs
    if needs.trains_teacher:
        return None
    if run.seen.teacher_modes:
        mode = "train" if needs.teacher_batchnorm == "batch" else "eval"
        return (
            f"teacher module {_some(sorted(run.seen.teacher_modes))} was not in {mode} mode; leave the teachers' modes "
            "alone, or say teacher_batchnorm='batch' in needs()"
        )
    for role, teacher in run.prepared.teachers.items():
        after = state_copy(teacher.net)
        if needs.teacher_batchnorm == "batch":  # running statistics follow the batches then
            after = {name: after[name] for name, _ in teacher.net.named_parameters()}
        changed = first_difference({name: before[role][name] for name in after}, after)
        if changed:
            return f"{role} teacher changed: {changed}; a teacher is a constant unless needs() has trains_teacher=True"
    return None


def teacher_groups(run: TinyRun) -> Verdict:
    """Rule ``teacher groups``."""
    if run.seen.trained_teachers and not run.prepared.needs.trains_teacher:
        return (
            f"teacher parameter {_some(run.seen.trained_teachers)}; leave it out, or say trains_teacher=True in needs()"
        )
    return None


def falls(before: float, after: float, one_way: bool = True) -> Verdict:
    """Rule ``task loss``."""
    if after < before:
        return None
    if not one_way:
        return Skipped("methods of this kind may learn from another loss than the task's own")
    return (
        f"the task loss of the deployed network on the training rows went from {before:.4g} to {after:.4g}; "
        "check signs and weights of the terms and that the deployed network is in a group"
    )


def task_loss(task: Task, net: nn.Module) -> float:
    """The task's own loss of a network on all training rows, in eval mode."""
    batch = task.as_trained(_all_rows(task), torch.Generator(task.device).manual_seed(0))
    with evaluating(net):
        return float(task.loss(net(batch), batch))


def deployment(tiny: Tiny, run: TinyRun, folder: Path) -> Verdict:
    """Rule ``deployment``."""
    prepared = run.prepared
    deployed, batch = prepared.method.deployed, _all_rows(prepared.task)
    wanted = _outputs(deployed, batch)
    if prepared.needs.changes_student:
        other, what = tiny.prepare(folder, seed=1).method.deployed, "a fresh method's deployed network"
    else:
        other, what = prepared.task.build_student(), "a fresh plain student"
    advice = "return a plain student from deployed, or say changes_student=True in needs()"
    try:
        other.load_state_dict(copy.deepcopy(deployed.state_dict()))
    except RuntimeError as error:
        return f"its state does not load into {what} ({str(error).splitlines()[-1].strip()}); {advice}"
    changed = first_difference(wanted, _outputs(other, batch))
    return f"loaded into {what}, it gives other outputs: {changed}; {advice}" if changed else None


def _outputs(net: nn.Module, batch: Batch) -> dict[str, Tensor]:
    with evaluating(net):
        out = net(batch)
    tensors: dict[str, Tensor] = {}
    for name, given in out._asdict().items():
        value = out.answered if name == "dense" else given
        parts = value if isinstance(value, tuple) else (value,)
        tensors |= {f"{name}[{i}]" if len(parts) > 1 else name: t for i, t in enumerate(parts) if t is not None}
    return tensors


def same_seed(tiny: Tiny, run: TinyRun, folder: Path) -> Verdict:
    """Rule ``same seed``."""
    again = tiny.prepare(folder)
    watch = WatchedStages(again)
    Trainer(again.method, again.task, folder / "run").run()
    problem = _first_other_term(run.seen, watch.seen) or first_difference(run.state, state_copy(again.method))
    advice = "draw from at.rng or task.rng(name) only, never from numpy, random or the clock"
    return f"two runs of one seed differ: {problem}; {advice}" if problem else None


def resume(tiny: Tiny, run: TinyRun, folder: Path) -> Verdict:
    """Rule ``resume``: stops before and in the middle of each stage, goes on from the checkpoint each time."""
    advice = "keep what the next step depends on in parameters, buffers or task.keep, never in plain attributes"
    lengths = list(enumerate(run.seen.lengths.values()))
    stops = [stop for n, length in lengths for stop in ((n, 0), (n, length // 2)) if length and stop != (0, 0)]
    for stop in [*stops, None]:
        prepared = tiny.prepare(folder)
        watch = WatchedStages(prepared, stop)
        every_step = 0.0 if stop else None
        with suppress(Interrupted):
            Trainer(prepared.method, prepared.task, folder / "run", checkpoint_seconds=every_step).run()
        problem = _first_other_term(run.seen, watch.seen)
        if problem is None and stop is None:
            problem = first_difference(run.state, state_copy(prepared.method))
        if problem:
            return f"a run that was stopped and went on differs from one that was not: {problem}; {advice}"
    return None


def _first_other_term(reference: Seen, other: Seen) -> str | None:
    """The first term in which the steps that ``other`` did are not those of ``reference``."""
    for (stage, step), terms in other.terms.items():
        problem = first_difference(reference.terms.get((stage, step), {}), terms)
        if problem:
            return f"term {problem} at step {step} of stage {stage!r}"
    return None


def _replayed(tiny: Tiny, folder: Path) -> Verdict:
    """Rule ``replay``, of kinds whose steps can be captured at all."""
    eager = tiny.config.task.of_kind.eager
    return Skipped(eager) if eager is not None else replayed(tiny, folder)


def smallest_batch(tiny: Tiny, needs: Needs, folder: Path) -> Verdict:
    """Rule ``smallest batch``."""
    smallest = needs.min_batch
    try:
        stages = _few_steps(tiny.with_batch(smallest), folder / "smallest")
    except Exception as error:
        return (
            f"with batches of {smallest}: {crash('training', error)}; raise needs().min_batch to what it is defined for"
        )
    if smallest == 1 or any(stage.batch is not None for stage in stages):
        return None
    fewer = smallest - 1
    try:
        _few_steps(tiny.with_batch(fewer), folder / "fewer")
    except UserError as error:
        return None if str(smallest) in str(error) else f"batches of {fewer} are refused without the need: {error}"
    except Exception as error:
        return f"with batches of {fewer}, fewer than needs().min_batch: {crash('training', error)}; a UserError is due"
    return f"batches of {fewer} are accepted although needs() says min_batch={smallest}"


def _few_steps(tiny: Tiny, folder: Path) -> list[Stage]:
    """The first steps of every stage; returns the stages."""
    prepared = tiny.prepare(folder)
    WatchedStages(prepared)
    stages = []
    for stage in prepared.method.stages():
        prepared.method.to(prepared.task.device).train()
        with closing(StageRun(prepared.method, stage, prepared.task)) as run:
            for _ in range(min(FEW_STEPS, run.total)):
                run.step()
        stages.append(stage)
    return stages


def _all_rows(task: Task) -> Batch:
    return task.wrap(task.rows(torch.arange(len(task.data.train.y), device=task.device)))


def _some(names: list[str], shown: int = 3) -> str:
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + rest
