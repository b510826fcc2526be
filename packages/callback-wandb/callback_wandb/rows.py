"""`Rows`: what was logged to a run and its server may not have, so that a crash loses none."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

_MOST_KEYS: Final = 20_000
"""Rows that can be told from new ones when they are delivered again."""


class Rows:
    """The rows of a run's history that were logged since it was opened, in a file.

    The SDK takes rows at once and sends them seconds later; when its process dies, or the server is
    away when the run is closed, they are lost. A run that is opened again says how many rows the
    server has. Those that it lacks are logged again.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys: dict[str, None] = {}
        self._go_on_at: int | None = None

    def log(self, run: Any, row: dict[str, Any]) -> None:
        """Log a row, unless that is done."""
        key = _key(row)
        if key in self._keys:
            return
        if run.settings.mode == "shared":  # several processes log to it, and rows have no numbers
            run.log(row)
            self._remember(key)
            return
        self._keep([self._logged(run, row)])
        self._remember(key)

    def log_again(self, run: Any) -> None:
        """Log what the server lacks of what was logged when `run` was open before."""
        kept = [] if run.settings.mode == "shared" else list(self._kept())
        if run.offline and kept:
            self._go_on_at = kept[0][0]
        rows = [(number, row) for number, row in kept if row is not None]
        self._keys = {}
        for _, row in rows:
            self._remember(_key(row))
        again = [self._logged(run, row) for number, row in rows if number >= run.starting_step]
        if again:
            self._path.unlink()
            self._keep(again)

    def forget(self, going_on_at: int | None) -> None:
        """Be told that the server, or the SDK's file, has all rows.

        Args:
            going_on_at: The number of the next row, where no server will say it.
        """
        self._path.unlink(missing_ok=True)
        if going_on_at is not None:
            self._keep([(going_on_at, None)])

    def _logged(self, run: Any, row: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self._go_on_at is None:
            run.log(row)
        else:
            run.log(row, step=self._go_on_at, commit=True)
            self._go_on_at = None
        return run.step - 1, row

    def _remember(self, key: str) -> None:
        self._keys[key] = None
        if len(self._keys) > _MOST_KEYS:
            del self._keys[next(iter(self._keys))]

    def _keep(self, rows: Iterable[tuple[int, dict[str, Any] | None]]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(row)}\n" for row in rows)

    def _kept(self) -> Iterator[tuple[int, dict[str, Any] | None]]:
        with suppress(FileNotFoundError), self._path.open(encoding="utf-8") as file:
            for line in file:
                if line.endswith("\n"):  # otherwise it was not written to its end
                    number, row = json.loads(line)
                    yield number, row


def _key(row: dict[str, Any]) -> str:
    return f"{row['_timestamp']!r} {' '.join(sorted(row))}"
