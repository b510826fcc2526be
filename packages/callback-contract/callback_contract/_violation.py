"""The exceptions by which a rule reports a violation, or that it does not apply."""

from __future__ import annotations


class ContractViolation(AssertionError):
    """A callback breaks a rule.

    Attributes:
        cause: The same text for all rules that fail for the same reason; `None` if it is unknown.
        seen: What was observed; by default the message.
    """

    def __init__(self, message: str, cause: str | None = None, seen: str | None = None) -> None:
        super().__init__(message)
        self.cause = cause
        self.seen = message if seen is None else seen


class DoesNotApply(Exception):
    """A rule does not apply to this callback. The message gives the reason."""


def require(condition: object, seen: str, cause: str | None = None) -> None:
    """Raise `ContractViolation` with `seen`, the observed behaviour, unless `condition` holds."""
    if not condition:
        raise ContractViolation(seen, cause)
