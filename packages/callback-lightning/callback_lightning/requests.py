"""Lets Lightning do what callbacks ask for through the control, as far as it can."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from callback_core import TrainerControl
from callback_lightning.framework import Trainer

logger = logging.getLogger(__name__)


class Requests:
    """Does what callbacks ask for, through the public attributes of Lightning's trainer.

    Args:
        tell: Logs a warning, once.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._before: dict[str, Any] = {}  # attributes of the trainer that hold for one step only
        self._has_told_of_stop = False

    def begin(self) -> None:
        """Prepare for a new training."""
        self._before, self._has_told_of_stop = {}, False

    def restore(self, trainer: Trainer) -> None:
        """Undo what was set for one step."""
        for name, value in self._before.items():
            setattr(trainer, name, value)
        self._before = {}

    def stop(self, trainer: Trainer, control: TrainerControl, *, is_done: bool) -> None:
        """Stop the training if a callback asks for that.

        Lightning first completes `min_epochs` and `min_steps`, and validates before it stops.

        Args:
            trainer: Lightning's trainer.
            control: What callbacks ask for.
            is_done: Whether all steps are done, so that the training ends anyway.
        """
        if not control.should_training_stop:
            return
        trainer.should_stop = True
        if not (self._has_told_of_stop or is_done) and trainer.is_global_zero:
            self._has_told_of_stop = True
            asked = [one for one in control.requests if one.flag == "should_training_stop"]
            logger.warning("Training stops: %s.", "; ".join(map(str, asked)))

    def after_batch(self, trainer: Trainer, control: TrainerControl) -> None:
        """Let Lightning leave the epoch, log and validate after this batch, if asked to."""
        if control.should_epoch_stop:
            trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = True
        if control.should_log:
            self._set(trainer, "log_every_n_steps", 1)
        if control.should_evaluate:
            self._evaluate(trainer)

    def after_epoch(self, control: TrainerControl) -> None:
        """Warn about what cannot be done at the end of an epoch."""
        if control.should_evaluate:
            self._tell(
                "A callback asks for an evaluation at the end of an epoch. Lightning has validated "
                "by then and does not validate again. Ask for it at on_step_end."
            )

    def _evaluate(self, trainer: Trainer) -> None:
        batches = trainer.num_val_batches
        total = sum(batches) if isinstance(batches, list) else batches
        if not trainer.enable_validation or not total:
            self._tell("A callback asks for an evaluation, but there is no validation data.")
        elif trainer.val_check_batch is None:
            self._tell(
                "A callback asks for an evaluation, but val_check_interval is a time, so Lightning "
                "validates only then."
            )
        else:
            self._set(trainer, "val_check_batch", 1)
            self._set(trainer, "check_val_every_n_epoch", 1)

    def _set(self, trainer: Trainer, name: str, value: Any) -> None:
        self._before.setdefault(name, getattr(trainer, name))
        setattr(trainer, name, value)
