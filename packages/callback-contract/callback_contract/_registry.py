"""`Rule`: one requirement for callbacks; and the registry of all rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from callback_contract._case import Case

Version = tuple[int, int]


@dataclass(frozen=True)
class Rule:
    """One requirement for callbacks.

    Attributes:
        id: The name of the rule, such as `LIF-002`. It never changes and is never reused.
        demands: What the rule requires, in one sentence or a few.
        why: What goes wrong if a callback breaks the rule, with an issue that reports it.
        fix: How to fix a violation.
        since: The first version of the contract that has the rule.
        needs: The rule applies only to callbacks that claim all of these capabilities.
        unless: The rule applies only to callbacks that do not claim this capability.
        of_trackers: Whether the rule applies only to trackers with a readable store.
        check: Raises `ContractViolation` if a callback breaks the rule.
        forbids_errors: Whether the rule only demands that nothing raises an error. Its `fix` then
            helps against any error of the callback.
    """

    id: str
    demands: str
    why: str
    fix: str
    since: Version
    needs: frozenset[str]
    unless: str | None
    of_trackers: bool
    check: Callable[[Case], None]
    forbids_errors: bool = False

    @property
    def group(self) -> str:
        """The letters of the id, which name the subject of the rule."""
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
    "AWY": "outages",
    "RES": "resume",
    "RUN": "runs",
    "STS": "status",
    "VAL": "values",
    "LIM": "limits",
    "RED": "redaction",
}
"""The subject of each group of rules. The modules in `rules` have the same names."""

RULES: Final[dict[str, Rule]] = {}
"""All rules by id."""


def rule(
    rule_id: str,
    *,
    why: str,
    fix: str,
    since: Version = (2, 0),
    needs: Iterable[str] = (),
    unless: str | None = None,
    of_trackers: bool = False,
    forbids_errors: bool = False,
) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
    """Register the decorated function as the check of a rule. Its docstring is `Rule.demands`."""

    def register(check: Callable[[Case], None]) -> Callable[[Case], None]:
        if rule_id in RULES or rule_id.partition("-")[0] not in GROUPS:
            raise ValueError(f"The id {rule_id!r} is taken, or its group is unknown.")
        demands = " ".join((check.__doc__ or "").split())
        RULES[rule_id] = Rule(
            rule_id,
            demands,
            why,
            fix,
            since,
            frozenset(needs),
            unless,
            of_trackers,
            check,
            forbids_errors,
        )
        return check

    return register
