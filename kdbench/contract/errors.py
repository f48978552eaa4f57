"""What a method that cannot run says."""

from __future__ import annotations


class NotApplicable(Exception):
    """A method cannot run on this task; the message is the reason. The run is recorded as ``not_applicable``."""
