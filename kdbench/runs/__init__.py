"""One run from a request to a record, and what is asked of records afterwards."""
