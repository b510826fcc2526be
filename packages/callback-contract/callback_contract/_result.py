"""`Result`: the outcome of one rule."""

from __future__ import annotations

from typing import Literal, NamedTuple

from callback_contract._registry import Rule

Outcome = Literal["kept", "broken", "crashed", "deviates", "fixed", "not claimed", "does not apply"]
"""The outcome of a rule. `crashed`: a hook or the contract itself raised an error. `fixed`: the
callback keeps a rule from which it is declared to deviate."""


class Result(NamedTuple):
    """The outcome of one rule.

    Attributes:
        rule: The rule.
        outcome: The outcome.
        message: Why the rule did not pass; empty if it passed.
        cause: The same text for all rules that fail for the same reason.
    """

    rule: Rule
    outcome: Outcome
    message: str = ""
    cause: str | None = None
