"""One module a data source: ``load(options: dict, folder: Path | None) -> Dataset``."""
