"""How a rule says that a callback breaks it, or that it does not apply."""

from __future__ import annotations


class ContractViolation(AssertionError):
    """A callback breaks a rule.

    Attributes:
        cause: What several rules have in common that fail for one reason; `None` if it is unknown.
    """

    def __init__(self, message: str, cause: str | None = None) -> None:
        super().__init__(message)
        self.cause = cause


class DoesNotApply(Exception):
    """A rule asks nothing of this callback, for the reason that the message gives."""


def require(kept: object, seen: str, cause: str | None = None) -> None:
    """Raise `ContractViolation` with what was seen instead, unless `kept`."""
    if not kept:
        raise ContractViolation(seen, cause)
