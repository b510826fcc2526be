"""Rules for every callback."""

from callback_contract.rules.callbacks import (  # noqa: F401  importing them registers the rules
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
