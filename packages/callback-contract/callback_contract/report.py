"""What came of the rules, for people and for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

from callback_contract._result import Outcome, Result

OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)


def table(results: Mapping[str, Sequence[Result]]) -> str:
    """Return a table, a row for each callback, and a line for each rule that asks for attention.

    Args:
        results: What came of each rule, by the name of the callback's contract.
    """
    header = ("", *OUTCOMES)
    rows = [header]
    for name, of_one in results.items():
        counts = Counter(result.outcome for result in of_one)
        rows.append((name, *(str(counts[outcome]) for outcome in OUTCOMES)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines += [
        f"{result.rule.id} {result.outcome} in {name}"
        for name, of_one in results.items()
        for result in of_one
        if result.outcome in ("broken", "crashed", "mended")
    ]
    return "\n".join(lines)


def as_data(results: Mapping[str, Sequence[Result]]) -> dict[str, Any]:
    """Return the same as values that JSON knows."""
    return {
        "callbacks": {
            name: {
                "counts": {o: sum(r.outcome == o for r in of_one) for o in OUTCOMES},
                "rules": [
                    {"id": rule.id, "group": rule.group, "outcome": outcome, "message": message}
                    for rule, outcome, message in of_one
                ],
            }
            for name, of_one in results.items()
        }
    }


def write_json(path: Path, results: Mapping[str, Sequence[Result]]) -> None:
    """Write `as_data` to a file."""
    text = json.dumps(as_data(results), indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
