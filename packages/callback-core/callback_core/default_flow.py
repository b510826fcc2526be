"""`DefaultFlowCallback`: asks for what the strategies of the arguments say is due."""

from __future__ import annotations

from typing import Any

from callback_core.arguments import CallbackArguments, IntervalStrategy
from callback_core.callback import TrainerCallback
from callback_core.control import TrainerControl
from callback_core.state import TrainerState


class DefaultFlowCallback(TrainerCallback):
    """Asks for logs, evaluations and checkpoints as the arguments' strategies say, and for the end.

    With steps as the strategy, the last step is evaluated and saved too, whether or not it is due.
    It follows transformers 5.23's `DefaultFlowCallback` in all of this.
    """

    def on_step_end(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask for what is due at this step, and for the end at the last one."""
        step = state.global_step
        last = step >= state.max_steps
        if step == 1 and args.logging_first_step:
            control.should_log = True
        # Steps are looked at where they count: where they do not, they may be 0 or None.
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
