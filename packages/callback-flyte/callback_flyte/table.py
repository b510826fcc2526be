"""Renders the log of a training as an HTML table: a row for each step, a column for each name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

MOST_ROWS: Final = 1000
"""The table shows only this many rows, the last ones, so that a browser can render it."""

_FIRST: Final = ("step", "epoch")
_LONGEST: Final = 200


def table_of(history: Sequence[Mapping[str, Any]]) -> str:
    """Return the table, preceded by the totals that the trainer logs at the end."""
    counts = Counter(name for entry in history for name in entry)
    totals = [n for n in counts if counts[n] == 1 and n.startswith(("train_", "total_"))]
    rows = list(_rows(history, totals))
    names = [*_FIRST, *(name for name in counts if name not in (*_FIRST, *totals))]
    names = [name for name in names if any(name in row for row in rows)]
    parts = []
    if totals:
        found = {name: entry[name] for entry in history for name in totals if name in entry}
        listed = " · ".join(f"{escape(name)} <b>{_shown(v)}</b>" for name, v in found.items())
        parts.append(f'<p class="totals">{listed}</p>')
    if not rows:
        return "".join([*parts, "<p>Nothing has been logged.</p>"])
    if len(rows) > MOST_ROWS:
        parts.append(f"<p>The last {MOST_ROWS:,} of {len(rows):,} rows.</p>")
    parts += ["<table><thead>", _line("th", map(escape, names)), "</thead><tbody>"]
    for row in rows[-MOST_ROWS:]:
        parts.append(_line("td", (_shown(row[n]) if n in row else "" for n in names)))
    return "\n".join([*parts, "</tbody></table>"])


def _rows(
    history: Sequence[Mapping[str, Any]], totals: Sequence[str]
) -> Iterable[Mapping[str, Any]]:
    """Yield rows. Several logs of one step share a row, unless they have a name in common."""
    row: dict[str, Any] = {}
    for entry in history:
        more = {name: value for name, value in entry.items() if name not in totals}
        if more.keys() <= {*_FIRST}:
            continue
        shared = (row.keys() & more.keys()) - {*_FIRST}
        if row and (shared or any(row.get(name) != more.get(name) for name in _FIRST)):
            yield row
            row = {}
        row |= more
    if row:
        yield row


def _line(tag: str, cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells)}</tr>"


def _shown(value: Any) -> str:
    """Return a value in readable form, escaped."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return escape(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
