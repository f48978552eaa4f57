"""Networks of transformers that write sentences, ``hf:<id>`` on data with the vocabulary of the same checkpoint.

The data number symbols with the special ones in front (:func:`kdbench.base.subwords.borrowed`); the checkpoint's own
numbers are put in their place here. No code of a repository is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.base import subwords
from kdbench.base.errors import UserError, described
from kdbench.base.files import sha256
from kdbench.contract import Batch, Network, NotApplicable, Out, Vocabulary
from kdbench.contract.sentences import BOS, EOS, PAD, PREFIX, SPECIAL, cut, real
from kdbench.models.causal import joined

LACKING = -1e4
"""Score of a symbol that the checkpoint has not."""


class HFText(Network):
    """A network of transformers with an encoder, or of one stack.

    Args:
        body: of the library.
        order: the checkpoint's number of each symbol, None of one that it lacks.
        begin: its number of what stands before a text.
        where: it comes from.
    """

    theirs: Tensor

    def __init__(self, body: nn.Module, order: Sequence[int | None], begin: int, where: str) -> None:
        super().__init__()
        self.body: Any = body
        self.where = where
        end = order[EOS]
        filled = [end if number is None else number for number in order]
        self.never = [number for place, number in enumerate(order[:SPECIAL]) if number is not None and place != EOS]
        self.lacking = [place for place, number in enumerate(order) if number is None]
        filled[BOS] = begin
        self.register_buffer("theirs", torch.tensor(filled), persistent=False)

    def pretrained(self) -> Mapping[str, Tensor]:
        """The weights that come with it, of tensors alone."""
        found = type(self.body).from_pretrained(self.where, use_safetensors=True).state_dict()
        return {f"body.{key}": value for key, value in found.items()}

    def forward(self, batch: Batch) -> Out:
        assert batch.counts is not None
        wide = real(batch.counts, int(batch.counts.max()))
        read, prefix = cut(batch.x[self.input]), batch.x[PREFIX][:, : wide.shape[1]]
        with torch.autocast(read.device.type, self.autocast, enabled=self.autocast is not None):
            if self.body.config.is_encoder_decoder:
                out = self.body(
                    input_ids=self.theirs[read], attention_mask=(read != PAD).long(),
                    decoder_input_ids=self.theirs[prefix], output_hidden_states=True, use_cache=False,
                )  # fmt: skip
                logits, states = out.logits[wide], out.decoder_hidden_states[-1][wide]
            else:
                together, place = joined(read, prefix)
                mask = (together != PAD).long()
                out = self.body(
                    input_ids=self.theirs[together], attention_mask=mask, output_hidden_states=True, use_cache=False
                )
                row = torch.arange(len(read), device=read.device)[:, None]
                logits, states = out.logits[row, place][wide], out.hidden_states[-1][row, place][wide]
        own = logits.float()[:, self.theirs]
        own[:, self.lacking] = LACKING
        return Out(own, emb=states.float())

    def generate(
        self, batch: Batch, longest: int, beam: int = 1, rng: torch.Generator | None = None
    ) -> list[list[int]]:
        if rng is not None:
            raise NotApplicable("a net of transformers draws no texts here")
        return [found[0] for found in self.n_best(batch, longest, beam, 1)]

    def n_best(self, batch: Batch, longest: int, beam: int, count: int | None = None) -> list[list[list[int]]]:
        count = count or beam
        read = cut(batch.x[self.input])
        start = torch.full((len(read), 1), BOS, device=read.device)
        settings: dict[str, Any] = {
            "max_new_tokens": longest, "num_beams": beam, "num_return_sequences": count, "do_sample": False,
            "suppress_tokens": self.never or None,
            "eos_token_id": int(self.theirs[EOS]), "pad_token_id": int(self.theirs[EOS]),
        }  # fmt: skip
        if self.body.config.is_encoder_decoder:
            mask = (read != PAD).long()
            found = self.body.generate(
                input_ids=self.theirs[read],
                attention_mask=mask,
                decoder_start_token_id=int(self.theirs[BOS]),
                **settings,
            )[:, 1:]
        else:  # prompts end where texts begin
            width = read.shape[1]
            ahead = width - (read != PAD).sum(1)
            place = (torch.arange(width, device=read.device) - ahead[:, None]) % max(1, width)
            prompts = torch.cat([read.gather(1, place) if width else read, start], 1)
            found = self.body.generate(self.theirs[prompts], attention_mask=(prompts != PAD).long(), **settings)[
                :, prompts.shape[1] :
            ]
        numbers = {number: place for place, number in enumerate(self.theirs.tolist()) if place >= SPECIAL}
        rows = [self._ended(row, numbers) for row in found.tolist()]
        return [rows[place : place + count] for place in range(0, len(rows), count)]

    def _ended(self, row: Sequence[int], numbers: Mapping[int, int]) -> list[int]:
        """Our numbers of what stands before the end; special symbols are left out."""
        end = int(self.theirs[EOS])
        before = row[: row.index(end)] if end in row else row
        return [numbers[number] for number in before if number in numbers]


def build(library: Any, id: str, vocabularies: tuple[Vocabulary, Vocabulary]) -> HFText:
    """A network of transformers for sentences, freshly initialised.

    Args:
        id: of the hub, or the path of a folder.

    Raises:
        UserError: there is no such checkpoint, or its vocabulary is not that of the data.
    """
    content = subwords.borrowed(id)
    if any(one.digest != sha256(content) for one in vocabularies):
        raise UserError(
            f"net 'hf:{id}' has another vocabulary than the data; set data.options.vocabulary=hf:{id}, which all then "
            "read and write"
        )
    where = str(Path(id).expanduser()) if id[0] in "./~" else id
    try:
        config = library.AutoConfig.from_pretrained(where)
        kind = library.AutoModelForSeq2SeqLM if config.is_encoder_decoder else library.AutoModelForCausalLM
        body = kind.from_config(config)
    except Exception as error:  # a configuration holds whatever its author wrote
        raise UserError(f"net 'hf:{id}' cannot be made as one that writes sentences: {described(error)}") from error
    names = ("decoder_start_token_id", "bos_token_id", "eos_token_id")
    begin = next(number for name in names if (number := getattr(config, name, None)) is not None)
    return HFText(body, subwords.order(content), int(begin), where)
