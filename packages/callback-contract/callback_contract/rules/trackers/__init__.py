"""Rules for trackers: the store holds what was logged."""

from callback_contract.rules.trackers import (
    away,
    delivery,
    limits,
    redaction,
    resume,
    runs,
    status,
    values,
)

__all__ = [
    "away",
    "delivery",
    "limits",
    "redaction",
    "resume",
    "runs",
    "status",
    "values",
]
