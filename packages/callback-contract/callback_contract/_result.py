"""`Result`: the outcome of one rule."""

from __future__ import annotations

from typing import Literal, NamedTuple

from callback_contract._registry import Rule

Outcome = Literal[
    "kept", "broken", "crashed", "deviates", "mended", "not claimed", "does not apply"
]
"""The outcome of a rule. `crashed` is an error of a hook or of the contract, not of the callback;
`mended` a deviation that the callback no longer shows."""


class Result(NamedTuple):
    """The outcome of one rule.

    Attributes:
        rule: The rule.
        outcome: The outcome.
        message: Why it did not pass; empty if it did.
        cause: What it has in common with other rules that fail for the same reason.
    """

    rule: Rule
    outcome: Outcome
    message: str = ""
    cause: str | None = None
