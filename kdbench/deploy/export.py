"""``kdbench export``: a network of a run as a file, read again and scored before it is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kdbench import kinds
from kdbench.base.errors import UserError
from kdbench.base.files import write_atomic
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.deploy.about import About, Scored
from kdbench.deploy.find import find
from kdbench.deploy.formats import FORMATS, Format

ANSWERS = 1e-3
"""Largest difference |a - b| / (1 + |b|) of an answer of the file from the network's own, over all test rows."""
SHARE, SHARE_BF16 = 1e-3, 1e-2
"""Share of the test rows that may be answered otherwise than when the record was written, at least one row; of metrics
that are no share of rows, relative difference. bf16: the run computed in bf16, the file computes in float32."""


@dataclass(frozen=True)
class Exported:
    """A file that was checked.

    Attributes:
        score: ``about.scored.primary`` of the file, read again, on the run's test rows.
        apart: largest difference of an answer from the network's own, as of ``ANSWERS``.
        allowed: difference of ``score`` from the record's that was allowed.
    """

    path: Path
    about: About
    score: float
    apart: float
    allowed: float


def allowed(scored: Scored) -> float:
    """How far a score may lie from its record's, in the metric's unit."""
    share = SHARE_BF16 if scored.bf16 else SHARE
    if kinds.metrics()[scored.primary].share:
        return 100 * max(1.0, share * scored.rows) / scored.rows + 1e-6  # of a rounded percentage
    return share * max(1.0, abs(scored.value))


def export(
    run: str | Path, form: str, net: str, to: Path | None, home: Home, data: Path | None, progress: Progress
) -> Exported:
    """Writes a network of a run as a file.

    Args:
        form: a key of :data:`kdbench.deploy.formats.FORMATS`.
        net: ``student``, ``teacher`` or ``teacher:<role>``.
        to: the file; None names it after the run, here.

    Raises:
        UserError: the network is not to be had, cannot be written in this form, or what was written does not answer
            or score as the record says; no file is left then.
    """
    how = FORMATS[form]
    how.require(form)
    if to is not None:
        _require_free(to)
    record = find(run, home)
    if how.graph and (reason := kinds.kind(record.task.kind).unwritten) is not None:
        raise UserError(
            f"{record.run_id[:12]}: no graph holds a network of a {record.task.kind} task: {reason}; --format "
            "safetensors holds its weights and these rules, for `kdbench predict` and kdbench.load_student"
        )

    from kdbench.deploy.load import load
    from kdbench.deploy.score import require_told, score

    loaded = load(record, net, home, data, progress)
    module, about = loaded.module, loaded.module.about
    if not (how.graph or about.built_by_name):
        raise UserError(
            f"{about.words}: its weights alone do not make it again, for code of the method or of the data source is "
            "part of it; onnx and torch-export hold what is computed"
        )
    require_told(about)
    path = to if to is not None else Path(_name(about) + how.suffix)
    _require_free(path)
    with _kept_if_sound(path) as part:
        with progress.bar(f"writing {form}", 1) as advance:
            write_atomic(part, _written(how, form, loaded.module))
            advance()
        (_, of_file), apart = score(
            about, [module, how.read(part)], loaded.test, progress, "scoring the file", loaded.searched
        )
        found, most = of_file[about.scored.primary], allowed(about.scored)
        _require_same(about, found, apart, most)
    return Exported(path, about, found, apart, most)


def _written(how: Format, form: str, module: object) -> bytes:
    try:
        return how.write(module)  # type: ignore[arg-type]
    except UserError:
        raise
    except Exception as error:  # torch's exporters raise many types, all of which mean: not this net
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"torch cannot write this network as {form}: {why[:300]}; try another --format") from error


def _require_same(about: About, found: float, apart: float, most: float) -> None:
    scored = about.scored
    if not apart <= ANSWERS:
        raise UserError(
            f"{about.words}: the file's answers differ from the network's by up to {apart:.3g}, {ANSWERS:g} is "
            "allowed; it was removed"
        )
    if not abs(found - scored.value) <= most:
        raise UserError(
            f"{about.words}: the file scores {found:.6g} {scored.unit} {scored.primary}, its record says "
            f"{scored.value:.6g}, and {most:.3g} is allowed; it was removed"
        )


@contextmanager
def _kept_if_sound(path: Path) -> Iterator[Path]:
    """A place beside ``path``, renamed to it at the end of the block; removed where that ends otherwise."""
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _require_free(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{path}: a folder; name a file in it with --to")
    if path.exists():
        raise UserError(f"{path}: there already; remove it or name another with --to")


def _name(about: About) -> str:
    """A file name that tells runs apart."""
    o = about.origin
    task = o.task.partition("@")[0].replace("/", "__")
    return f"{o.method}-{task}-s{o.seed}-{o.net.replace(':', '-').replace('/', '_')}-{o.run_id[:8]}"
