"""`Rule`: one demand on every callback, and the registry of all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from callback_contract._case import Case

Version = tuple[int, int]


class ContractViolation(AssertionError):
    """A callback breaks a rule. The message begins with the rule's id."""


@dataclass(frozen=True)
class Rule:
    """One demand on a callback.

    Attributes:
        id: Its name, `LIF-001`, which never changes and is never given to another.
        demands: What it demands, in a sentence or a few.
        why: What went wrong where it was not kept, with the thread that shows it.
        mend: How to mend a violation.
        since: The version of the contract that it came with.
        needs: Capabilities without which it does not apply.
        of_trackers: Whether it is a demand on trackers only, whose store can be read.
        check: Raises `ContractViolation` where a callback breaks it.
    """

    id: str
    demands: str
    why: str
    mend: str
    since: Version
    needs: frozenset[str]
    of_trackers: bool
    check: Callable[[Case], None]

    @property
    def group(self) -> str:
        """What it is about: the letters of its id."""
        return self.id.partition("-")[0]


RULES: Final[dict[str, Rule]] = {}
"""All rules, by their ids."""

GROUPS: Final = {
    "LIF": "lifecycle",
    "EVT": "events",
    "CTL": "control",
    "ROY": "read-only",
    "STA": "state",
    "FLT": "failure",
    "DEL": "delivery",
    "RES": "resume",
    "STS": "status",
    "VAL": "values",
    "LIM": "limits",
    "RED": "redaction",
    "RNK": "ranks",
    "IMP": "imports",
    "LEF": "leftovers",
    "OUT": "output",
    "FLW": "flow",
    "PAT": "patience",
    "PRN": "printing",
    "BAR": "bars",
    "TRK": "trackers",
    "JRN": "journal",
    "RPL": "replay",
    "CFG": "configuration",
}


def rule(
    rule_id: str,
    *,
    why: str,
    mend: str,
    since: Version = (1, 0),
    needs: Iterable[str] = (),
    of_trackers: bool = False,
) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
    """Register the decorated function as the check of a rule; its docstring is what it demands."""

    def register(check: Callable[[Case], None]) -> Callable[[Case], None]:
        if rule_id in RULES or rule_id.partition("-")[0] not in GROUPS:
            raise ValueError(f"{rule_id!r} is there already, or its group is unknown.")
        demands = " ".join((check.__doc__ or "").split())
        RULES[rule_id] = Rule(
            rule_id, demands, why, mend, since, frozenset(needs), of_trackers, check
        )
        return check

    return register


def require(kept: object, message: str) -> None:
    """Say that the rule is broken, and how, unless `kept`."""
    if not kept:
        raise ContractViolation(message)
