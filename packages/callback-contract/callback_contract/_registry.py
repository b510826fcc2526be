"""`Rule`: one demand on a callback; and the registry of all rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from callback_contract._case import Case

Version = tuple[int, int]


@dataclass(frozen=True)
class Rule:
    """One demand on a callback.

    Attributes:
        id: Its name, such as `LIF-002`. It never changes, and no other rule ever gets it.
        demands: What the rule expects, in one sentence or a few.
        why: What went wrong for people whose callback broke it, with the thread that shows it.
        mend: How to mend a violation.
        since: The version of the contract that first had it.
        needs: The rule applies only to callbacks that claim these capabilities.
        unless: The rule applies only to callbacks that do not claim this capability.
        of_trackers: Whether only trackers are asked, whose store can be read.
        check: Raises `ContractViolation` if a callback breaks the rule.
    """

    id: str
    demands: str
    why: str
    mend: str
    since: Version
    needs: frozenset[str]
    unless: str | None
    of_trackers: bool
    check: Callable[[Case], None]

    @property
    def group(self) -> str:
        """The letters of its id, which name its subject."""
        return self.id.partition("-")[0]


GROUPS: Final = {
    "LIF": "lifecycle",
    "EVT": "events",
    "CTL": "control",
    "PAT": "patience",
    "ROY": "read-only",
    "STA": "state",
    "FLT": "failure",
    "RNK": "ranks",
    "LEF": "leftovers",
    "OUT": "output",
    "IMP": "imports",
    "CFG": "configuration",
    "SEC": "secrets",
    "DEL": "delivery",
    "AWY": "a service that is away",
    "RES": "resume",
    "RUN": "runs",
    "STS": "status",
    "VAL": "values",
    "LIM": "limits",
    "RED": "redaction",
}
"""What the rules of a group are about. The files of `rules` have the same names."""

RULES: Final[dict[str, Rule]] = {}
"""All rules by id."""


def rule(
    rule_id: str,
    *,
    why: str,
    mend: str,
    since: Version = (2, 0),
    needs: Iterable[str] = (),
    unless: str | None = None,
    of_trackers: bool = False,
) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
    """Register the decorated function as a rule's check. Its docstring says what is demanded."""

    def register(check: Callable[[Case], None]) -> Callable[[Case], None]:
        if rule_id in RULES or rule_id.partition("-")[0] not in GROUPS:
            raise ValueError(f"{rule_id!r} is taken, or its group is unknown.")
        demands = " ".join((check.__doc__ or "").split())
        RULES[rule_id] = Rule(
            rule_id, demands, why, mend, since, frozenset(needs), unless, of_trackers, check
        )
        return check

    return register
