"""The outcome of the rules, for people and for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

from callback_contract._result import Outcome, Result

OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)


def table(results: Mapping[str, Sequence[Result]]) -> str:
    """Return a table with a row for each callback, and what asks for attention.

    Rules that fail for one reason are in one line. Rules that were skipped are counted by the
    capability that is not claimed.

    Args:
        results: The outcome of each rule, by the name of the callback's contract.
    """
    shown = [o for o in OUTCOMES if any(r.outcome == o for rs in results.values() for r in rs)]
    rows = [("", *shown)]
    for name, of_one in results.items():
        counts = Counter(result.outcome for result in of_one)
        rows.append((name, *(str(counts[outcome]) for outcome in shown)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    for name, of_one in results.items():
        lines += _not_claimed(name, of_one)
        lines += _failures(name, of_one)
    return "\n".join(lines)


def _not_claimed(name: str, results: Sequence[Result]) -> Iterator[str]:
    skipped = Counter(result.message for result in results if result.outcome == "not claimed")
    if skipped:
        counted = ", ".join(f"{what} ({n})" for what, n in sorted(skipped.items()) if what)
        yield f"{name} does not claim {counted}" if counted else f"{name} claims less than there is"


def _failures(name: str, results: Sequence[Result]) -> Iterator[str]:
    by_cause: dict[str, list[Result]] = {}
    for result in results:
        if result.outcome in ("broken", "crashed", "mended"):
            by_cause.setdefault(result.cause or result.rule.id, []).append(result)
    for cause, failed in by_cause.items():
        ids = ", ".join(result.rule.id for result in failed)
        if len(failed) > 1:
            yield f"{len(failed)} rules share this error in {name}: {cause} ({ids})"
        else:
            yield f"{ids} {failed[0].outcome} in {name}"


def as_data(results: Mapping[str, Sequence[Result]]) -> dict[str, Any]:
    """Return the same as values that JSON has."""
    return {
        "callbacks": {
            name: {
                "counts": {o: sum(r.outcome == o for r in of_one) for o in OUTCOMES},
                "rules": [
                    {
                        "id": result.rule.id,
                        "group": result.rule.group,
                        "outcome": result.outcome,
                        "message": result.message,
                        "cause": result.cause,
                    }
                    for result in of_one
                ],
            }
            for name, of_one in results.items()
        }
    }


def write_json(path: Path, results: Mapping[str, Sequence[Result]]) -> None:
    """Write `as_data` to a file."""
    text = json.dumps(as_data(results), indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
