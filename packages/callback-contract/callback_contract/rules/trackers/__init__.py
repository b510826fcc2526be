"""Rules for trackers, which compare the store with what was logged."""

from callback_contract.rules.trackers import (  # noqa: F401  importing them registers the rules
    delivery,
    limits,
    outages,
    redaction,
    resume,
    runs,
    status,
    values,
)
