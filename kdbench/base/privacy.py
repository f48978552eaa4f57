"""What must not leave a machine: paths, host names, addresses. One scanner for records, one scrubber for messages."""

from __future__ import annotations

import contextlib
import functools
import getpass
import ipaddress
import re
import socket
from collections.abc import Iterator
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

_ROOTS = "home|Users|root|tmp|var|mnt|media|data|opt|usr|etc|srv|scratch|work|workspace|private|Volumes|proc|nfs"
_PART = r"[^\s/\\\"'`,;:|<>()\[\]{}=]+"
_WEB_LINK = re.compile(r"https://[^\s/@\"'<>]+(?:/[^\s\"'<>]*)?")
_PATH = re.compile(
    rf"file://[^\s\"']*"
    rf"|(?<![\w./…\]-])/(?:{_PART}/+{_PART}(?:/+{_PART})*/?|(?:{_ROOTS})\b/?)"
    rf"|(?<!\w)[A-Za-z]:[\\/]{_PART}(?:[\\/]+{_PART})*"
    rf"|(?<![\w\\])\\\\{_PART}(?:\\{_PART})+"
)
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}\b|\b[\w.-]+@[\w.-]+:(?=[~/\w])")
_LOGIN = re.compile(r"://[^\s/@]+@")
_HOST = re.compile(
    r"\b(?:[a-z0-9-]+\.)+(?:local|lan|internal|intranet|corp|localdomain|cluster)\b(?![.(=])"
    r"|\b(?:[a-z0-9-]+\.){2,}(?:com|org|edu|gov|ac\.[a-z]{2})\b"
    r"|\bip-\d{1,3}-\d{1,3}-\d{1,3}-\d{1,3}\b",
    re.IGNORECASE,
)
_PLAIN_LINK = re.compile(r"\bhttp://[^\s\"'<>]*", re.IGNORECASE)
_ADDRESS = re.compile(
    r"(?<![\w.:-])(?:(?:\d{1,3}\.){3}\d{1,3}(?![\w.-]*\w)|[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(?![\w:]))"
)
_VERSION_FIELDS = re.compile(r"environment\.(?:packages\.|gpu\.|(?:cuda|cudnn|driver|torch|python|os)$)")

_KINDS: tuple[tuple[str, str, re.Pattern[str]], ...] = (  # what it is, letters it cannot do without, its form
    ("an e-mail address or login", "@", _EMAIL),
    ("a link that is not https", ":", _PLAIN_LINK),
    ("an absolute path", "/\\", _PATH),
    ("a host name", ".-", _HOST),
)
_HARMLESS = re.compile(r"\w*(?:-\w+)?|\d+(?:\.\w+){1,2}")


def strings(value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Every string of nested JSON, keys too, as (dotted field, string)."""
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, dict):
        for key, item in value.items():
            field = f"{at}.{key}" if at else key
            yield field, key
            yield from strings(item, field)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from strings(item, f"{at}.{number}")


def privacy_problems(record: dict[str, Any]) -> list[str]:
    """What in a record would tell whose machine it came from, as ``"field: what is wrong"``; empty when nothing does.

    Version numbers of four parts in ``environment`` are no addresses; https links are allowed anywhere.
    """
    texts: set[str] = set()
    _collect(record, texts)
    if (
        _leak("\n".join(text for text in texts if not _is_harmless(text)), addresses=True) is None
    ):  # one look at all of it
        return []
    problems = []
    for field, text in strings(record):
        what = _leak(text, addresses=not _VERSION_FIELDS.match(field))
        if what:
            problems.append(f"{field}: holds {what}")
    return problems


def scrub(text: str, limit: int = 2000) -> str:
    """``text`` without what :func:`privacy_problems` would find: paths keep their last part, the rest becomes a word.

    The names of this machine and of its user are taken out too. Cut to ``limit`` characters.
    """
    links: list[str] = []

    def park(match: re.Match[str]) -> str:
        links.append(match.group())
        return f"\x00{len(links) - 1}\x00"

    text = _LOGIN.sub("://", text)
    text = _PLAIN_LINK.sub("[link]", text)
    text = _EMAIL.sub("[address]", text)
    text = _ADDRESS.sub(lambda match: "[ip]" if _is_address(match.group()) else match.group(), text)
    text = _WEB_LINK.sub(park, text)
    text = _PATH.sub(lambda match: _last_part(match.group()), text)
    text = _HOST.sub("[host]", text)
    for name, word in _own_names():
        text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", word, text)
    text = re.sub("\x00(\\d+)\x00", lambda match: links[int(match.group(1))], text)
    text = "".join(letter for letter in text if letter in "\n\t" or letter.isprintable())
    return text[:limit]


def scrub_values(value: Any) -> Any:
    """Nested JSON with every string scrubbed; keys stay."""
    if isinstance(value, str):
        return scrub(value, limit=len(value)) if _leak(value, addresses=True) else value
    if isinstance(value, dict):
        return {key: scrub_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [scrub_values(item) for item in value]
    return value


def _collect(value: Any, into: set[str]) -> None:
    """The distinct texts of :func:`strings`, without their fields: records repeat the same few keys."""
    if isinstance(value, dict):
        into.update(value)
        value = value.values()
    for item in value:
        kind = type(item)
        if kind is str:
            into.add(item)
        elif kind is dict or kind is list or kind is tuple:
            _collect(item, into)


@functools.lru_cache(maxsize=10_000)
def _is_harmless(text: str) -> bool:
    """Words, and versions of up to three parts: most of a record, and the same in every record."""
    return _HARMLESS.fullmatch(text) is not None


def _leak(text: str, addresses: bool) -> str | None:
    outside = _WEB_LINK.sub(" ", text)
    for what, sign, pattern in _KINDS:
        if any(letter in outside for letter in sign) and pattern.search(outside):
            return what
    if "@" in text and _LOGIN.search(text):
        return "a link with a login in it"
    if addresses and any(_is_address(match.group()) for match in _ADDRESS.finditer(text.replace("://", " "))):
        return "an IP address"
    return None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return text != "::"


def _last_part(path: str) -> str:
    name = PureWindowsPath(path).name if "\\" in path else PurePosixPath(path).name
    return name or "[path]"


def _own_names() -> list[tuple[str, str]]:
    """This machine's and user's names; short and everyday ones would only spoil messages."""
    names = [(socket.gethostname(), "[host]")]
    with contextlib.suppress(KeyError, OSError):  # no entry for this user id: nothing to hide
        names.append((getpass.getuser(), "[user]"))
    return [(name, word) for name, word in names if len(name) > 3 and name not in {"root", "user", "localhost"}]
