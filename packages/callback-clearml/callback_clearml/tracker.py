"""`ClearMLTracker`: a task in ClearML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Final

from callback_clearml import sdk
from callback_clearml.offline import OfflineTask
from callback_clearml.online import OnlineTask
from callback_clearml.parameters import NOT_USED, in_section, unused_values, warn_of_unused
from callback_core.tracking import (
    Limits,
    Opening,
    Point,
    Status,
    Tracker,
    TrainingNumbers,
    Upload,
    config,
    flattened,
    import_sdk,
)

_DEFAULT_NAME: Final = "Trainer"
_SHORTEST_NAME: Final = 3


class ClearMLTracker(Tracker):
    """A task in ClearML. `ClearMLCallback` documents the arguments.

    Raises:
        ValueError: A setting is invalid.
    """

    name = "clearml"
    requires: Mapping[str, str] = MappingProxyType({"clearml": "clearml"})
    limits = Limits(batch_size=500, non_finite=False)

    _numbers: ClassVar = TrainingNumbers()
    """Numbers the trainings in each of the user's tasks."""

    def __init__(
        self,
        *,
        project_name: str | None = None,
        task_name: str | None = None,
        log_model: bool | None = None,
    ) -> None:
        project_name = _name("project_name", project_name, "CLEARML_PROJECT")
        self.project_name = project_name or "HuggingFace Transformers"
        self.task_name = _name("task_name", task_name, "CLEARML_TASK")
        log_model = config.flag("log_model", log_model, "CLEARML_LOG_MODEL")
        self.log_model = log_model is True
        self._suffix = ""
        self._is_users = False
        self._task: OnlineTask | OfflineTask

    @property
    def takes_checkpoints(self) -> bool:
        """Whether checkpoints become output models."""
        return self.log_model

    @property
    def keeps_open(self) -> bool:
        """Whether the task is offline. Each opening of an offline task makes a new folder."""
        return isinstance(getattr(self, "_task", None), OfflineTask)

    def settings(self) -> dict[str, Any] | None:
        """Return the arguments of an equal tracker."""
        return {
            "project_name": self.project_name,
            "task_name": self.task_name,
            "log_model": self.log_model,
        }

    def adopt(self) -> str | None:
        """Return the id of the user's or the agent's task."""
        return sdk.current_task_id()

    def parameters_of(
        self, arguments: Mapping[str, Any], model_config: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return arguments and model configuration in separate sections."""
        sections = {"Args": arguments, "Model Configuration": model_config}
        return {
            f"{section}/{name}": value
            for section, values in sections.items()
            for name, value in flattened(values, "/").items()
        }

    def open(self, opening: Opening) -> str:
        """Open the user's task, the task to continue, or a new one.

        Raises:
            RunNotFound: The server does not have the task to continue.
            Rejected: The server denies access.
        """
        clearml = import_sdk("clearml", install="clearml", needed_by="ClearMLCallback")
        task_id = opening.run_id
        if clearml.Task.is_offline():
            user_task = task_id if opening.adopted else None
            self._task = OfflineTask(user_task, self.project_name, self._name_of(opening))
        else:
            if task_id is not None and task_id.startswith(sdk.OFFLINE_ID):
                task_id = None  # the server does not know an offline task
            self._task = OnlineTask(
                task_id,
                opening.adopted,
                self.project_name,
                self._name_of(opening),
                opening.training,
            )
        self._is_users = opening.adopted
        self.run_url = self._task.url
        self._suffix = (
            self._numbers.suffix(self._task.id, opening.training) if opening.adopted else ""
        )
        return self._task.id

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Set the task's parameters. A warning names the user's values that differ."""
        named = {in_section(path, self._suffix): value for path, value in parameters.items()}
        if self._is_users:
            unused = unused_values(self._task.parameters(), named)
            warn_of_unused(self._task.id, unused, named)
            named |= {in_section(path, NOT_USED): value for path, value in unused.items()}
        self._task.log_parameters(named)

    def log_metrics(self, points: Sequence[Point]) -> None:
        """Add points to the task's scalars."""
        self._task.log_metrics(points, self._suffix)

    def log_summary(self, points: Sequence[Point]) -> None:
        """Set the task's single values."""
        self._task.log_summary(points, self._suffix)

    def log_files(self, upload: Upload) -> None:
        """Keep a checkpoint as an output model of the task."""
        self._task.log_files(upload, upload.name + self._suffix)

    def close(self, status: Status | None) -> None:
        """Close the task as completed, failed or stopped. The user's task stays open."""
        self._task.close(status)

    def _name_of(self, opening: Opening) -> str:
        """Return the name of a new task, which ClearML requires to have 3 characters."""
        name = self.task_name or (opening.name or "").strip() or _DEFAULT_NAME
        name = " ".join(filter(None, (name, opening.trial_name)))
        return name if len(name) >= _SHORTEST_NAME else f"{_DEFAULT_NAME} {name}"


def _name(argument: str, given: str | None, variable: str) -> str | None:
    """Return the name of a project or a task. ClearML requires 3 characters."""
    demand = "a name of 3 characters or more"
    found = config.matching(argument, given, variable, r"(?s)\s*\S.+\S\s*", demand)
    return None if found is None else found.strip()
