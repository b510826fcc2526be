"""`Run`: one training in a script of Accelerate, which its trackers record together."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

from callback_core import (
    CallbackHandler,
    DefaultFlowCallback,
    LoopArguments,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)
from callback_core.tracking import TrackerCallback, last_error

logger = logging.getLogger(__name__)


class Checkpoint(NamedTuple):
    """What a checkpoint stores about a run.

    Attributes:
        step: The highest step that was logged before it.
        logs: How many logs came before it.
        has_steps: Whether a log before it had a step.
        states: The states of the callbacks, by the names of their trackers.
        directory: Where the checkpoint is, once it is loaded.
    """

    step: int
    logs: int
    has_steps: bool
    states: dict[str, dict[str, Any]]
    directory: str | None = None


class Stage(Enum):
    """How far a run is."""

    NEW = "new"
    STARTED = "started, and a checkpoint may still be loaded"
    BEGUN = "begun"
    ENDED = "ended"


@dataclass
class _Training:
    """What a run knows about its current training.

    Attributes:
        state: What callbacks see of it.
        control: What callbacks ask for. Nothing acts on it.
        config: Its parameters.
        reached: The highest step that was logged.
        logs: How many logs there were.
        has_steps: Whether one of them had a step.
        last: The last log and its step.
        seen_by: The trackers to which Accelerate has passed that log.
        error_before: The last uncaught error at its start.
    """

    state: TrainerState = field(default_factory=TrainerState)
    control: TrainerControl = field(default_factory=TrainerControl)
    config: dict[str, Any] = field(default_factory=dict)
    reached: int = 0
    logs: int = 0
    has_steps: bool = False
    last: tuple[dict[str, Any], int | None] = ({}, None)
    seen_by: set[int] = field(default_factory=set)
    error_before: BaseException | None = field(default_factory=last_error)


class Run:
    """One training in a script of Accelerate, which its trackers record together.

    It begins with the first log, because scripts call `load_state` after `init_trackers`.

    Args:
        output_dir: The directory of the journal, and of what trackers write.
        run_name: The name of the run.

    Attributes:
        callbacks: The callbacks, by the names of their trackers.
        owners: The trackers that still exist.
        run_name: The name of the run.
        stage: How far the run is.
    """

    def __init__(self, output_dir: str, run_name: str | None = None) -> None:
        self.callbacks: dict[str, TrainerCallback] = {}
        self.owners: WeakSet[Any] = WeakSet()
        self.run_name = run_name
        self.stage = Stage.NEW
        self._args = LoopArguments(output_dir=output_dir)
        self._handler = handler_of(())
        self._training = _Training()
        self._told: set[str] = set()

    def add(self, name: str, callback: TrainerCallback, owner: object) -> str:
        """Add a callback, and return a name for its tracker that no other tracker has."""
        unique, number = name, 2
        while unique in self.callbacks:
            unique, number = f"{name}_{number}", number + 1
        self.callbacks[unique] = callback
        self.owners.add(owner)
        return unique

    def start(self) -> None:
        """Prepare for a training, or for a new one if the last has ended."""
        if self.stage in (Stage.NEW, Stage.ENDED):
            self.stage, self._training = Stage.STARTED, _Training()
            _OPEN.append(self)

    def configure(self, values: Mapping[str, Any]) -> None:
        """Add parameters, which trackers get when the run begins."""
        config = self._training.config
        late = [name for name in values if name not in config] if self._has_begun else []
        if late:
            self.tell(
                f"The run has begun, so trackers do not get the parameters {', '.join(late)}. "
                "Store them before the first log."
            )
        config.update(values)

    def log(self, owner: object, values: Mapping[str, Any], step: int | None) -> None:
        """Record values, unless another tracker has recorded the same log.

        Args:
            owner: The tracker that was called.
            values: Values by name.
            step: The step; by default that of the log before. If no log had a step, it is the
                number of the log.
        """
        training = self._training
        if self._is_recorded(owner, values, step):
            return
        self.begin()
        at = self._step_of(step, values)
        training.logs, training.reached = training.logs + 1, max(training.reached, at)
        training.state.global_step = at
        self._fire("on_log", logs=dict(values))
        training.state.global_step = training.reached

    def begin(self) -> None:
        """Begin or resume the run, unless it has begun."""
        if self._has_begun:
            return
        self.start()
        self.stage = Stage.BEGUN
        for run in [run for run in _OPEN if run is not self and not run.owners]:
            run.end_by_itself()
        training, checkpoint = self._training, self._loaded_checkpoint()
        if checkpoint is not None:
            self._resume(checkpoint)
        self._args.run_name, self._args.given = self.run_name, training.config
        self._handler = handler_of(self.callbacks.values())
        training.state.global_step = training.reached
        self._fire("on_train_begin", checkpoint_dir=checkpoint and checkpoint.directory)
        self._fire("on_epoch_begin")

    def checkpoint(self) -> Checkpoint:
        """Record in the journal that a checkpoint is saved, and return what it must store."""
        self.begin()
        training, states = self._training, {}
        for name, callback in self.callbacks.items():
            if hasattr(callback, "state_dict"):
                states[name] = callback.state_dict()
            if isinstance(callback, TrackerCallback) and callback.session and callback.member:
                if callback.session.status is None:
                    callback.session.record_save(callback.member, training.reached)
                if callback.tracker.takes_checkpoints:
                    self.tell(f"{name} does not get the checkpoints of Accelerate.")
        return Checkpoint(training.reached, training.logs, training.has_steps, states)

    def is_of(self, checkpoint: Checkpoint) -> bool:
        """Return whether the checkpoint belongs to this run."""
        runs = {
            callback.session.folder.run
            for callback in self.callbacks.values()
            if isinstance(callback, TrackerCallback) and callback.session
        }
        return any(state.get("run") in runs for state in checkpoint.states.values())

    def end(self, error: BaseException | None = None) -> None:
        """End the run, unless it has ended or was not started.

        Args:
            error: The error or interrupt that ended the training, if any.
        """
        if self not in _OPEN:
            return
        _OPEN.remove(self)
        self.begin()  # its parameters are recorded even if nothing was logged
        self.stage = Stage.ENDED
        if error is not None:
            self._fire("on_exception", exception=error)
        self._fire("on_train_end")

    def end_by_itself(self) -> None:
        """End a run that nothing else ended. It has failed if an error came after its start."""
        error = last_error()
        self.end(None if error is self._training.error_before else error)

    def tell(self, message: str) -> None:
        """Log a warning, once."""
        if message not in self._told:
            self._told.add(message)
            logger.warning("%s", message)

    @property
    def _has_begun(self) -> bool:
        return self.stage in (Stage.BEGUN, Stage.ENDED)

    def _fire(self, event: str, **passed: Any) -> None:
        training = self._training
        method = getattr(self._handler, event)
        training.control = method(self._args, training.state, training.control, **passed)

    def _loaded_checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint that the trackers' accelerator has loaded, if there is one."""
        for accelerator, checkpoints in LOADED.items():
            if checkpoints and not self.owners.isdisjoint(accelerator.trackers):
                of_the_same = [one for one in checkpoints if one.states.keys() & self.callbacks]
                chosen = (of_the_same or checkpoints)[0]
                LOADED[accelerator] = [one for one in checkpoints if one is not chosen]
                return chosen
        return None

    def _resume(self, checkpoint: Checkpoint) -> None:
        training = self._training
        training.reached, training.logs = checkpoint.step, checkpoint.logs
        training.has_steps = checkpoint.has_steps
        of_another = next(iter(checkpoint.states.values()), {}) | {"run_id": None}
        for name, callback in self.callbacks.items():
            if hasattr(callback, "load_state_dict"):
                callback.load_state_dict(checkpoint.states.get(name, of_another))

    def _is_recorded(self, owner: object, values: Mapping[str, Any], step: int | None) -> bool:
        """Return whether this is the last log again, which Accelerate now passes to `owner` too."""
        training = self._training
        last, last_step = training.last
        is_same = step == last_step and _are_the_same(values, last)
        if is_same and id(owner) not in training.seen_by:
            training.seen_by.add(id(owner))
            return True
        training.last, training.seen_by = (dict(values), step), {id(owner)}
        return False

    def _step_of(self, step: int | None, values: Iterable[str]) -> int:
        training = self._training
        if step is not None:
            training.has_steps = True
            return int(step)
        at = training.reached if training.has_steps else training.logs
        if _NO_STEP not in self._told:
            self._told.add(_NO_STEP)
            logger.warning(
                "%s was logged without a step, so it gets %s, %d. Pass step= to accelerator.log.",
                ", ".join(map(str, values)) or "Nothing",
                "the step of the log before" if training.has_steps else "the number of the log",
                at,
            )
        return at


def handler_of(callbacks: Iterable[TrainerCallback | type[TrainerCallback]]) -> CallbackHandler:
    """Return a handler of callbacks or their classes, with one more callback at the front.

    Raises:
        TypeError: One of them is not a callback.
    """
    return CallbackHandler([DefaultFlowCallback, *callbacks], None, None, None, None)


def _are_the_same(values: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    """Return whether both have the same objects by the same names."""
    return values.keys() == others.keys() and all(values[name] is others[name] for name in values)


_NO_STEP: Final = "a log without a step"

_OPEN: Final[list[Run]] = []
"""The runs that were started and have not ended."""

LOADED: Final[WeakKeyDictionary[Any, list[Checkpoint]]] = WeakKeyDictionary()
"""The checkpoints that accelerators have loaded, and that no run has continued yet."""


@atexit.register  # before the session's own, which would end the runs as failed
def _end_open_runs() -> None:
    for run in list(_OPEN):
        run.end_by_itself()
