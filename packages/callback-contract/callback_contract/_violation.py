"""The exceptions by which a rule reports a violation, or that it does not apply."""

from __future__ import annotations

import sys
from pathlib import Path
from traceback import extract_tb
from typing import Final


class ContractViolation(AssertionError):
    """A callback breaks a rule.

    Attributes:
        cause: The same text for all rules that fail for the same reason; `None` if it is unknown.
        fix: How to fix this cause; `None` if the rule's own `fix` applies.
        seen: What was observed; by default the message.
    """

    def __init__(
        self,
        message: str,
        cause: str | None = None,
        fix: str | None = None,
        seen: str | None = None,
    ) -> None:
        super().__init__(message)
        self.cause, self.fix = cause, fix
        self.seen = message if seen is None else seen


class DoesNotApply(Exception):
    """A rule does not apply to this callback. The message gives the reason."""


def require(condition: object, seen: str, cause: str | None = None, fix: str | None = None) -> None:
    """Raise `ContractViolation` with `seen`, the observed behaviour, unless `condition` holds."""
    if not condition:
        raise ContractViolation(seen, cause, fix)


FIX_OF_AN_ERROR: Final = "Mend this error, or handle it."
"""The fix of a violation whose cause is an error of the author's code."""


def place_of(error: BaseException, owner: object) -> str:
    """Return the type of an error, and the line of `owner`'s module that raised it.

    Unlike its text, which may name a temporary directory, this is the same in all rules. If no line
    of the module took part, it is the line that raised the error.
    """
    frames = extract_tb(error.__traceback__)
    module = getattr(sys.modules.get(type(owner).__module__), "__file__", None)
    places = [frame for frame in frames if frame.filename == module] or frames
    where = f" in {Path(places[-1].filename).name}, line {places[-1].lineno}" if places else ""
    return f"{type(error).__name__}{where}"
