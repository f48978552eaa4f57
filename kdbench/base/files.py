"""Files that survive ``kill -9``: written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from kdbench.base.errors import UserError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_WRONG_PLACE = {
    errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip


def wrong_place(error: OSError) -> bool:
    """Whether an error says that a path that was named is no place for what it is to hold."""
    return error.filename is not None and error.errno in _WRONG_PLACE


def no_room(error: BaseException) -> bool:
    """Whether an error says that the disk is full or can only be read, which no fault of a method's is."""
    return isinstance(error, OSError) and error.errno in _NO_ROOM


def cannot_write(path: Path, error: OSError) -> UserError:
    """The error for a place that cannot be written."""
    return UserError(f"cannot write {path}: {error.strerror or error}; free some space or name another --out")


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write ``content`` to ``path`` whole or not at all: temporary file in the same folder, fsync, rename, fsync.

    Raises:
        UserError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):  # a folder that can only be read keeps it
                Path(temporary).unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def read_facts(path: Path, *keys: str) -> dict[str, Any]:
    """The mapping in a JSON file that kdbench wrote for itself.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds something else, or lacks one of the keys.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} is no mapping")
    if missing := [key for key in keys if key not in found]:
        raise ValueError(f"{path.name} lacks {missing[0]!r}")
    return found


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces, so that equal values have equal text. Non-finite numbers are refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256(content: bytes | str) -> str:
    """Hex digest."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
