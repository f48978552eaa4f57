"""What was decoded before: its arrays, and how they are found again. Needs numpy for the arrays alone."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.base.files import canonical_json, read_facts, sha256, sha256_file, write_atomic
from kdbench.data.decode.partfiles import part_files
from kdbench.data.decode.specification import Part, SetSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DECODER = 3
"""Raised when the same files would decode to other arrays."""
FACTS = "facts.json"
KNOWN_FILES = "files.json"


@dataclass(frozen=True)
class Decoded:
    """A decoded data set.

    Attributes:
        folder: where its arrays lie.
        facts: ``parts`` (of each: rows, content, labels, sums, squares, jpeg), ``pool``,
            ``repeated`` (test rows, by number, whose inputs stand in the training part too), ``classes`` (their names,
            None where numbers are all there is).
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
    there = {part: part_files(spec, folder, part) for part in spec.part_names}
    if not any(cache.glob(f"{spec.name}-*/{FACTS}")):  # before a folder of a million pictures is listed
        return None
    parts = {part: found.files for part, found in there.items()}
    known = known_files(cache)
    seen = {part: known.get(listing(files)) for part, files in parts.items()}
    if None in seen.values():
        return None
    place = place_of(spec, _together({part: str(content) for part, content in seen.items()}), cache)
    return Decoded.read(place, str(folder)) if (place / FACTS).is_file() else None


def peek_hub(spec: SetSpec, cache: Path) -> Decoded | None:
    """What the hub's data set was decoded to, without asking the hub; None if it was not."""
    if spec.hub is None:
        return None
    with suppress(OSError, ValueError):
        known = read_facts(pointer(spec, cache), "folder", "wanted")
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
    later = {key for key in ("objects", "map", "only") if getattr(spec, key)}
    body = spec.model_dump(mode="json", include={"inputs", "label", "target", "id", "parts", *later})
    for given in body["inputs"].values():
        for key in ("mean", "std", "frame", "resize", *(["channels"] if given["kind"] == "picture" else [])):
            given.pop(key, None)
        if given.get("fit") == "exact":
            del given["fit"]
    if body["label"] is not None and body["label"]["names"] is None:
        del body["label"]["names"]
    split = {"test_every": spec.test_every} if spec.test_every is not None else {}
    return {**body, **split, "decoder": DECODER}


def names_of(part: str) -> str:
    """The file that says, a line a row, where the rows of a part came from."""
    return f"{part}.names.txt"


def listing(files: Sequence[str] | Sequence[Path]) -> str:
    """sha256 over what tells a part's files from others of these names without reading them.

    Renaming a file changes its ctime, and renaming the folder that holds it the inode found under its name; sizes and
    times of writing are equal where an archive was unpacked.
    """
    here, digest = os.getcwd(), hashlib.sha256()
    for path in map(os.fspath, files):
        found = os.stat(path)
        name = path if path.startswith("/") else os.path.join(here, path)
        facts = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
        digest.update(os.fsencode(name) + repr(facts).encode())
    return digest.hexdigest()


def known_files(cache: Path) -> dict[str, str]:
    """Listing to content hash of the parts read before."""
    with suppress(OSError, ValueError):
        return read_facts(cache / KNOWN_FILES)
    return {}


def content_key(parts: Mapping[Part, Sequence[str] | Sequence[Path]], cache: Path) -> str:
    """sha256 over the files' names and content; files that :func:`listing` knows again are not read again.

    The names count because a folder's name can be a label.
    """
    known = known_files(cache)
    fresh = dict(known)
    keys = {part: listing(files) for part, files in parts.items()}
    for part, files in parts.items():
        if keys[part] not in fresh:
            fresh[keys[part]] = _content(files)
    if fresh != known:
        write_atomic(cache / KNOWN_FILES, json.dumps(fresh))
    return _together({part: fresh[key] for part, key in keys.items()})


def _content(files: Sequence[str] | Sequence[Path]) -> str:
    """sha256 over the content of a part's files and their places below the folder that holds them all."""
    digest = hashlib.sha256()
    above = os.path.commonpath({os.path.dirname(path) for path in files}) if files else ""
    for path in files:
        digest.update(os.fsencode(os.path.relpath(path, above)) + b":" + sha256_file(Path(path)).encode())
    return digest.hexdigest()


def _together(contents: Mapping[Part, str]) -> str:
    return sha256("".join(f"{part}:{content}" for part, content in contents.items()))


def place_of(spec: SetSpec, content: str, cache: Path) -> Path:
    """Where the cache keeps what files of this content are decoded to."""
    key = sha256(canonical_json({"content": content, **decoding(spec)}))
    return cache / f"{spec.name}-{key[:32]}"
