"""The version of the record's schema."""

from typing import Final

SCHEMA_VERSION: Final = 1
