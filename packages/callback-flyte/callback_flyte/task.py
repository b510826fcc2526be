"""Finds the Flyte task that runs in this thread."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from callback_core import NotConfigured
from callback_core.tracking import import_sdk


def running_task(needed_by: str) -> Any:
    """Return the parameters of the task that runs in this thread: its checkpoint and its decks.

    Args:
        needed_by: The name of the caller, for error messages.

    Raises:
        ModuleNotFoundError: flytekit is not installed.
        NotConfigured: No task runs in this thread.
    """
    flytekit = import_sdk("flytekit", install="flytekit", needed_by=needed_by)
    contexts = import_module("flytekit.core.context_manager")
    execution = contexts.FlyteContextManager.current_context().execution_state
    outside = (None, contexts.ExecutionState.Mode.LOCAL_WORKFLOW_EXECUTION)
    if execution is None or execution.mode in outside:
        raise NotConfigured(
            f"{needed_by} works only in a Flyte task, and none runs in this thread. Use it in a "
            "function decorated with @task. When the same training runs without Flyte, leave it "
            "out of `callbacks` and `report_to`."
        )
    return flytekit.current_context()


def checkpoint_of(task: Any, needed_by: str) -> Any:
    """Return Flyte's checkpoint of a task.

    Raises:
        NotConfigured: The task has no checkpoint location.
    """
    try:
        return task.checkpoint
    except NotImplementedError as error:
        raise NotConfigured(
            f"{needed_by}: this Flyte task has no checkpoint location. To train without "
            "checkpoints in Flyte, pass sync_checkpoints=False to FlyteCallback."
        ) from error
