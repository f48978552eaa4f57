"""Names that the distillation literature's code gives to the parts of the zoo's nets.

RepDistiller (Tian et al. 2020) and mdistiller share theirs; most published CIFAR teachers come under them. Each family
says beside its layers what its own names are for them: ``published_key``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""A pattern of a published module's name, and ours: a template of groups, or made from the match."""

KINDS = {"conv": "conv", "bn": "norm", "0": "conv", "1": "norm"}
"""Parts of a :class:`~kdbench.models.base.ConvNorm` by attribute or by place in a ``Sequential``."""


def renamed(key: str, rules: Sequence[Rule]) -> str | None:
    """Our key for a published one by the first rule that fits its module; None where none does."""
    module, _, leaf = key.rpartition(".")
    for pattern, name in rules:
        if (found := re.fullmatch(pattern, module)) is not None:
            return f"{found.expand(name) if isinstance(name, str) else name(found)}.{leaf}"
    return None
