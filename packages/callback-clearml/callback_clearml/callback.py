"""`ClearMLCallback`: logs a training to ClearML."""

from __future__ import annotations

from collections.abc import Iterable

from callback_clearml.tracker import ClearMLTracker
from callback_core.tracking import DeliveryKind, TrackerCallback


class ClearMLCallback(TrackerCallback):
    """Sends parameters, scalars and optional checkpoints to ClearML, in the background.

    The callback uses the task that `Task.current_task()` returns when training begins, or the
    agent's task, and leaves it open. Otherwise it creates a task for each training, and closes it
    as `completed`, `failed` or `stopped`. Each setting defaults to the environment variable named
    with it. ClearML itself finds the server and its credentials.

    Args:
        project_name: The project of a new task; `CLEARML_PROJECT`.
        task_name: The name of a new task; `CLEARML_TASK`, else `args.run_name`, else `Trainer`.
        log_model: Keep each checkpoint as an output model; `CLEARML_LOG_MODEL`.
        delivery: `thread`, `process` or `inline`; see `TrackerCallback`.
        open_limit: Seconds that opening the task may take before a warning.
        flush_limit: Seconds that the end of training waits for undelivered data.
        redact: Names of arguments and logs whose values are secrets, in addition to those that are
            recognized automatically.

    Raises:
        ModuleNotFoundError: The SDK is not installed. A callback that is switched off needs none.
        ValueError: A setting is invalid.
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
