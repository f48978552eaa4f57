"""The columns and cells of a task's table."""
