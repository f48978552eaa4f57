"""Language modelling: networks say what follows at each place of a text; a prompt may stand before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from kdbench.kinds.base import Metric, Tiny
from kdbench.kinds.written import LETTERS, NLL, WrittenKind, alphabets, bits_per_byte, letters

if TYPE_CHECKING:
    from kdbench.contract import Batch, Network, Rows, Vocabulary


def _prompted(pixels: Any, digits: Any) -> Rows:
    """The digits' names behind the brightness of their columns, in letters too."""
    from kdbench.contract.sentences import SPECIAL

    made = letters(pixels, digits)
    return made._replace(x={"source": (made.x["source"] - SPECIAL) % len(LETTERS) + SPECIAL})


def _alphabets() -> dict[str, Vocabulary]:
    known = alphabets()["target"]
    return {"source": known, "target": known}


class Language(WrittenKind):
    """Targets are texts; the input is a prompt that is read before, of no symbols where there is none.

    Perplexity is told in bits a byte of the texts, so that vocabularies of other sizes are compared fairly.
    """

    name = "language"
    about = "what follows in a text"
    metrics: ClassVar = {
        "bits_per_byte": Metric(False, "bit", "-log2 of a text's chance, a byte", bits_per_byte, word="bits/byte"),
        "token_nll": NLL,
    }
    tiny = Tiny(
        "token_nll",
        lambda pixels, digits: digits,
        sentences=_prompted,
        vocabularies=_alphabets,
        pairs=(("source", "grulm_w8", "grulm_w16"), ("source", "grulm_w8", "grulm_w8")),
    )

    def write(self, net: Network, batch: Batch) -> list[list[int]]:
        assert batch.counts is not None
        return net.generate(batch, int(batch.counts.max()))


KIND = Language()
