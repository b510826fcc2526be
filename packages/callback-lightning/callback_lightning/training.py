"""`Training`: fires the events of our callbacks in a trainer of Lightning."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from callback_core import (
    CallbackHandler,
    DefaultFlowCallback,
    LoopArguments,
    Processes,
    TrainerControl,
    TrainerState,
    best_metric_key,
    deciding_metric,
    export_states,
    json_value,
    list_callbacks,
    restore_states,
    scalar,
    update_best_metric,
)
from callback_lightning.names import Names, Stage

logger = logging.getLogger(__name__)


class LightningFlow(DefaultFlowCallback):
    """Takes the place of the default flow, because Lightning has a flow of its own."""

    def on_step_end(self, *args: Any, **kwargs: Any) -> Any:
        """Ask for nothing."""

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> Any:
        """Ask for nothing."""


class Training:
    """Fires the events of our callbacks, and keeps their state and control.

    `callback_core.Loop` decides when to log, evaluate, save and stop, and counts steps. Here,
    Lightning does all that. So this calls a `CallbackHandler` itself.

    Args:
        callbacks: Callbacks, or classes of callbacks.
        args: The arguments, as `callback_core.LoopArguments` takes them.

    Attributes:
        args: The arguments.
        state: What callbacks see of the training.
        control: What callbacks ask for.
        handler: Calls the callbacks.
        processes: The processes of the training, which agree on the control.
        is_running: Whether a training has begun and not ended.
        has_directory: Whether the user has given an `output_dir`.

    Raises:
        TypeError: `args` or a callback is of a wrong type.
        ValueError: An argument is not allowed.
    """

    def __init__(self, callbacks: Iterable[Any], args: Any) -> None:
        self.args = LoopArguments.of(args)
        self.handler = CallbackHandler(
            [LightningFlow, *list_callbacks(callbacks)], None, None, None, None
        )
        self.state, self.control = TrainerState(epoch=0), TrainerControl()
        self.processes: Processes | None = None
        self.is_running = False
        self.has_directory = self.args.given.get("output_dir") is not None
        self._decides_by_arguments = self.args.metric_for_best_model is not None
        self._names = Names()
        self._late: set[str] = set()  # the hyperparameters that a warning has named
        self._is_initialized = False
        self._resumed: Mapping[str, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy keeps. It does not get the connection of the processes."""
        return {**self.__dict__, "processes": None}

    def fire(self, event: str, **passed: Any) -> None:
        """Fire an event, keep the control that it returns, and log what callbacks have logged."""
        method = getattr(self.handler, event)
        self.control = method(self.args, self.state, self.control, **passed)
        self.control.pass_logs(self.log)

    def initialize(self) -> None:
        """Fire `on_init_end`, once."""
        if not self._is_initialized:
            self._is_initialized = True
            self.fire("on_init_end")

    def forget(self) -> None:
        """Begin with a new state. One of a checkpoint may replace it later."""
        self.state, self._names, self._resumed = TrainerState(epoch=0), Names(), None

    def learn(self, parameters: Mapping[str, Any]) -> list[str]:
        """Add hyperparameters to the arguments that trackers log.

        While a training runs, nothing is added.

        Returns:
            The names that are too late, each once.
        """
        if not self.is_running:
            self.args.given = {**self.args.given, **parameters}
            return []
        late = sorted(parameters.keys() - self.args.given.keys() - self._late)
        self._late.update(late)
        return late

    def begin(self, step: int, checkpoint: str | None) -> None:
        """Begin or resume a training, and fire `on_train_begin`.

        Args:
            step: The number of update steps that are done.
            checkpoint: The checkpoint to resume from.
        """
        resumed, self._resumed = self._resumed, None
        if resumed is not None and step > 0:
            before = self.state  # has what Lightning knows about this training
            self.state = TrainerState(**resumed["state"])
            for name in ("max_steps", "num_train_epochs"):
                setattr(self.state, name, getattr(before, name))
            self._names.load_state_dict(resumed["names"])
            restore_states(self.handler.callbacks, self.state.stateful_callbacks)
        self.state.global_step = step
        self.processes = Processes()
        self.processes.mark(self.state)
        self.state.compute_steps(self.args, self.state.max_steps)
        self.is_running = True
        self.fire("on_train_begin", checkpoint_dir=checkpoint)

    def end(self) -> None:
        """Fire `on_train_end`, unless the training has ended."""
        if self.is_running:
            self.is_running = False
            self.fire("on_train_end")

    def close(self, exception: BaseException) -> None:
        """End the training, if one is running, by `exception`. Log the errors of callbacks."""
        if not self.is_running:
            return
        self.is_running = False
        for event, passed in (("on_exception", {"exception": exception}), ("on_train_end", {})):
            try:
                self.fire(event, **passed)
            except Exception:
                logger.exception("A callback failed while %r was ending the training.", exception)

    def agree(self) -> TrainerControl:
        """Let the processes agree on the flags of the control, and return it."""
        if self.processes is not None:
            self.processes.agree(self.control)
        return self.control

    # What is logged

    def log(self, logs: Mapping[str, Any], step: int | None = None) -> None:
        """Add `logs` to the history of the state, and fire `on_log`.

        Args:
            logs: Values by name. Arrays and tensors of one number become numbers.
            step: The step of the values; by default that of the training. During this event,
                callbacks see it as `state.global_step`.
        """
        logs = {name: _plain(value) for name, value in logs.items()}
        if self.state.epoch is not None:
            logs["epoch"] = self.state.epoch
        with self._at(step):
            self.state.log_history.append({**json_value(logs), "step": self.state.global_step})
            self.fire("on_log", logs=logs)

    def log_of_lightning(self, logs: Mapping[str, Any], step: int | None, stage: Stage) -> None:
        """Log what Lightning has passed to its loggers.

        If the user gave no step, Lightning adds an `epoch` and the number of batches before this
        one. The step is then that of the training.
        """
        values = {
            self._names.of(name, stage): value for name, value in logs.items() if name != "epoch"
        }
        self.log(values, None if "epoch" in logs else step)

    def evaluated(self, metrics: Mapping[str, Any], stage: Stage) -> None:
        """Fire `on_evaluate`, and record in the state whether this evaluation is the best.

        Args:
            metrics: The metrics, by Lightning's names.
            stage: Whether it was a validation or a test.

        Raises:
            TypeError: The metric that the arguments name is not a number.
            ValueError: That metric is missing.
        """
        named = {self._names.of(name, stage): _plain(value) for name, value in metrics.items()}
        if self.state.epoch is not None:
            named["epoch"] = self.state.epoch
        self.fire("on_evaluate", metrics=named)
        wanted = self.args.metric_for_best_model
        if stage != "eval" or wanted is None or not self.is_running:
            return
        if self._decides_by_arguments or best_metric_key(wanted) in named:
            value = deciding_metric(self.args, named)
            assert value is not None
            update_best_metric(self.args, self.state, value)

    def decide_by(self, monitor: str | None, mode: str) -> None:
        """Let the metric of a `ModelCheckpoint` decide which model is best.

        If the arguments name a metric, that decides.
        """
        if self._decides_by_arguments:
            return
        name = None if monitor is None else self._names.of(monitor, "eval")
        is_of_validation = name is not None and name.startswith("eval_")
        self.args.metric_for_best_model = name if is_of_validation else None
        self.args.greater_is_better = mode == "max" if is_of_validation else None

    # The state in a checkpoint

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the training and its callbacks, as JSON can represent it."""
        state = self.state
        state.stateful_callbacks = export_states(self.handler.callbacks, state.stateful_callbacks)
        values = {item.name: getattr(state, item.name) for item in fields(state)}
        values["log_history"] = list(state.log_history)  # Lightning may write the state later
        return {"state": values, "names": self._names.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from what `state_dict` returned, in the training that begins next."""
        self._resumed = state

    @contextmanager
    def _at(self, step: int | None) -> Iterator[None]:
        """Set the step of the state for a while, if one is given."""
        state, before = self.state, self.state.global_step
        state.global_step = before if step is None else step
        try:
            yield
        finally:
            state.global_step = before


def _plain(value: Any) -> Any:
    """Return `value`, or the Python number in it if it is an array or tensor of one number."""
    shape = getattr(value, "shape", None)
    return scalar(value) if shape is not None and math.prod(shape) == 1 else value
