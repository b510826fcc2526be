"""`TrainerCallback`: the class that users and trackers subclass."""

from __future__ import annotations

from typing import Any

from callback_core.arguments import CallbackArguments
from callback_core.control import TrainerControl
from callback_core.failures import OnError
from callback_core.state import TrainerState
from callback_core.transformers_trainer import recorded_twice_by, tell_of_errors


class TrainerCallback:
    """An object that watches a training and may steer it through `TrainerControl`.

    Override the events that you need; the others cost nothing. Each event gets `args`, `state` and
    `control` by position and everything else by keyword. Take the keywords that you use, and end
    the signature with `**kwargs`, because newer loops may pass more. Every event passes `model`,
    `processing_class` (the same object as `tokenizer`), `optimizer`, `lr_scheduler`,
    `train_dataloader` and `eval_dataloader`. Some events pass more: see their docstrings below, or
    `callback_core.EVENTS`.

    Change nothing but `control`. Return `control`, or nothing.

    To keep something in a checkpoint, define `state_dict()`, which returns JSON values, and
    `load_state_dict(state)`.

    Attributes:
        on_error: What an error in a callback does. `raise`, the default, ends the training.
            `isolate`, the default of trackers, logs the error; after three in a row at one event,
            the callback is switched off for the rest of the training.

    Example:
        >>> from callback_core import TrainerCallback, request_stop
        >>> class StopAtLoss(TrainerCallback):
        ...     def on_log(self, args, state, control, logs=None, **kwargs):
        ...         if logs.get("loss", 1.0) < 0.1:
        ...             request_stop(control, "the loss is low enough")
    """

    on_error: OnError = "raise"

    def on_init_end(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl | None:
        """The trainer has been built.

        This is empty for our loops. In transformers' Trainer, it makes sure that the callbacks
        learn of errors.

        Raises:
            ValueError: transformers' own callback of this name is among the Trainer's callbacks.
        """
        tell_of_errors()
        if name := recorded_twice_by(self, control):
            raise ValueError(
                f"The Trainer has transformers' own {name} and that of {type(self).__module__}, so "
                'everything would be recorded twice. Set report_to="none", or leave out one of '
                "the two."
            )
        return None

    def on_train_begin(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl | None:
        """Training begins.

        Passes `checkpoint_dir`: the directory of the checkpoint from which it resumes, or `None`.
        """

    def on_epoch_begin(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl | None:
        """An epoch begins."""

    def on_step_begin(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl | None:
        """An update step begins, before the first of its batches."""

    def on_substep_end(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl | None:
        """A batch has been accumulated, and more follow in the same update step.

        Passes `loss`: the loss of the batch, detached and on its device, before it is divided by
        the number of batches in the step.
        """

    def on_pre_optimizer_step(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl | None:
        """The gradients are complete and clipped; the optimizer has not stepped yet."""

    def on_optimizer_step(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl | None:
        """The optimizer has stepped; the gradients are still there."""

    def on_step_end(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl | None:
        """An update step is complete.

        Passes `loss`: the mean loss of the step's batches, detached and on its device.
        """

    def on_log(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl | None:
        """Values have been logged.

        Passes `logs`: the values by name, a copy for each callback.
        """

    def on_prediction_step(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl | None:
        """One batch has been evaluated or predicted."""

    def on_evaluate(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl | None:
        """An evaluation is complete.

        Passes `metrics`: its metrics by name, a copy for each callback.
        """

    def on_predict(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> TrainerControl | None:
        """A prediction is complete.

        Passes `metrics`: its metrics by name, a copy for each callback.
        """

    def on_save(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl | None:
        """A checkpoint has been written.

        Passes `checkpoint_dir`: its directory.
        """

    def on_epoch_end(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl | None:
        """An epoch ends, completely or early."""

    def on_push_begin(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl | None:
        """The model is about to be pushed to a hub."""

    def on_exception(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl | None:
        """Training ends with an error, an interrupt or a signal; `on_train_end` still follows.

        Passes `exception`: what ended it.
        """

    def on_train_end(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl | None:
        """Training has ended, however it ended."""
