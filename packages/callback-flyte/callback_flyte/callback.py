"""`FlyteCallback`: stores a training's checkpoints and log in its Flyte task."""

from __future__ import annotations

import contextvars
import logging
from pathlib import Path
from typing import Any

from callback_core import (
    CallbackArguments,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    output_directory,
    saved_checkpoint,
)
from callback_core.tracking import config
from callback_flyte.deck import add_deck
from callback_flyte.sync import CheckpointSync
from callback_flyte.task import checkpoint_of, running_task

logger = logging.getLogger(__name__)


class FlyteCallback(TrainerCallback):
    """Stores the checkpoints and the log of a training in the Flyte task that runs it.

    Construct the callback inside the task. Only the main process stores anything. The training does
    not wait for uploads, and a failed upload is retried.

    Args:
        save_log_history: Show the log in a deck of the task: loss curves and a table. Flyte keeps
            the decks of tasks that are declared with `enable_deck=True`.
        sync_checkpoints: Store the newest and the best checkpoint in Flyte's checkpoint of the
            task. A retry of an interrupted task resumes from them; see `restored_checkpoint`.
        flush_limit: Seconds that the end of training waits for an upload.

    Raises:
        ModuleNotFoundError: flytekit is not installed.
        NotConfigured: No task runs in this thread, or the task has no checkpoint location.
        ValueError: A setting is invalid.
    """

    on_error = "isolate"

    def __init__(
        self,
        save_log_history: bool = True,
        sync_checkpoints: bool = True,
        *,
        flush_limit: float = 60.0,
    ) -> None:
        self.save_log_history = config.flag("save_log_history", save_log_history, None)
        self.sync_checkpoints = config.flag("sync_checkpoints", sync_checkpoints, None)
        if not flush_limit >= 0:
            raise ValueError(f"flush_limit is {flush_limit!r}, it must be seconds, 0 or more.")
        self.flush_limit = flush_limit
        self._task = running_task(type(self).__name__)
        self._context = contextvars.copy_context()
        self._checkpoint: Any = None
        if self.sync_checkpoints:
            self._checkpoint = checkpoint_of(self._task, type(self).__name__)
        self._sync: CheckpointSync | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy, which stores nothing: only the original has the task."""
        absent = dict.fromkeys(("_task", "_context", "_checkpoint", "_sync"))
        return {**self.__dict__, **absent, "save_log_history": False, "sync_checkpoints": False}

    def on_train_begin(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add the deck, and carry over the checkpoint that the training resumes from."""
        if not state.is_world_process_zero:
            return
        if self._task is None:
            logger.warning(
                "This FlyteCallback is a copy, so Flyte gets nothing of this training. Make the "
                "callback inside the task."
            )
        if self.save_log_history:
            add_deck(self._task, state)
        if self._checkpoint is not None:
            sync = self._new_sync(args)
            if state.global_step > 0 and self._checkpoint.prev_exists():
                best = state.best_model_checkpoint
                sync.carry_over(f"checkpoint-{state.global_step}", best and Path(best).name)

    def on_save(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        checkpoint_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Upload the checkpoint, and the best one if it is another."""
        if self._checkpoint is None or not state.is_world_process_zero:
            return
        saved = saved_checkpoint(args, state, checkpoint_dir)
        if saved is None:
            raise FileNotFoundError(
                f"{args.output_dir} has no checkpoint of this trial at step {state.global_step}, "
                "so Flyte does not get it."
            )
        sync = self._sync or self._new_sync(args)
        best = Path(state.best_model_checkpoint or "")
        sync.keep(saved, best if state.best_model_checkpoint and best.is_dir() else None)

    def on_train_end(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Wait for the uploads, and report what is missing."""
        if self._sync is not None:
            self._sync.finish()

    def _new_sync(self, args: CallbackArguments) -> CheckpointSync:
        """Return a new sync for this training."""
        if self._sync is not None:  # the previous loop may have raised without an event
            self._sync.abandon()
        folder = Path(output_directory(args)) / ".flyte"
        self._sync = CheckpointSync(self._checkpoint, self._context, folder, self.flush_limit)
        return self._sync
