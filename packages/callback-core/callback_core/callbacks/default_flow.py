"""`DefaultFlowCallback`: logs, evaluates, saves and stops when the arguments say so."""

from __future__ import annotations

from typing import Any

from callback_core.arguments import CallbackArguments, IntervalStrategy
from callback_core.callback import TrainerCallback
from callback_core.control import TrainerControl
from callback_core.state import TrainerState


class DefaultFlowCallback(TrainerCallback):
    """Asks for logs, evaluations, checkpoints and the end of training, as the arguments say.

    With the strategy `steps`, the last step is evaluated and saved even if it is not due. All of
    this is as in the `DefaultFlowCallback` of transformers 5.23.
    """

    def on_step_end(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask for what is due at this step, and for the end at the last one."""
        step = state.global_step
        last = 0 <= state.max_steps <= step  # -1: unknown
        if step == 1 and args.logging_first_step:
            control.should_log = True
        # With another strategy the steps may be 0 or None.
        if args.logging_strategy == IntervalStrategy.STEPS and step % state.logging_steps == 0:
            control.should_log = True
        if (
            args.eval_strategy == IntervalStrategy.STEPS
            and args.eval_delay <= step
            and (last or step % state.eval_steps == 0)
        ):
            control.should_evaluate = True
        if args.save_strategy == IntervalStrategy.STEPS and (
            last or (state.save_steps > 0 and step % state.save_steps == 0)
        ):
            control.should_save = True
        if last:
            control.should_training_stop = True
        return control

    def on_epoch_end(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask for what is due at the end of an epoch."""
        if args.logging_strategy == IntervalStrategy.EPOCH:
            control.should_log = True
        if args.eval_strategy == IntervalStrategy.EPOCH and args.eval_delay <= (state.epoch or 0):
            control.should_evaluate = True
        if args.save_strategy == IntervalStrategy.EPOCH:
            control.should_save = True
        return control
