"""`Rows`: keeps logged rows until the server has them, so that a crash loses none."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

_MOST_KEYS: Final = 20_000
"""The number of recent rows that are recognized if they are delivered again."""


class _Begun(NamedTuple):
    """What we have added to a row that a run has begun.

    Attributes:
        number: The number of the row.
        time: The time of the first of the values. Without it, the SDK gives the row the time of the
            call that adds to it last.
        values: The values by name.
    """

    number: int
    time: float
    values: dict[str, Any]

    def end(self, run: Any) -> None:
        """End the row, if it is still begun."""
        if self.number == run.step:
            run.log({"_timestamp": self.time}, commit=True)

    def can_take(self, values: dict[str, Any]) -> bool:
        """Return whether `values` replace none of these."""
        return all(
            values[name] is self.values[name] or values[name] == self.values[name]
            for name in values.keys() & self.values.keys()
        )


_BEGUN: Final[WeakKeyDictionary[Any, _Begun]] = WeakKeyDictionary()
"""The row that each run has begun, if it holds values of ours."""


def begun_values(run: Any) -> dict[str, Any]:
    """Return what we have added to the row that a run has begun. Its summary lacks these."""
    begun = _BEGUN.get(run)
    return {} if begun is None else begun.values


class Rows:
    """A file with the rows of a run's history that were logged since the run was opened.

    The SDK accepts rows at once, but sends them seconds later. If its process dies, or the server
    is unreachable when the run is closed, these rows are lost. A reopened run knows how many rows
    the server has, and the missing ones are logged again.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys: dict[str, None] = {}
        self._next_number: int | None = None

    def log(self, run: Any, row: dict[str, Any], *, merge: bool = False) -> None:
        """Log a row, unless it has been logged before.

        Args:
            run: The run.
            row: Values by name.
            merge: Whether others log to the run too. The row is then added to the one that is
                begun, and ends it only if that holds an earlier row of ours. A row of others that
                has a number stays possible, as long as they log at least as often.
        """
        key = _key(row)
        if key in self._keys:
            return
        if (
            run.settings.mode == "shared"
        ):  # several processes log to the run, so rows have no numbers
            run.log(row)
            self._remember(key)
            return
        self._append([self._merged(run, row) if merge else self._logged(run, row)])
        self._remember(key)

    def log_again(self, run: Any) -> None:
        """Log the rows again that the server lacks from when `run` was open before."""
        kept = [] if run.settings.mode == "shared" else list(self._read())
        if run.offline and kept:
            self._next_number = kept[0][0]
        rows = [(number, row) for number, row in kept if row is not None]
        self._keys = {}
        for _, row in rows:
            self._remember(_key(row))
        again = [self._logged(run, row) for number, row in rows if number >= run.starting_step]
        if again:
            self._path.unlink()
            self._append(again)

    def end_begun(self, run: Any) -> None:
        """End the row that the run has begun, if it holds values of ours."""
        begun = _BEGUN.pop(run, None)
        if begun is not None:
            begun.end(run)

    def forget(self, next_number: int | None) -> None:
        """Delete the rows, because the server or the SDK's own file has all of them.

        Args:
            next_number: The number of the next row, if no server will know it.
        """
        self._path.unlink(missing_ok=True)
        if next_number is not None:
            self._append([(next_number, None)])

    def _logged(self, run: Any, row: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self._next_number is None:
            run.log(row)
        else:
            run.log(row, step=self._next_number, commit=True)
            self._next_number = None
        return run.step - 1, row

    def _merged(self, run: Any, row: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        values = dict(row)
        self.add(run, values, time=values.pop("_timestamp"))
        return run.step, row

    def add(self, run: Any, values: dict[str, Any], time: float) -> None:
        """Add values to the row that is begun. A crash may lose them.

        This ends the row only if it holds other values of ours with these names. The row has the
        time of the first.
        """
        begun = _BEGUN.get(run)
        if begun is not None and not begun.can_take(values):
            begun.end(run)
        if begun is None or begun.number != run.step:
            begun = _Begun(run.step, time, {})
        run.log({**values, "_timestamp": begun.time}, step=self._next_number, commit=False)
        self._next_number = None
        begun.values.update(values)
        _BEGUN[run] = begun._replace(number=run.step)

    def _remember(self, key: str) -> None:
        self._keys[key] = None
        if len(self._keys) > _MOST_KEYS:
            del self._keys[next(iter(self._keys))]

    def _append(self, rows: Iterable[tuple[int, dict[str, Any] | None]]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(row)}\n" for row in rows)

    def _read(self) -> Iterator[tuple[int, dict[str, Any] | None]]:
        with suppress(FileNotFoundError), self._path.open(encoding="utf-8") as file:
            for line in file:
                if line.endswith("\n"):  # otherwise the line is incomplete
                    number, row = json.loads(line)
                    yield number, row


def _key(row: dict[str, Any]) -> str:
    return f"{row['_timestamp']!r} {' '.join(sorted(row))}"
