"""What came out: scores, training curve, costs by stage, the network that is kept; or why there is none."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kdbench.base.fields import Above0, Amount, Basis, Count, Ledger, Part, Positive, Sha256, Slug, TermName, Text, Word


class Failure(Part):
    """Why a run has no result; the message is scrubbed (:func:`scrub`)."""

    type: Word
    message: Text


class ExternalScore(Part):
    """The primary metric on rows from elsewhere; ``sha256``: of what decides them, ``about``: what they are."""

    value: float
    items: Positive
    sha256: Sha256
    about: Text


class Metrics(Part):
    """Scores of the deployed network. ``test_items``: rows scored, for the noise of the test set itself;
    ``signatures``: of metrics that others compute too, settings and version in their program's own words;
    ``external``: scores on the task's further test sets, by name; ``classes``: the primary metric of each class that
    test rows hold, by its name, where the metric is a mean over classes; ``items_sha256``: of what the
    primary metric is of each test row, in ``items/<run_id>.parquet`` beside it; null where nothing was kept."""

    last: dict[Slug, float]
    best: dict[Slug, float] | None = None
    best_epoch: Count | None = None
    best_selected_on: Literal["val", "test"] | None = None
    test_items: Positive
    items_sha256: Sha256 | None = None
    signatures: dict[Slug, Text] | None = None
    external: dict[Slug, ExternalScore] | None = None
    classes: dict[Text, float] | None = None

    @model_validator(mode="after")
    def _best_is_whole(self) -> Self:
        given = {self.best is not None, self.best_epoch is not None, self.best_selected_on is not None}
        if len(given) > 1:
            raise ValueError("best, best_epoch and best_selected_on go together")
        return self


class CurvePoint(Part):
    """One point of the training curve; ``losses`` by term, ``val`` by metric."""

    epoch: Count
    step: Count
    train_loss: float | None = None
    losses: dict[TermName, float] = Field(default_factory=dict)
    val: dict[Slug, float] = Field(default_factory=dict)
    lr: Amount
    elapsed_s: Amount


class Digest(Part):
    """Fingerprint of the first steps, for replay: ``sha256`` of the loss totals, of which the first are kept."""

    steps: Positive
    sha256: Sha256
    losses: Annotated[tuple[float, ...], Field(max_length=20)]


class StageCost(Part):
    """One line of the cost ledger; ``reusable``: its artefact serves other students of the task."""

    name: Slug
    ledger: Ledger
    device_h: Amount
    steps: Count
    flops: Amount | None = None
    energy_kwh: Amount | None = None
    basis: Basis
    artefact_sha256: Sha256 | None = None
    reusable: bool = False


class Deploy(Part):
    """The network that is kept; ``equals_plain``: same graph and parameter shapes as the plain student."""

    params: Positive
    gflops: Amount | None = None
    latency_ms_b1: Above0 | None = None
    latency_ms_b128: Above0 | None = None
    size_mib: Amount | None = None
    equals_plain: bool
    export_sha256: Sha256 | None = None
