"""`LoopEvents`: fires the events of a training in their order, and logs what is reported."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from callback_core._json import json_value, scalar
from callback_core.best_metric import deciding_metric, update_best_metric
from callback_core.control import TrainerControl
from callback_core.driver.event_order import FIRED_BY, Stage, check_stage
from callback_core.driver.loop_arguments import LoopArguments
from callback_core.driver.loop_position import LoopLength, Position
from callback_core.driver.optimizer_events import OptimizerEvents
from callback_core.driver.reported_values import ReportedValues, without_graph
from callback_core.events import EVENTS
from callback_core.handler import CallbackHandler
from callback_core.processes import Processes
from callback_core.state import TrainerState

logger = logging.getLogger(__name__)


class LoopEvents:
    """The part of a `Loop` that fires events, each only where it belongs.

    Attributes:
        args: The arguments, as `LoopArguments`.
        state: What callbacks see of the training.
        control: What callbacks ask for.
        handler: Calls the callbacks.
    """

    def __init__(self, args: LoopArguments, handler: CallbackHandler) -> None:
        self.args, self.handler = args, handler
        self.state, self.control = TrainerState(epoch=0), TrainerControl()
        self._position, self._processes = Position(), Processes()
        self._length = LoopLength.of(args, handler.train_dataloader)
        self._reported, self._losses = ReportedValues(), list[Any]()
        self._optimizer_events = OptimizerEvents(self._fire_within_step)
        self._stage, self._completes_step = Stage.OUTSIDE, True
        self._turn: object = None
        self._handled: BaseException | None = None
        self._is_left = False
        self._learning_rate: Any = None
        self._evaluated_at, self._batches_before_step = -1, 0
        self._told: set[str] = set()
        self._processes.mark(self.state)
        self._fire("on_init_end")

    def _begin(self, checkpoint: Path | None) -> None:
        """Fire `on_train_begin` for a training that begins with the current state and position."""
        if not self._processes.are_connected:  # the program may have connected them since
            self._processes = Processes()
            self._processes.tell_if_apart()
        self._reported = ReportedValues()
        self._length = LoopLength.of(self.args, self.handler.train_dataloader)
        self._tell_of_other_length()
        state, length = self.state, self._length
        self._processes.mark(state)
        if self._processes.is_main:  # the sums are of all processes
            self._reported.restore(self._position.unlogged)
        state.max_steps, state.num_train_epochs = length.max_steps, length.num_train_epochs
        state.train_batch_size = self.args.per_device_train_batch_size
        state.compute_steps(self.args, length.max_steps)
        self._evaluated_at, self._stage = -1, Stage.TRAINING
        try:
            self._optimizer_events.watch(self.handler.optimizer)
            self._fire("on_train_begin", checkpoint_dir=checkpoint and str(checkpoint))
        except BaseException as error:
            self._close(error)
            raise

    def begin_epoch(self) -> None:
        """Begin the next epoch, or continue the one within which the training is resumed."""
        self._expect("begin_epoch", Stage.TRAINING)
        position, state = self._position, self.state
        position.begin_epoch()
        sampler: Any = getattr(self.handler.train_dataloader, "sampler", None)
        if hasattr(sampler, "set_epoch"):  # that of a DistributedSampler decides the order
            sampler.set_epoch(position.epoch)
        self._stage = Stage.EPOCH
        # Also within a resumed epoch: the event then passes what it passed at first.
        state.epoch = float(position.epoch)
        self._fire("on_epoch_begin")
        if position.is_left:  # before the checkpoint, at which on_epoch_begin was fired already
            self.control.should_epoch_stop = True
        state.epoch = self._length.epoch_at(position)

    def end_epoch(self) -> None:
        """End the epoch, and do what is due then."""
        self._expect("end_epoch", Stage.EPOCH)
        position = self._position
        if position.batches == 0 and not self._leaves_epoch:
            self._tell(f"Epoch {position.epoch} had no steps. Iterate over steps() of the loop.")
        is_complete = position.batches >= (self._length.batches_per_epoch or math.inf)
        position.has_ended = is_complete or not self.should_stop
        self.state.epoch = self._length.epoch_at(position)
        self._stage = Stage.TRAINING
        self._fire("on_epoch_end")
        self._do_what_is_due()

    def begin_step(self) -> None:
        """Begin an update step."""
        self._expect("begin_step", Stage.EPOCH)
        self._stage, self._completes_step, self._is_left = Stage.STEP, True, False
        self._losses, self._batches_before_step = [], self._position.batches
        self._learning_rate = _learning_rate(self.handler.optimizer)
        self._fire("on_step_begin")

    def end_substep(self) -> None:
        """End a batch that is not the last of its update step."""
        self._expect("end_substep", Stage.STEP)
        self._position.batches += 1
        self._fire("on_substep_end", loss=self._loss_of_step)
        self._processes.agree(self.control)
        if self._leaves_epoch:
            self._stage = Stage.EPOCH  # the gradients of this step are dropped
        if self.should_stop:
            self._position.batches = self._batches_before_step  # and made again after a resume

    def end_step(self) -> None:
        """End the update step, and do what is due then."""
        self._expect("end_step", Stage.STEP)
        position, state = self._position, self.state
        position.batches += 1
        state.global_step += 1
        state.epoch = self._length.epoch_at(position)
        self._stage = Stage.EPOCH
        self._optimizer_events.tell_if_missing(self.handler.callbacks)
        self._fire("on_step_end", loss=self._loss_of_step)
        self._do_what_is_due()

    # What callbacks see

    def report(self, **values: Any) -> None:
        """Report values of the current step. The next log has their means since the last log.

        A `loss` is also passed to `on_step_end`.

        Args:
            values: Single numbers, or tensors of one number. Nothing waits for the device before
                the log.

        Raises:
            TypeError: A value is not a single number.
        """
        self._expect("report", Stage.STEP, Stage.EPOCH, Stage.TRAINING)
        self._reported.add(values)
        if "loss" in values:
            self._losses.append(without_graph(values["loss"]))

    def log(self, logs: Mapping[str, Any]) -> None:
        """Add `logs` to the history of the state, and fire `on_log`.

        Args:
            logs: Values by name. Arrays and tensors of one number become numbers.

        Raises:
            TypeError: They are not values by name.
        """
        self._end_step_left_by_break()
        logs = {name: _plain(value) for name, value in _by_name("log", logs).items()}
        if self.state.epoch is not None:
            logs["epoch"] = self.state.epoch
        self.state.log_history.append({**json_value(logs), "step": self.state.global_step})
        self._fire("on_log", logs=logs)

    def log_evaluation(self, metrics: Mapping[str, Any], prefix: str = "eval") -> dict[str, Any]:
        """Log the metrics of an evaluation, fire `on_evaluate`, and record whether it is the best.

        Args:
            metrics: Values by name.
            prefix: What each name begins with; it is added where it is missing.

        Returns:
            The metrics by their full names.

        Raises:
            TypeError: The metrics are not values by name, or the one that decides which model is
                best is not a number.
            ValueError: That metric is missing.
        """
        self._end_step_left_by_break()
        start = f"{prefix}_"
        named = {
            name if name.startswith(start) else f"{start}{name}": _plain(value)
            for name, value in _by_name("log_evaluation", metrics).items()
        }
        self._evaluated_at = self.state.global_step
        self.log(named)
        if self.state.epoch is not None:
            named["epoch"] = self.state.epoch
        self._fire("on_evaluate", metrics=named)
        metric = deciding_metric(self.args, named) if prefix == "eval" else None
        if metric is not None:
            update_best_metric(self.args, self.state, metric)
            self._note_best()
        return named

    def prediction_steps(self, batches: Iterable[Any] | None = None) -> Iterator[Any]:
        """Yield the batches of an evaluation, and fire `on_prediction_step` after each.

        Args:
            batches: The batches, by default `eval_dataloader`.

        Raises:
            ValueError: There are no batches.
        """
        if batches is not None:
            self.handler.eval_dataloader = batches
        if self.handler.eval_dataloader is None:
            raise ValueError("There is no eval_dataloader, so pass the batches.")
        for batch in self.handler.eval_dataloader:
            yield batch
            self._fire("on_prediction_step")

    def fire(self, event: str, **passed: Any) -> None:
        """Fire an event that no other method fires, such as `on_predict` or one of your own.

        Args:
            event: The event.
            passed: The keywords that it passes besides arguments, state and control.

        Raises:
            RuntimeError: A method of the loop fires this event, or it is an event of the optimizer
                outside of an update step.
        """
        if event in FIRED_BY:
            raise RuntimeError(
                f"Do not fire {event} by itself. Call {FIRED_BY[event]}(), which fires it and "
                "does the rest."
            )
        if event in OptimizerEvents.NAMES:
            self._expect(event, Stage.STEP)
            self._optimizer_events.leave_to_program()
        self._fire(event, **passed)

    @property
    def should_stop(self) -> bool:
        """Whether a callback has asked to stop the training, or all steps are done."""
        is_done = 0 < self._length.max_steps <= self.state.global_step
        return self.control.should_training_stop or is_done

    @property
    def completes_step(self) -> bool:
        """Whether the current batch is the last of its update step, so that the optimizer steps."""
        return self._completes_step

    # The training

    def _do_what_is_due(self) -> None:
        """Log, evaluate and save if asked to, in this order, because each may cause the next.

        All processes agree on the control first, and again whenever callbacks may have changed it.
        """
        control = self._agreed()
        if control.should_log:
            self._log_reported()
            control = self._agreed()
        if control.should_evaluate:
            self._run_evaluation()
            control = self._agreed()
        if control.should_save:
            self._run_save()
            self._agreed()

    def _settle(self) -> None:
        """End the batch whose turn in the loop is over."""
        if self._stage is not Stage.STEP:
            return
        self._is_left = False
        if self._completes_step:
            self.end_step()
        else:
            self.end_substep()

    def _end_left_step(self) -> None:
        """End a step to which the loop does not return. Of one with batches left, none counts."""
        self._settle()
        if self._stage is Stage.STEP:
            self._stage = Stage.EPOCH  # the gradients of this step are dropped

    def _end_step_left_by_break(self) -> None:
        """End the step if its batch was left, so that what follows belongs after it.

        In the handler of an error, it is unknown how much of the step is done.
        """
        if self._is_left and sys.exc_info()[1] is self._handled:
            self._end_left_step()

    def _agreed(self) -> TrainerControl:
        self._processes.agree(self.control)
        return self.control

    def _run_evaluation(self) -> None:
        """Evaluate because a callback has asked for it."""
        raise NotImplementedError

    def _run_save(self) -> None:
        """Save a checkpoint because a callback has asked for it."""
        raise NotImplementedError

    def _note_best(self) -> None:
        """Record the checkpoint of the current step in the state, if it is the best."""
        raise NotImplementedError

    @property
    def _loss_of_step(self) -> Any:
        """The mean loss of the batches of this step, on its device; `None` if unknown."""
        losses = self._losses
        return (
            sum(losses[1:], losses[0]) / len(losses)
            if len(losses) > 1
            else next(iter(losses), None)
        )

    @property
    def _leaves_epoch(self) -> bool:
        return self.control.should_epoch_stop or self.should_stop

    def _expect(self, method: str, *stages: Stage) -> None:
        """Raise a `RuntimeError` unless the training is at one of `stages`."""
        check_stage(method, self._stage, *stages)

    def _fire(self, event: str, **passed: Any) -> None:
        """Fire an event, keep the control that it returns, and log what callbacks have logged."""
        handler = self.handler
        method = getattr(handler, event) if event in EVENTS else partial(handler.call_event, event)
        self.control = method(self.args, self.state, self.control, **passed)
        self.control.pass_logs(self.log)

    def _fire_within_step(self, event: str) -> None:
        if self._stage is Stage.STEP:
            self._fire(event)

    def _close(self, exception: BaseException) -> None:
        """Fire the events of a training that `exception` ends. Log the errors of callbacks."""
        self._leave()
        try:
            self._fire("on_exception", exception=exception)
        finally:  # even after a second Ctrl-C, every callback is closed
            try:
                self._fire("on_train_end")
            except Exception:
                logger.exception("A callback failed while %r was ending the training.", exception)

    def _leave(self) -> None:
        self._optimizer_events.stop()
        self._stage, self._is_left = Stage.OUTSIDE, False

    def _log_reported(self) -> None:
        """Log the means of what was reported, with the learning rate of the last step."""
        means = self._reported.take(self._processes)
        if not means:
            if self.state.log_history == [] and self.control.should_log:
                self._tell("A log is due, but nothing was reported. Call report(loss=…) in a step.")
            return
        if self._learning_rate is not None and "learning_rate" not in means:
            means["learning_rate"] = self._learning_rate
        self.log(means)

    def _tell_of_other_length(self) -> None:
        """Warn if the training resumes within an epoch that had another number of batches."""
        position, now = self._position, self._length.batches_per_epoch
        before, position.length = position.length, now
        if position.batches and not position.has_ended and now and before and now != before:
            self._tell(
                f"The checkpoint was saved after {position.batches} of {before} batches of an "
                f"epoch, which has {now} now. As many batches are skipped, whatever their size, so "
                "samples may be left out or repeated."
            )

    def _tell(self, message: str) -> None:
        """Log a warning in the main process, once for each loop."""
        if self._processes.is_main and message not in self._told:
            self._told.add(message)
            logger.warning("%s", message)


def _plain(value: Any) -> Any:
    """Return `value`, or the Python number in it if it is an array or tensor of one number."""
    shape = getattr(value, "shape", None)
    return scalar(value) if shape is not None and math.prod(shape) == 1 else value


def _by_name(method: str, values: Any) -> Mapping[str, Any]:
    """Return `values`, what `method` got, by names that are text."""
    if isinstance(values, Mapping):
        return {str(name): value for name, value in values.items()}
    raise TypeError(f"{method} takes values by name, such as {{'loss': 0.1}}, not {values!r}.")


def _learning_rate(optimizer: Any) -> float | None:
    """Return the learning rate of the first group, if the optimizer has groups as in torch."""
    groups = getattr(optimizer, "param_groups", None)
    rate = groups[0].get("lr") if groups else None
    return None if rate is None else float(rate)
