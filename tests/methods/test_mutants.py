"""A fault in how a method is assembled is noticed: wrong weights, terms, warm-ups, stages, groups, missing detaches.

Faults are planted one at a time into every function of every method's class; see ``tests/support/mutants.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import FunctionType
from typing import Any

import pytest
from mutants import Mutant, mutants, of_class, rewritten
from noticed import SHARED, Check, checks

from kdbench.methods.cgan_kd.adapter import CGANKD
from kdbench.methods.cgan_kd.ccgan import CcGAN
from kdbench.methods.cgan_kd.gan import ConditionalGAN
from kdbench.methods.dkd.adapter import DKD
from kdbench.methods.ffsd.adapter import FFSD
from kdbench.methods.hkd.adapter import HKD
from kdbench.methods.shared import boxes, objective, phases, pyramids
from kdbench.methods.sskd.adapter import SSKD
from kdbench.specs import registry

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
STEP, MOST = 7, 10
"""The sample: every so many faults of a method, and at most about so many of it."""
OTHERS: dict[str, Sequence[Any]] = {
    "cgan_kd": (
        *(getattr(CGANKD, name) for name in (
            "stages", "generator_stages", "_student_stages", "_student_group", "_slowed", "_feature_group",
            "_plain_losses", "after_step", "_feature_step", "_ratio_step",
        )),
        ConditionalGAN.step, ConditionalGAN.stage, CcGAN.embed_step, CcGAN.embed_stage,
    ),
    "shared.objective": (objective.Imitation, objective.StageWise, objective.Initialisation, objective.phase_epochs),
    "shared.phases": (phases.Phased, phases.reusable),
    "shared.pyramids": (
        pyramids.PyramidMethod, pyramids.level_pairs, pyramids.same_channels, pyramids.aligned,
    ),
    "shared.boxes": (
        boxes.quality_focal, boxes.overlap, boxes.box_distance, boxes.counted, boxes.centreness, boxes.same_cells,
    ),
}  # fmt: skip
"""Where it is not the whole class of a method: cgan_kd's sampling between stages has tests of its own."""

COMMUTES = "the function is symmetric in the two"
DETACHED = "what it is given to holds it constant itself"
ALIKE = "the other one has the same value"
ANY_ROWS = "any number of rows tells what an output depends on"
TYPE = "of a level only the type is read"
NO_GRADIENT = "it is read where nothing has gradients"
EQUIVALENT = {
    "ban.adapter:BAN.taught_losses: with torch.no_grad():: gradients flow": DETACHED,
    "brcd.adapter:BRCD.losses: 0: 0 -> 1": ALIKE,
    "cc.adapter:CC.imitation: correlation_loss(student, teacher): arguments 0 and 1 swapped": COMMUTES,
    "cgan_kd.ccgan:CcGAN.embed_step: noisy(labels, noise): arguments 0 and 1 swapped": COMMUTES,
    "cgan_kd.ccgan:CcGAN.embed_step: torch.randn(len(labels), generator=at.rng, device=labels.device, dtype: dtype= "
    "gone": "the labels are of the default type",
    "compress.adapter:CompRess.groups: 2: 2 -> 3": ANY_ROWS,
    "compress.adapter:CompRess._key: with torch.no_grad():: gradients flow": DETACHED,
    "crd.adapter:CRD.losses: v_s.detach(): detach gone": NO_GRADIENT,
    "crd.adapter:CRD.losses: v_t.detach(): detach gone": NO_GRADIENT,
    "cskd.adapter:CSKD.losses: with torch.no_grad():: gradients flow": DETACHED,
    "dlb.adapter:DLB.losses: out.detach(): detach gone": NO_GRADIENT,
    "dkd_nmt.adapter:DKDNMT.losses: disagreement(one.logits, other.logits): arguments 0 and 1 swapped": COMMUTES,
    "ddkd_obb.adapter:DDKDOriented.losses: 0: 0 -> 1": TYPE,
    "ddkd_obb.adapter:DDKDOriented.decoupled: 0: 0 -> 1": "a zero of the first distribution is that of the second; "
    "that the factor is one is noticed where it is gone",
    "defeat.adapter:DeFeat.imitation: 0: 0 -> 1": TYPE,
    "energykd.adapter:EnergyKD._mixed: -2: USub gone": "pictures have four axes",
    "few_sample.adapter:FewSample._moments: :: [:] -> [:]": "the slice holds all",
    "ffsd.adapter:FFSD._commons: guided(common.maps, guide.targets(push.map)): arguments 0 and 1 swapped": COMMUTES,
    "ffsd.adapter:FFSD._leader: fused.detach(): detach gone": DETACHED,
    "fitnet.adapter:FitNet._hints: min(len(out.maps), len(target.maps)): arguments 0 and 1 swapped": COMMUTES,
    "ft.adapter:FT.reconstruction: F.mse_loss(self.paraphraser(x), x): arguments 0 and 1 swapped": COMMUTES,
    "ft.adapter:FT.imitation: with torch.no_grad():: gradients flow": DETACHED,
    "ft.adapter:FT.stages: phase_epochs(self.hp.first_phase, self.task.epochs): arguments 0 and 1 swapped": COMMUTES,
    "hash_kd.adapter:HashKD._turned: with torch.no_grad():: gradients flow": DETACHED,
    "hkd.adapter:HKD.losses: 0: 0 -> 1": ALIKE,
    "hkd.adapter:HKD.losses: node.detach(): detach gone": NO_GRADIENT,
    "hsakd.adapter:HSAKD.teacher_losses: 0: 0 -> 1": ALIKE,
    "hsakd.adapter:HSAKD.losses: 0: 0 -> 1": ALIKE,
    "hsakd.adapter:HSAKD.losses: with torch.no_grad():: gradients flow": DETACHED,
    "hsakd.adapter:HSAKD.peer_losses: 0: 0 -> 1": ALIKE,
    "hsakd.adapter:HSAKD.stages: phase_epochs(self.hp.frozen_phase, self.task.epochs): arguments 0 and 1 swapped":
        COMMUTES,
    "ld.adapter:LD.losses: 0: 0 -> 1": "of a level only the type and the names of its terms are read",
    "ld.adapter:LD.level: max(1, len(classes)): arguments 0 and 1 swapped": COMMUTES,
    "ld.adapter:LD.features: general_instances(own, theirs, number): arguments 0 and 1 swapped": COMMUTES,
    "ld.adapter:LD.features: imitation(align(s), t, picked): arguments 0 and 1 swapped": COMMUTES,
    "ld_obb.adapter:LDOriented.losses: 0: 0 -> 1": TYPE,
    "lwr.adapter:LWR.losses: out.logits.detach(): detach gone": NO_GRADIENT,
    "plain.adapter:Plain.stages: max(1, round(self.task.epochs * self.task.steps * self.hp.length)): arguments 0 and 1 "
    "swapped": COMMUTES,
    "rdrop.adapter:RDrop.losses: disagreement(one.logits, other.logits): arguments 0 and 1 swapped": COMMUTES,
    "real.adapter:REAL.losses: box_distance('giou', boxes, wanted): arguments 1 and 2 swapped": COMMUTES,
    "pskd.adapter:PSKD.losses: logits.detach(): detach gone": NO_GRADIENT,
    "reviewkd.adapter:ReviewKD.losses: hcl(o, t, hp.levels): arguments 0 and 1 swapped": COMMUTES,
    "reviewkd.adapter:ReviewKD.losses: zip(outputs, stages, strict=True): arguments 0 and 1 swapped": COMMUTES,
    **{
        f"shared.boxes:overlap: torch.{one}({part}, {other}): arguments 0 and 1 swapped": COMMUTES
        for one in ("maximum", "minimum")
        for part, other in (("one[..., :2]", "other[..., :2]"), ("one[..., 2:]", "other[..., 2:]"))
    },
    "shared.boxes:box_distance: overlap(one, other): arguments 0 and 1 swapped": COMMUTES,
    "shared.boxes:counted: 0: 0 -> 1": TYPE,
    "shared.objective:Initialisation.stages: phase_epochs(self.hp.first_phase, self.task.epochs): arguments 0 and 1 "
    "swapped": COMMUTES,
    "shared.objective:Initialisation.stages: [p for p in self.parameters() if p.requires_grad]: if of a comprehension "
    "gone": "no method of this kind has a frozen module of its own",
    "shared.objective:phase_epochs: max(1, round(share * epochs)): arguments 0 and 1 swapped": COMMUTES,
    "smooth_teacher.adapter:SmoothTeacher.losses: with torch.no_grad():: gradients flow": DETACHED,
    "smooth_teacher.adapter:SmoothTeacher.stages: phase_epochs(hp.teacher_phase, self.task.epochs): arguments 0 and 1 "
    "swapped": COMMUTES,
    "sskd.adapter:SSKD.losses: with torch.no_grad():: gradients flow": DETACHED,
    "sskd.adapter:SSKD.losses: 0: 0 -> 1": ALIKE,
    "sskd.adapter:SSKD.stages: phase_epochs(self.hp.head_phase, self.task.epochs): arguments 0 and 1 swapped": COMMUTES,
    "tf_kd.adapter:TFKD.losses: with torch.no_grad():: gradients flow": DETACHED,
    "tinymim.adapter:TinyMIM.groups: 2: 2 -> 3": ANY_ROWS,
}  # fmt: skip
"""Faults that are none, and why."""
NAMES = sorted({*registry.method_packages(), *OTHERS})


def functions(name: str) -> Iterator[FunctionType]:
    """What faults are planted in."""
    for one in OTHERS.get(name) or [registry.method(name).adapter()]:
        yield from of_class(one) if isinstance(one, type) else [one]


def faults(name: str) -> Iterator[Mutant]:
    return (mutant for function in functions(name) for mutant in mutants(function))


def noticing(mutant: Mutant, every: Sequence[Check]) -> Check | None:
    """The first check that notices, None where the fault lives."""
    with mutant.planted():
        for check in every:
            try:
                check()
            except Exception:
                return check
    return None


def survivors(planted: Iterator[Mutant], every: Sequence[Check]) -> list[str]:
    order, found = list(every), []
    for mutant in planted:
        if mutant.name in EQUIVALENT:
            continue
        check = noticing(mutant, order)
        if check is None:
            found.append(mutant.name)
        else:
            order.insert(0, order.pop(order.index(check)))  # what noticed a fault mostly notices the next one too
    return found


SAMPLED = ("kd", "dkd", "reviewkd", "crd", "sskd", "shared.objective")
"""Of whom the fast set holds a sample; the slow one plants every fault of everyone."""


@pytest.mark.parametrize("name", SAMPLED)
def test_a_sample_of_faults_is_noticed(name, load):
    every = list(faults(name))
    assert survivors(iter(every[:: max(STEP, len(every) // MOST)]), checks(name, load)) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
def test_every_fault_is_noticed(name, load):
    assert survivors(faults(name), checks(name, load)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_without_a_fault_nothing_is_noticed(name, load):
    for check in checks(name, load):
        check()


def test_equivalent_faults_are_those_of_the_code():
    assert EQUIVALENT.keys() <= {mutant.name for name in NAMES for mutant in faults(name)}


ONCE_ALIVE: dict[str, tuple[str, Callable[..., Any], str, str]] = {
    "the parts of dkd swapped": ("dkd", DKD.losses, "hp.alpha, hp.beta", "hp.beta, hp.alpha"),
    "dkd's warm-up gone": ("dkd", DKD.losses, 'ramp("linear", epoch, hp.warmup_epochs)', "1.0"),
    "dkd's warm-up off by one": ("dkd", DKD.losses, 'ramp("linear", epoch,', 'ramp("linear", epoch + 1,'),
    "hkd's smoothing reversed": ("hkd", HKD.losses, "smoothed(old, new,", "smoothed(new, old,"),
    "hkd's share reversed": ("hkd", HKD.losses, "hp.smoothing)", "1 - hp.smoothing)"),
    "sskd's share of the other term": (
        "sskd", SSKD.losses, "turned(y), hp.rotation_share", "turned(y), hp.similarity_share",
    ),
    "ffsd pushed away from the wrong common": ("ffsd", FFSD._commons, "commons[i - 1]", "commons[i]"),
    "ffsd's epoch off by one": ("ffsd", FFSD.losses, "weights(epoch).fusion", "weights(epoch + 1).fusion"),
    "ffsd's guides see the wrong commons": ("ffsd", FFSD.losses, "*commons[1:]", "*commons[:-1]"),
    "cgan_kd's rate of the last stage": (
        "cgan_kd", CGANKD._student_stages, "self._student_group(self.hp.finetune_lr)", "self._student_group(1.0)",
    ),
    "at a constant rate": (
        "ab", objective.Initialisation.stages, ', schedule="constant")]\n', ")]\n",
    ),
    "the initialisation in the second phase too": (
        "fsp", objective.Initialisation.stages, "losses=self.losses", "losses=self.first_losses",
    ),
}  # fmt: skip
"""Faults that an earlier suite did not notice, and some like them."""


@pytest.mark.parametrize("fault", ONCE_ALIVE)
def test_faults_that_once_lived(fault, load):
    name, function, old, new = ONCE_ALIVE[fault]
    assert isinstance(function, FunctionType)
    assert noticing(rewritten(function, old, new), checks(name, load)) is not None


def test_shared_modules_are_all_there():
    assert SHARED.keys() == OTHERS.keys() - registry.method_packages().keys()
