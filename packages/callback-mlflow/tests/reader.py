"""Reads runs from the tables of a database, without MLflow."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from callback_mlflow.testing import Read


class Database:
    """The SQLite database of an MLflow store."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def ask(self, query: str, *values: Any) -> list[Any]:
        with sqlite3.connect(self.path) as database:
            return database.execute(query, values).fetchall()

    def runs(self, experiment: str) -> list[Read]:
        """Return the runs of an experiment, oldest first."""
        found = self.ask(
            "select run_uuid, r.name, status from runs r join experiments e using (experiment_id) "
            "where e.name = ? order by start_time, r.rowid",
            experiment,
        )
        return [self._run(*row) for row in found]

    def _run(self, run: str, name: str, status: str) -> Read:
        parameters = self.ask("select key, value from params where run_uuid = ?", run)
        tags = self.ask("select key, value from tags where run_uuid = ?", run)
        points = self.ask(
            "select key, step, case is_nan when 1 then 'nan' else value end, timestamp "
            "from metrics where run_uuid = ?",
            run,
        )
        points = [(key, step, float(value), time) for key, step, value, time in points]
        return Read(run, name, status, dict(parameters), dict(tags), points)
