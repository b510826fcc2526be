"""`Result`: what came of checking one rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from callback_contract._rule import ContractViolation, Rule
from callback_contract._subject import Subject

Outcome = Literal["kept", "broken", "crashed", "deviates", "mended", "not claimed"]
"""What came of a rule. `crashed` is an error that is no violation; `mended` a deviation that the
callback no longer shows."""


class Result(NamedTuple):
    """What came of one rule."""

    rule: Rule
    outcome: Outcome
    message: str = ""


def outcome_of(
    rule: Rule,
    fate: str,
    subject: Subject,
    folder: Path,
    keep: Callable[[Rule, Subject, Path], None],
) -> Result:
    """Check `rule`, and return what came of it."""
    if fate == "not claimed":
        return Result(rule, "not claimed")
    folder.mkdir(parents=True)
    try:
        keep(rule, subject, folder)
    except ContractViolation as violation:
        return Result(rule, "deviates" if fate == "deviates" else "broken", str(violation))
    except Exception as error:
        return Result(rule, "crashed", f"{type(error).__name__}: {error}")
    return Result(rule, "mended" if fate == "deviates" else "kept")
