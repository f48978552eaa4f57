"""Subwords by `tokenizers`: byte-pair encoding, trained with fixed settings, alike in every process, kept as a file.

Of `tokenizers` 0.23 byte-pair encoding with an end-of-word suffix and every unigram model number their tokens
otherwise in each process, so that cached weights would read other words; with ``Metaspace`` they do not.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from kdbench.base.errors import UserError
from kdbench.base.files import sha256, write_atomic

NAMES = ("[PAD]", "[BOS]", "[EOS]", "[UNK]")
"""Of the symbols that every vocabulary begins with, in order."""
LEAST_SEEN = 2
"""How often a pair must stand in the training part to become a subword."""
BORROWED = "kdbench_special"
"""Key of a vocabulary that is a checkpoint's: its numbers of the special symbols."""
HUB = "hf:"
"""Before the id or folder of a checkpoint whose vocabulary is read."""
INSTALL = "pip install 'kdbench[text]'"


def require() -> None:
    """Raises: UserError: a package that text needs is not installed."""
    for package in ("tokenizers", "sacrebleu"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"text needs the package {package}, which is not installed: {INSTALL}")


def sacrebleu() -> ModuleType:
    """The program that scores translations."""
    require()
    import sacrebleu as program

    return program


def trained(lines: Sequence[str], size: int) -> bytes:
    """The file of a byte-pair encoding of at most ``size`` symbols, trained on lines in their order."""
    require()
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE(unk_token=NAMES[3]))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.train_from_iterator(
        lines,
        trainers.BpeTrainer(vocab_size=size, min_frequency=LEAST_SEEN, special_tokens=list(NAMES), show_progress=False),
    )
    return made.to_str().encode()


def given(path: Path) -> bytes:
    """The file of a vocabulary of one's own.

    Raises:
        UserError: it is not there, or its first symbols are not the special ones.
    """
    require()
    try:
        content = path.read_bytes()
        found = _tokenizer(content)
    except OSError as error:
        raise UserError(
            f"{path}: no vocabulary there ({error.strerror or error}); name a file of `tokenizers`"
        ) from error
    except Exception as error:  # of the library anything, down to bare Exception
        raise UserError(f"{path}: not a file of `tokenizers` ({str(error).splitlines()[0]})") from error
    numbers = [found.token_to_id(name) for name in NAMES]
    if numbers != list(range(len(NAMES))):
        raise UserError(
            f"{path}: its first {len(NAMES)} symbols are not {', '.join(NAMES)}; train it with these in front"
        )
    return content


def kept(content: bytes, folder: Path, name: str) -> Path:
    """Where the file of a vocabulary lies, by its content."""
    path = folder / f"{name}-{sha256(content)[:32]}.json"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    return path


def borrowed(where: str) -> bytes:
    """The file of the vocabulary of a checkpoint of transformers, its special symbols moved to the front.

    Args:
        where: an id of the hub, or a folder; ``tokenizer.json`` and ``config.json`` are read.

    Raises:
        UserError: they are not there, or say no end of a text.
    """
    require()
    told = json.loads(_file_of(where, "config.json"))
    tokenizer = _file_of(where, "tokenizer.json")
    model = json.loads(tokenizer).get("model", {})
    unknown = _tokenizer(tokenizer.encode()).token_to_id(model["unk_token"]) if model.get("unk_token") else None
    numbers = [told.get("pad_token_id"), told.get("bos_token_id"), told.get("eos_token_id"), unknown]
    if numbers[2] is None:
        raise UserError(f"{where}: its config.json names no eos_token_id, the end of a text; it cannot be learnt from")
    own: list[int | None] = []
    for number in numbers:  # one symbol may stand for several: the end has it, then whatever comes first
        taken = number in own or (number == numbers[2] and len(own) != 2)
        own.append(None if taken else number)
    return json.dumps({BORROWED: own, "tokenizer": tokenizer}).encode()


def order(content: bytes) -> list[int | None]:
    """Of a borrowed vocabulary the checkpoint's number of each symbol; None of a special one that it lacks."""
    told = json.loads(content)
    special = told[BORROWED]
    count = _tokenizer(told["tokenizer"].encode()).get_vocab_size()
    return [*special, *(number for number in range(count) if number not in special)]


def _file_of(where: str, name: str) -> str:
    folder = Path(where).expanduser()
    try:
        if where[:1] in "./~":
            return (folder / name).read_text(encoding="utf-8")
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(where, name)).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{where}: its {name} cannot be had ({str(error).splitlines()[0]}); name a checkpoint"
        ) from error


def _borrowed(content: bytes) -> bool:
    return content.startswith(b'{"' + BORROWED.encode())


def encoder(content: bytes) -> Callable[[Sequence[str]], list[list[int]]]:
    """Texts to symbols, without their ends."""
    numbers: dict[int, int] = {}
    if _borrowed(content):
        numbers = {theirs: ours for ours, theirs in enumerate(order(content)) if theirs is not None}
        content = json.loads(content)["tokenizer"].encode()
    found = _tokenizer(content)

    def encode(texts: Sequence[str]) -> list[list[int]]:
        try:
            rows = [one.ids for one in found.encode_batch(list(texts), add_special_tokens=False)]
        except Exception as error:  # of the library a bare Exception, such as for a word without a symbol
            reason = str(error).splitlines()[0]
            raise UserError(f"data.options.vocabulary cannot make symbols of the texts ({reason})") from error
        return [[numbers[symbol] for symbol in row] for row in rows] if numbers else rows

    return encode


def decoder(content: Any) -> Callable[[Sequence[Sequence[int]]], list[str]]:
    """Symbols to texts.

    Args:
        content: the file, as bytes or as a tensor of them.
    """
    content = content if isinstance(content, bytes) else bytes(content.tolist())
    theirs: list[int | None] = []
    if _borrowed(content):
        theirs, content = order(content), json.loads(content)["tokenizer"].encode()
    found = _tokenizer(content)

    def decode(rows: Sequence[Sequence[int]]) -> list[str]:
        if theirs:
            rows = [[known for symbol in row if (known := theirs[symbol]) is not None] for row in rows]
        return list(found.decode_batch([list(row) for row in rows], skip_special_tokens=True))

    return decode


def size(content: bytes) -> int:
    """How many symbols there are."""
    return len(order(content)) if _borrowed(content) else int(_tokenizer(content).get_vocab_size())


@functools.lru_cache(maxsize=8)
def _tokenizer(content: bytes) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(content.decode())
