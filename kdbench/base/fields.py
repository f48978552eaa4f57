"""The types of a record's fields: names, hashes, links, times and numbers, each with the rule it keeps."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, create_model


def _no_double_underscore(name: str) -> str:
    if "__" in name:
        raise ValueError("may not hold '__', which stands for '/' in file names")
    return name


def _time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


def tame(settings: dict[str, Any]) -> dict[str, Any]:
    """Free-form settings: JSON alone, finite numbers only, at most MAX_DEPTH levels."""
    level: list[Any] = [*settings.values()]
    for _ in range(MAX_DEPTH):
        if any(not isinstance(value, str | int | float | list | dict | None) for value in level):
            raise ValueError("holds what is neither text, number, list nor mapping")
        if any(isinstance(value, float) and not math.isfinite(value) for value in level):
            raise ValueError("holds a number that is not finite")
        inner = [value for value in level if isinstance(value, dict | list)]
        if not inner:
            return settings
        level = [item for value in inner for item in (value.values() if isinstance(value, dict) else value)]
    raise ValueError(f"is nested more than {MAX_DEPTH} deep")


MAX_DEPTH = 8
OTHER, YOURS = "-other-", "-yours-"
"""Stand in the name of rows, before a digest of theirs: those that are not the ones their data set stands for, and
those of someone's own data, of which nothing is known elsewhere."""
INPUT_WORDS = {"any": None, "same": "one picture", "other": "two inputs"}
"""What a method asks of the inputs of student and teachers, as its card's ``needs`` say it."""
_PLAIN = r"[a-z0-9][a-z0-9_.-]*"
Slug = Annotated[str, StringConstraints(pattern=rf"^{_PLAIN}$", max_length=64)]
MethodName = Annotated[str, StringConstraints(pattern=rf"^{_PLAIN}([+@]{_PLAIN})*$", max_length=96)]
TaskName = Annotated[
    str, StringConstraints(pattern=rf"^{_PLAIN}(/{_PLAIN})?$", max_length=96), AfterValidator(_no_double_underscore)
]
TermName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./+-]*$", max_length=64)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Unit = Annotated[str, StringConstraints(max_length=20)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
RunId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")]
Version = Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+$")]
Link = Annotated[str, StringConstraints(pattern=r"^https://[^\s<>\"'\\]+$", max_length=300)]
DeviceClassName = Annotated[
    str,
    StringConstraints(
        pattern=r"^[a-z][a-z0-9]*(:[A-Za-z0-9][A-Za-z0-9_.-]*)?/(fp64|fp32|tf32|bf16|fp16)"
        r"/x[1-9]\d*(/compile)?(/cuda-graphs)?(/channels-last)?(/fold-teacher)?(/teacher-(fp32|bf16))?(/fused)?(/teacher-store)?"
        r"(/teacher-ahead-([2-9]|[1-9]\d+))?$"
    ),
]
Time = Annotated[
    str,
    StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z$"),
    AfterValidator(_time),
]
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
Positive = Annotated[int, Field(ge=1, le=2**63 - 1)]
Amount = Annotated[float, Field(ge=0)]
Above0 = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Pair = tuple[Above0, Above0]
Settings = Annotated[dict[Word, JsonValue], AfterValidator(tame)]
Basis = Literal["measured", "projected", "cited"]
Ledger = Literal[
    "distill", "generator_train", "generate", "bank_init", "warmup_phase", "peer_students", "finetune",
    "teacher_train", "teacher_cache", "hparam_search", "evaluation",
]  # fmt: skip
EVALUATION = "evaluation"
"""The line of the ledger of what only measures, such as a probe or fine-tuning: it is shown, and counts as no cost."""
SEARCH = "hparam_search"
"""The line of a search of hyper-parameters: shown, and in no total."""
CACHE = "teacher_cache"
"""The line of what asked frozen teachers beforehand."""
Status = Literal["ok", "failed", "timeout", "oom", "diverged", "not_applicable"]


class Part(BaseModel):
    """Base of every block: strict types, finite numbers, no unknown field, frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def some_of(block: type[Part]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Validates a mapping of some fields of a block to values, each by the type that the block states for it."""
    fields: dict[str, Any] = {name: (field.rebuild_annotation(), None) for name, field in block.model_fields.items()}
    part = create_model(f"SomeOf{block.__name__}", __base__=Part, **fields)

    def validated(found: dict[str, Any]) -> dict[str, Any]:
        part.model_validate(found, strict=False)
        return found

    return validated
