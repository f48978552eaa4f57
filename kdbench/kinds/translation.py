"""Translation: a sentence is read and another one written; networks answer for each symbol of the reference too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kdbench.base.yamlfile import describe
from kdbench.kinds.base import Evidence, Kind, Metric, Tiny
from kdbench.kinds.written import NLL, WRITTEN, WrittenKind, alphabets, letters, share_metric

if TYPE_CHECKING:
    from torch import Tensor

    from kdbench.contract import Batch, Network, Rows


class Rules(BaseModel):
    """A task's ``score.rules``.

    Attributes:
        beam: sentences followed at a time while writing; 1 takes the likeliest symbol at each place.
        longest: symbols of what is written at most.
        tokenize: how BLEU tells words, by sacrebleu's name; ``none`` where the texts come in words.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    beam: int = Field(default=1, ge=1, le=64)
    longest: int = Field(default=64, ge=1, le=4096)
    tokenize: Literal["13a", "none", "intl", "char", "zh", "ja-mecab", "ko-mecab", "flores200"] = "13a"


def _texts(p: Evidence) -> tuple[list[str], list[list[str]]]:
    """What was written, and the references as sacrebleu takes them."""
    from kdbench.base.subwords import decoder

    return decoder(p.y.subwords)(p.output.written), [p.y.written()]


def _program(name: str, rules: Rules) -> Any:
    """sacrebleu's metric; texts that end in a word of their own for a full stop are no mistake here."""
    from kdbench.base.subwords import sacrebleu

    program = sacrebleu()
    return program.CHRF() if name == "chrf" else program.BLEU(tokenize=rules.tokenize, force=True)


def _scored(p: Evidence, name: str, rules: Rules) -> Tensor:
    import torch

    hypotheses, references = _texts(p)
    return torch.tensor(_program(name, rules).corpus_score(hypotheses, references).score, dtype=torch.float64)


def _right(p: Evidence) -> Tensor:
    import torch

    hypotheses, (references,) = _texts(p)
    return torch.tensor([one == other for one, other in zip(hypotheses, references, strict=True)])


def _exact(p: Evidence) -> Tensor:
    import torch

    right = _right(p)
    return torch.tensor(100 * int(right.sum()) / len(right), dtype=torch.float64)


def _metrics(rules: Rules) -> dict[str, Metric]:
    return {
        "chrf": share_metric(partial(_scored, name="chrf", rules=rules), "character n-grams shared (chrF2)", "chrF"),
        "bleu": share_metric(partial(_scored, name="bleu", rules=rules), "word n-grams shared (BLEU)", "BLEU"),
        "exact": share_metric(_exact, "test sentences written as in the reference", "exact", share=True, each=_right),
        "token_nll": NLL,
    }


class Translation(WrittenKind):
    """Targets are sentences of another language; what is read is an input, whose vocabulary may be another one.

    Networks are asked for the reference's symbols, each behind those before it in the reference (``token_nll``), and
    for a translation of their own, which is compared as a text, by sacrebleu (Post, WMT 2018).
    """

    name = "translation"
    about = "a sentence in another language"
    metrics: ClassVar = _metrics(Rules())
    tiny = Tiny(
        "token_nll",
        lambda pixels, digits: digits,
        sentences=letters,
        vocabularies=alphabets,
        pairs=tuple(("source", *nets) for nets in (("gru_w8", "gru_w16"), ("gru_w8", "gru_w8"))),
    )

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self._own = _metrics(self.rules)

    def ruled(self, rules: Mapping[str, Any]) -> Kind:
        try:
            return Translation(Rules.model_validate(rules)) if rules else self
        except ValidationError as error:
            raise ValueError(f"score.rules: {describe(error, Rules)}") from error

    def unscorable(self, train: Rows, test: Rows, k: int | None) -> str | None:
        longest = int(test.y.counts.max()) - 1
        if longest > self.rules.longest:
            return (
                f"a test reference has {longest} symbols, and what networks write {self.rules.longest} at most; raise "
                f"score.rules.longest"
            )
        return None

    def write(self, net: Network, batch: Batch) -> list[list[int]]:
        return net.generate(batch, self.rules.longest, self.rules.beam)

    def signatures(self, names: Sequence[str]) -> dict[str, str]:
        said = {}
        for name in sorted(WRITTEN & {*names} - {"exact"}):
            program = _program(name, self.rules)
            program.corpus_score(["a"], [["a"]])  # it tells the number of references only afterwards
            said[name] = str(program.get_signature())
        return said

    @property
    def own_metrics(self) -> Mapping[str, Metric]:
        return self._own


KIND = Translation()
