"""`OnlineTask`: a task on a ClearML server, through the API client of ClearML's SDK.

`clearml.Task` monitors a whole script: it patches the process, seeds the random generators, reports
in its own processes, and waits forever for an unreachable server. The API client of the same SDK
only sends requests, and reports whether the server accepted them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from zipfile import ZipFile

from callback_clearml.parameters import as_text
from callback_clearml.sdk import title_and_series
from callback_core import NotConfigured
from callback_core.tracking import Point, Rejected, RunNotFound, Status, Upload, summary_name

_RETRIES: Final = {
    "total": 2,
    "connect": 2,
    "read": 0,
    "redirect": 2,
    "status": 0,
    "backoff_factor": 0.5,
    "backoff_max": 2.0,
}
"""Retries of one call. The SDK's default of 240 takes hours, and the delivery retries anyway."""

_SINGLE_VALUE: Final = ("Summary", -(2**31))
"""The plot and the iteration that mark a single value in ClearML."""

_NO_SUCH_TASK: Final = (400, 101)
"""The codes of ClearML's error about a task that it does not have: `invalid_task_id`."""

_DENIED: Final = re.compile(r"\b(?:401|403)\b|(?i:unauthorized|invalid credentials)")

_END: Final[dict[Status, str]] = {
    "finished": "completed",
    "failed": "failed",
    "interrupted": "stopped",
}


class OnlineTask:
    """A task on a server.

    Args:
        task_id: The task to continue; `None` for a new one.
        adopted: Whether the user or an agent opened the task.
        project: The project of a new task, created if it does not exist.
        name: The name of a new task.
        training: The unique id of the training. It identifies a task that was created by a process
            that died before it noted the task's id.

    Raises:
        NotConfigured: ClearML finds no API credentials.
        RunNotFound: The server does not have the task to continue.
        Rejected: The server denies access.
    """

    def __init__(
        self, task_id: str | None, adopted: bool, project: str, name: str, training: str
    ) -> None:
        client = import_module("clearml.backend_api.session.client")
        missing = import_module("clearml.backend_api.session.defs").MissingConfigError
        self._events: Any = import_module("clearml.backend_api.services").events
        try:
            self._session: Any = client.StrictSession(http_retries_config=dict(_RETRIES))
        except missing as error:
            raise NotConfigured(
                "ClearML has no API credentials: run `clearml-init`, or set CLEARML_API_HOST, "
                "CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY, or CLEARML_OFFLINE_MODE=1"
            ) from error
        except import_module("clearml.backend_api.session.session").LoginError as error:
            if _DENIED.search(str(error)):
                raise Rejected(f"ClearML denies access: {error}") from error
            raise
        self._client: Any = client.APIClient(session=self._session)
        with _final_errors(client.APIError, task_id):
            if task_id is None:
                task_id = self._task_of(training, self._project(project), name)
            if not adopted:
                self._client.tasks.started(task=task_id, force=True)
        self.id = task_id

    @property
    def url(self) -> str:
        """The address of the task's page."""
        return f"{self._session.get_app_server_host()}/projects/*/experiments/{self.id}/output/log"

    def parameters(self) -> dict[str, str]:
        """Return the values of the parameters that the task has, named `section/name`."""
        [task] = self._client.tasks.get_all(id=[self.id], only_fields=["hyperparams"])
        return {
            f"{section}/{name}": str(entry.value or "")
            for section, entries in (task.hyperparams or {}).items()
            for name, entry in entries.items()
        }

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Set parameters named `section/name`. Other parameters stay."""
        entries = []
        for path, value in parameters.items():
            section, _, name = path.partition("/")
            kind = type(value).__name__
            entry = {"section": section, "name": name, "value": as_text(value), "type": kind}
            entries.append(entry)
        self._client.tasks.edit_hyper_params(task=self.id, hyperparams=entries)

    def log_metrics(self, points: Sequence[Point], suffix: str) -> None:
        """Add points with the times at which they were logged."""
        self._send([(*title_and_series(p, suffix), p.step, p) for p in points])

    def log_summary(self, points: Sequence[Point], suffix: str) -> None:
        """Set single values."""
        title, iteration = _SINGLE_VALUE
        self._send([(title, summary_name(p.name) + suffix, iteration, p) for p in points])

    def log_files(self, upload: Upload, name: str) -> None:
        """Upload a checkpoint to the task's output destination, by default the file server."""
        clearml = import_module("clearml")
        task = clearml.Task.get_task(task_id=self.id)
        task.output_uri = task.output_uri or True
        model = clearml.OutputModel(task=task, name=name)
        with _packed(upload.path) as package:
            model.update_weights(
                weights_filename=str(package),
                target_filename=f"{name}.zip",
                iteration=upload.step,
                auto_delete_file=False,
                update_comment=False,  # it would name the temporary file
                is_package=True,
                async_enable=False,
            )

    def close(self, status: Status | None) -> None:
        """Set how the task ended; `None` leaves its status unchanged."""
        if status is not None:
            end = getattr(self._client.tasks, _END[status])
            end(task=self.id, force=True, status_reason=f"the training {_REASON[status]}")
        self._client = self._session = None  # drops the connection

    def _send(self, points: Sequence[tuple[str, str, int, Point]]) -> None:
        requests = [
            self._events.AddRequest(
                self._events.MetricsScalarEvent(
                    task=self.id,
                    timestamp=point.time * 1000,
                    iter=iteration,
                    metric=title,
                    variant=series,
                    value=float(point.value),
                )
            )
            for title, series, iteration, point in points
        ]
        answer = self._session.send(self._events.AddBatchRequest(requests=requests)).response
        if answer.errors:
            raise Rejected(str(answer.errors_info or f"{answer.errors} of {len(points)} points"))

    def _task_of(self, training: str, project: str, name: str) -> str:
        """Return the id of a training's task, and create the task if it does not exist."""
        comment = f"Training {training}"
        found = self._client.tasks.get_all(
            project=[project],
            _all_={"fields": ["comment"], "pattern": f"^{re.escape(comment)}$"},
            only_fields=["id"],
        )
        for task in found:
            return str(task.id)
        made = self._client.tasks.create(
            name=name, type="training", project=project, comment=comment
        )
        return str(made.id)

    def _project(self, name: str) -> str:
        """Return the id of a project, and create the project if it does not exist."""
        found = self._client.projects.get_all(name=_exact_match(name), only_fields=["id", "name"])
        for project in found:
            return str(project.id)
        return str(self._client.projects.create(name=name, description="").id)


@contextmanager
def _final_errors(api_error: type[Any], task_id: str | None) -> Iterator[None]:
    """Raise `RunNotFound` or `Rejected` instead of errors for which the task never opens."""
    try:
        yield
    except api_error as error:
        if task_id is not None and error.codes == _NO_SUCH_TASK:
            raise RunNotFound(f"ClearML does not have the task {task_id}") from error
        if error.code in (401, 403):
            raise Rejected(f"ClearML denies access: {error.message}") from error
        raise


_REASON: Final[dict[Status, str]] = {
    "finished": "finished",
    "failed": "failed",
    "interrupted": "was interrupted",
}


@contextmanager
def _packed(directory: Path) -> Iterator[Path]:
    """Pack a directory into a temporary file, and delete the file afterwards.

    ClearML's own `update_weights_package` leaves its temporary file behind, unless it uploads in
    the background.
    """
    with TemporaryDirectory(prefix="clearml-") as folder:
        package = Path(folder, "model.zip")
        with ZipFile(package, "w", strict_timestamps=False) as packed:  # uncompressed
            for path in sorted(directory.rglob("*")):
                packed.write(path, path.relative_to(directory))
        yield package


def _exact_match(name: str) -> str:
    """Return a server pattern that matches only this name."""
    return str(import_module("clearml.backend_interface.util").exact_match_regex(name))
