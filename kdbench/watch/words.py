"""Where work stands, in words."""

from __future__ import annotations

from kdbench.base.progress import Point, Work


def clock(seconds: float | None) -> str:
    """``0:03:20``, ``-:--:--`` where it is not known."""
    if seconds is None:
        return "-:--:--"
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def place(work: Work) -> str:
    """``epoch 3/30``, or ``1,200/5,000`` steps."""
    if work.epoch is not None:
        return f"epoch {work.epoch}/{work.epochs}"
    return f"{work.done:,}/{work.total:,}" if work.total is not None else ""


def values(loss: float | None, score: tuple[str, float] | None) -> list[str]:
    """``loss 0.412`` and ``top1 83.10``, as far as they are known."""
    found = [] if loss is None else [f"loss {loss:.4g}"]
    return found if score is None else [*found, f"{score[0]} {score[1]:.2f}"]


def line(work: Work) -> str:
    """All of it: ``run 3/18, kd on digits, seed 2: student, epoch 3/30, loss 0.412, top1 83.10, ETA 0:00:40``."""
    run, every = work.runs_left()
    parts = [work.name, place(work), *values(work.loss, work.score), f"ETA {clock(run)}"]
    text = ", ".join(filter(None, parts))
    runs = work.runs
    if not runs.label:
        return text
    count = f"run {runs.number}/{runs.total}, " if runs.total > 1 else ""
    return f"{count}{runs.label}: {text}" + (f", all {clock(every)}" if every is not None else "")


def epoch(work: Work, point: Point) -> str:
    """A point with each term of the loss."""
    at = f"epoch {point.epoch}/{point.epochs}, step {point.step}" if point.epoch is not None else f"step {point.step}"
    terms = ", ".join(f"{name} {value:.4g}" for name, value in point.terms.items())
    loss = f"loss {point.loss:.4g}" + (f" ({terms})" if terms else "")
    scores = [f"{name} {value:.2f}" for name, value in point.scores.items()]
    return ", ".join([work.name, f"{at}/{work.total}", loss, *scores, f"lr {point.lr:.3g}"])
