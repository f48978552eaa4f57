"""Options of a data source, as typed by its own model."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from kdbench.base.errors import UserError
from kdbench.base.yamlfile import describe

Options = TypeVar("Options", bound=BaseModel)


def parse(model: type[Options], options: dict[str, Any], source: str) -> Options:
    """``data.options`` as the source's model.

    Raises:
        UserError: an unknown option (with the nearest name) or a wrong value.
    """
    try:
        return model.model_validate(options)
    except ValidationError as error:
        raise UserError(f"data.options of source {source!r}: {describe(error, model)}") from error
