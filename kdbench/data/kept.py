"""What was decoded before: its arrays, and how they are found again. Needs numpy for the arrays alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.data.partfiles import part_files
from kdbench.data.setspec import PART_NAMES, Part, SetSpec
from kdbench.files import canonical_json, sha256, sha256_file, write_atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DECODER = 2
"""Raised when the same files would decode to other arrays."""
FACTS = "facts.json"
KNOWN_FILES = "files.json"


@dataclass(frozen=True)
class Decoded:
    """A decoded data set.

    Attributes:
        folder: where its arrays lie.
        facts: ``parts`` (of each: rows, content, labels, sums, squares, jpeg), ``pool``.
        origin: the folder or hub id it came from.
    """

    folder: Path
    facts: dict[str, Any]
    origin: str

    @classmethod
    def read(cls, folder: Path, origin: str) -> Decoded:
        """The data set in a folder of the cache."""
        return cls(folder, json.loads((folder / FACTS).read_text()), origin)

    def array(self, part: str, name: str) -> NDArray[Any]:
        """A column; memory-mapped, writes stay in this process."""
        import numpy as np

        return np.load(self.folder / f"{part}.{name}.npy", mmap_mode="c")

    def blob(self, part: str, name: str) -> NDArray[np.uint8]:
        """The compressed pictures of a stored column."""
        import numpy as np

        return np.memmap(self.folder / f"{part}.{name}.bin", dtype=np.uint8, mode="r")


def peek(spec: SetSpec, folder: Path, cache: Path) -> Decoded | None:
    """What a data set's folder was decoded to, without reading its files; None if it was not.

    Raises:
        UserError: a part is not there.
    """
    there = {part: part_files(spec, folder, part) for part in PART_NAMES}
    if not any(cache.glob(f"{spec.name}-*/{FACTS}")):  # before a folder of a million pictures is listed
        return None
    parts = {part: found.files for part, found in there.items()}
    known = known_files(cache)
    if any(listing(files) not in known for files in parts.values()):
        return None
    place = place_of(spec, content_key(parts, cache), cache)
    return Decoded.read(place, str(folder)) if (place / FACTS).is_file() else None


def peek_hub(spec: SetSpec, cache: Path) -> Decoded | None:
    """What the hub's data set was decoded to, without asking the hub; None if it was not."""
    if spec.hub is None:
        return None
    with suppress(OSError, ValueError, KeyError):
        known = json.loads(pointer(spec, cache).read_text())
        folder = cache / known["folder"]
        if known["wanted"] == wanted(spec) and (folder / FACTS).is_file():
            return Decoded.read(folder, f"hub:{spec.hub.id}")
    return None


def point_to(spec: SetSpec, made: Decoded, cache: Path) -> None:
    """Remembers what the hub's data set was decoded to."""
    write_atomic(pointer(spec, cache), json.dumps({"wanted": wanted(spec), "folder": made.folder.name}))


def pointer(spec: SetSpec, cache: Path) -> Path:
    """The file that names what the hub's data set was decoded to."""
    return cache / f"{spec.name}.hub.json"


def wanted(spec: SetSpec) -> dict[str, Any]:
    """What decides the arrays made from the hub."""
    return {"hub": spec.hub.model_dump() if spec.hub is not None else None, "decoding": decoding(spec)}


def decoding(spec: SetSpec) -> dict[str, Any]:
    """What decides the arrays beside the files; normalisation does not."""
    body = spec.model_dump(mode="json", include={"inputs", "label", "target", "id", "parts"})
    for given in body["inputs"].values():
        for key in ("mean", "std", "frame", "resize"):
            given.pop(key, None)
    split = {"test_every": spec.test_every} if spec.test_every is not None else {}
    return {**body, **split, "decoder": DECODER}


def listing(files: Sequence[Path]) -> str:
    """sha256 over the names, sizes and times of a part's files."""
    stats = [(str(path.absolute()), path.stat()) for path in files]
    return sha256(canonical_json([[name, found.st_size, found.st_mtime_ns] for name, found in stats]))


def known_files(cache: Path) -> dict[str, str]:
    """Listing to content hash of the parts read before."""
    with suppress(OSError, ValueError):
        return dict(json.loads((cache / KNOWN_FILES).read_text()))
    return {}


def content_key(parts: Mapping[Part, Sequence[Path]], cache: Path) -> str:
    """sha256 over the files' names and content; files seen before with these sizes and times are not read again.

    The names count because a folder's name can be a label.
    """
    known = known_files(cache)
    fresh, digest = dict(known), hashlib.sha256()
    for part, files in parts.items():
        if (key := listing(files)) not in fresh:
            fresh[key] = sha256("".join(f"{path.parent.name}/{path.name}:{sha256_file(path)}" for path in files))
        digest.update(f"{part}:{fresh[key]}".encode())
    if fresh != known:
        write_atomic(cache / KNOWN_FILES, json.dumps(fresh))
    return digest.hexdigest()


def place_of(spec: SetSpec, content: str, cache: Path) -> Path:
    """Where the cache keeps what files of this content are decoded to."""
    key = sha256(canonical_json({"content": content, **decoding(spec)}))
    return cache / f"{spec.name}-{key[:32]}"
