"""Reports the outcomes of rules, as a table and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

from callback_contract._result import Outcome, Result

OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)


def table(results: Mapping[str, Sequence[Result]]) -> str:
    """Return a table with a row for each callback, followed by the failures.

    Rules that fail for the same reason share a line. Skipped rules are counted by the capability
    that is not claimed.

    Args:
        results: The outcomes of the rules, by the name of the callback's suite.
    """
    shown = [o for o in OUTCOMES if any(r.outcome == o for rs in results.values() for r in rs)]
    rows = [("", *shown)]
    for name, outcomes in results.items():
        counts = Counter(result.outcome for result in outcomes)
        rows.append((name, *(str(counts[outcome]) for outcome in shown)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    for name, outcomes in results.items():
        lines += _not_claimed(name, outcomes)
        lines += _failures(name, outcomes)
    return "\n".join(lines)


def _not_claimed(name: str, results: Sequence[Result]) -> Iterator[str]:
    skipped = Counter(result.message for result in results if result.outcome == "not claimed")
    if skipped:
        yield f"{name} does not claim " + ", ".join(
            f"{c} ({n})" for c, n in sorted(skipped.items())
        )


def _failures(name: str, results: Sequence[Result]) -> Iterator[str]:
    by_cause: dict[str, list[Result]] = {}
    for result in results:
        if result.outcome in ("broken", "crashed", "fixed"):
            by_cause.setdefault(result.cause or result.rule.id, []).append(result)
    for cause, failed in by_cause.items():
        ids = ", ".join(result.rule.id for result in failed)
        if len(failed) > 1:
            yield f"{len(failed)} rules share this error in {name}: {cause} ({ids})"
        else:
            yield f"{ids} {failed[0].outcome} in {name}"


def as_data(results: Mapping[str, Sequence[Result]]) -> dict[str, Any]:
    """Return the outcomes and their counts as values that JSON can represent."""
    return {
        "callbacks": {
            name: {
                "counts": {o: sum(r.outcome == o for r in outcomes) for o in OUTCOMES},
                "rules": [
                    {
                        "id": result.rule.id,
                        "group": result.rule.group,
                        "outcome": result.outcome,
                        "message": result.message,
                        "cause": result.cause,
                    }
                    for result in outcomes
                ],
            }
            for name, outcomes in results.items()
        }
    }


def write_json(path: Path, results: Mapping[str, Sequence[Result]]) -> None:
    """Write `as_data(results)` to a file as JSON."""
    text = json.dumps(as_data(results), indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
