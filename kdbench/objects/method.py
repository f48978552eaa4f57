"""A class derived from :class:`kdbench.contract.Method` as a method, with a card made of what the class says."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import yaml

from kdbench.base import content
from kdbench.base.errors import UserError
from kdbench.base.files import sha256
from kdbench.base.home import Home
from kdbench.contract import Method
from kdbench.objects.pickled import FILE, folder, remember, save
from kdbench.specs import local
from kdbench.specs.card import Card
from kdbench.specs.local import ADAPTER
from kdbench.specs.registry import CARD, SLUG

SOURCE = '''"""Written by kdbench for the class {name}, which was given as a Python object."""

from pathlib import Path

{imports}from kdbench.objects.pickled import load

CONTENT = "{digest}"
{name} = load(Path(__file__).with_name("{file}"))
'''
FEATURES = {"maps", "preact", "stem", "emb", "norm", "tail"}


def method(cls: type[Method], home: Home, name: str | None = None) -> str:
    """Makes a class known as a method; its name.

    Hyper-parameters are the keys of the class's ``defaults``, with their types; the rest of the card follows from
    ``needs()`` and the docstring.

    Args:
        cls: an adapter; its ``defaults`` (a mapping of plain values) may be absent.
        home: keeps it for other processes.
        name: the class's in small letters when None.

    Raises:
        UserError: it is no such class, its name is taken, or it cannot be carried to another process.
    """
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise UserError(f"{cls!r} is no method; derive a class from kdbench.Method, or name a registered method")
    chosen = (name or cls.__name__).lower()
    what = f"the method {chosen!r} (class {cls.__name__})"
    if not SLUG.fullmatch(chosen) or "__" in chosen:
        raise UserError(f"{what}: a method's name is of [a-z0-9_.-] without '__'; give it one with name=")
    found = content.of(cls, what)
    card = _card(cls, chosen, what)
    text = yaml.safe_dump(card.model_dump(mode="json", exclude_defaults=True, exclude={"name"}), sort_keys=False)

    def fill(made: Path) -> None:
        own = made / chosen
        own.mkdir()
        imports = "".join(f"import {module}  # noqa: F401\n" for module in sorted(found.own))
        (own / ADAPTER).write_text(
            SOURCE.format(name=card.adapter, imports=imports, digest=found.digest, file=FILE), encoding="utf-8"
        )
        (own / CARD).write_text(text, encoding="utf-8")
        (own / FILE).write_bytes(save(cls, what))

    facts = yaml.safe_dump(card.model_dump(mode="json", exclude={"year"}))
    made = folder(home, sha256(f"method/{chosen}/{found.digest}/{facts}"), fill)
    remember(made / chosen / FILE, cls)
    return local.method(str(made / chosen))


def _card(cls: type[Method], name: str, what: str) -> Card:
    """The card that a class implies.

    Raises:
        UserError: its defaults are no plain values, or its needs cannot be said.
    """
    defaults: Any = getattr(cls, "defaults", {})
    if not isinstance(defaults, dict):
        raise UserError(f"{what}: defaults is a dict of hyper-parameters, not a {type(defaults).__name__}")
    about = " ".join((cls.__doc__ or cls.__name__).split())[:500]
    facts: dict[str, Any] = {
        "name": name, "adapter": cls.__name__, "title": cls.__name__, "authors": ["unpublished"],
        "year": time.gmtime().tm_year, "venue": "unpublished", "bibkey": name, "family": "logit", "summary": about,
        "version": "0.0.0",
        "hyper_parameters": {
            key: {"default": list(value) if isinstance(value, tuple) else value, "doc": f"{cls.__name__}.defaults"}
            for key, value in defaults.items()
        },
    }  # fmt: skip
    try:
        card = Card.model_validate(facts)
        needs = cls.needs(card.typed(card.defaults()))
    except Exception as error:  # of the class's own code too
        raise UserError(f"{what}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    family = "feature" if FEATURES & (needs.student | needs.teacher) else "logit"
    said = {
        "kinds": None if needs.kinds is None else sorted(needs.kinds),
        "needs": needs.words(),
        "family": family if needs.teachers else "self",
    }
    return Card.model_validate(facts | said)
