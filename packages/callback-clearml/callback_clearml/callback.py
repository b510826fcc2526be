"""`ClearMLCallback`: sends a training to ClearML."""

from __future__ import annotations

from collections.abc import Iterable

from callback_clearml.tracker import ClearMLTracker
from callback_core.tracking import DeliveryKind, TrackerCallback


class ClearMLCallback(TrackerCallback):
    """Sends parameters, scalars and, if asked to, checkpoints to ClearML, beside the training.

    The task that `Task.current_task()` returns when training begins is used, and stays open; so is
    that of an agent. Otherwise a task is made for each training, and closed as `completed`,
    `failed` or `stopped`. A setting that is not given comes from the environment variable that is
    named with it. Where the server is, and by which keys it is entered, ClearML finds itself.

    Args:
        project_name: The project of a new task; `CLEARML_PROJECT`.
        task_name: The name of a new task; `CLEARML_TASK`.
        log_model: Keep each checkpoint as an output model; `CLEARML_LOG_MODEL`.
        delivery: `thread`, `process` or `inline`, as `TrackerCallback` has it.
        open_limit: Seconds that opening the task may take before this is said.
        flush_limit: Seconds that the end of training waits for what is not delivered yet.
        redact: Names of arguments and logs whose values are secrets, besides those that look so.

    Raises:
        ValueError: A setting is wrong.
    """

    def __init__(
        self,
        *,
        project_name: str | None = None,
        task_name: str | None = None,
        log_model: bool | None = None,
        delivery: DeliveryKind = "thread",
        open_limit: float = 60.0,
        flush_limit: float = 30.0,
        redact: Iterable[str] = (),
    ) -> None:
        super().__init__(
            ClearMLTracker(project_name=project_name, task_name=task_name, log_model=log_model),
            delivery=delivery,
            open_limit=open_limit,
            flush_limit=flush_limit,
            redact=redact,
        )
