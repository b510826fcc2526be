"""Rules for every callback."""

from callback_contract.rules.callbacks import (
    configuration,
    control,
    events,
    failure,
    imports,
    leftovers,
    lifecycle,
    output,
    patience,
    ranks,
    readonly,
    secrets,
    state,
)

__all__ = [
    "configuration",
    "control",
    "events",
    "failure",
    "imports",
    "leftovers",
    "lifecycle",
    "output",
    "patience",
    "ranks",
    "readonly",
    "secrets",
    "state",
]
