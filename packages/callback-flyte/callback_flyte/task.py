"""The Flyte task that this thread runs in."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from callback_core import NotConfigured
from callback_core.tracking import import_sdk


def running_task(needed_by: str) -> Any:
    """Return what Flyte tells the task that runs in this thread: its checkpoint, its decks.

    Args:
        needed_by: Who asks.

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
            f"{needed_by} works only within a Flyte task, and none runs in this thread. Use it in "
            "a function that is decorated with @task, and leave it out (of `callbacks` and of "
            "`report_to`) where the same training runs without Flyte."
        )
    return flytekit.current_context()


def checkpoint_of(task: Any, needed_by: str) -> Any:
    """Return the checkpoint of a task.

    Raises:
        NotConfigured: It has none.
    """
    try:
        return task.checkpoint
    except NotImplementedError as error:
        raise NotConfigured(
            f"{needed_by}: Flyte has given this task no place for checkpoints. Pass "
            "sync_checkpoints=False to FlyteCallback where that is meant."
        ) from error
