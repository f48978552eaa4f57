"""The DuckDB index of records."""
