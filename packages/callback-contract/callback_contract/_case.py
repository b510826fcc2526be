"""`Case`: what the check of one rule works with."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

from callback_contract._class_state import dropped_tensors
from callback_contract._isolation import end_trainings
from callback_contract._subject import MissingHook, RecordedRun, Subject
from callback_contract._training import Arguments, Training
from callback_contract._violation import FIX_OF_AN_ERROR, ContractViolation, DoesNotApply, place_of
from callback_core import TrainerState, export_states, restore_states
from callback_core.tracking import Tracker, TrackerCallback, close_open_runs


class Case:
    """A directory for one rule, and the trainings of the subject's callbacks in it.

    Args:
        subject: The callback under test.
        folder: An empty directory.
        is_known_deviation: Whether the author declares that the callback breaks the rule.

    Attributes:
        output_dir: The directory that the trainings write to.
        trainings: The trainings so far.
    """

    def __init__(self, subject: Subject, folder: Path, is_known_deviation: bool = False) -> None:
        self.subject = subject
        self.folder = folder
        self.is_known_deviation = is_known_deviation
        self.output_dir = folder / "output"
        self.output_dir.mkdir(parents=True, exist_ok=True)
        self.trainings: list[Training] = []
        self._kinds: set[type] = set()
        self._classes = ExitStack()

    def make(self) -> Any:
        """Return a new callback. `close` drops the tensors that its class keeps."""
        callback = self.subject.make(self.output_dir)
        if type(callback) not in self._kinds:
            self._kinds.add(type(callback))
            self._classes.enter_context(dropped_tensors(type(callback)))
        return callback

    def make_tracker(self) -> TrackerCallback:
        """Return a new callback that has a `Tracker`.

        Raises:
            DoesNotApply: The subject's callback has none.
        """
        callback = self.make()
        if not isinstance(getattr(callback, "tracker", None), Tracker):
            raise DoesNotApply("it concerns the Tracker of a TrackerCallback")
        return callback  # type: ignore[no-any-return]

    @property
    def subject_is_a_tracker(self) -> bool:
        """Whether the callback has a store that the rules can read."""
        return bool(getattr(self.subject, "of_trackers", False))

    def claims(self, capability: str) -> bool:
        """Return whether the author claims a capability."""
        return capability in self.subject.capabilities

    def arguments(self, **changed: Any) -> Arguments:
        """Return the arguments of a training that writes to `output_dir`."""
        return Arguments(
            **{"output_dir": str(self.output_dir), **self.subject.arguments, **changed}
        )

    def training(
        self,
        *callbacks: Any,
        kind: Callable[..., Training] = Training,
        args: Arguments | None = None,
        state: TrainerState | None = None,
        max_steps: int = 8,
        **more: Any,
    ) -> Training:
        """Return a training of `callbacks`, or of a new callback if there are none.

        Args:
            callbacks: The callbacks.
            kind: The class of the training.
            args: The arguments. The default is `arguments()`.
            state: The state at the beginning.
            max_steps: The number of update steps.
            more: Further arguments of `kind`.
        """
        training = kind(
            callbacks or (self.make(),),
            args or self.arguments(),
            state,
            max_steps=max_steps,
            make_model=self.subject.make_model,
            **more,
        )
        self.trainings.append(training)
        return training

    def begin(self, *callbacks: Any, **more: Any) -> Training:
        """Return a training that has begun. The arguments are those of `training`."""
        training = self.training(*callbacks, **more)
        training.begin()
        return training

    def exercise(self, **more: Any) -> list[Training]:
        """Take a new callback through every event, and return the trainings.

        If the callback claims `stops`, a second training runs until the callback stops it.
        """
        state = more.pop("state", None)
        trainings = [self.training(state=deepcopy(state), **more)]
        trainings[0].live()
        if self.claims("stops"):
            trainings.append(self.training(state=deepcopy(state), **more))
            self.subject.train_until_it_stops(trainings[1])
        return trainings

    def resume(
        self,
        callback: Any,
        states: dict[str, Any] | None,
        step: int,
        *,
        interrupted: Training | None = None,
        **more: Any,
    ) -> Training:
        """Return a training that a loop has restored from a checkpoint, before it begins.

        Args:
            callback: The callback, which loads its part of `states`.
            states: What `states_of` returned at the checkpoint; `None` if the loop did not save it.
            step: The step of the checkpoint.
            interrupted: The training that saved the checkpoint. Its history continues.
            more: Further arguments of `training`.
        """
        state = TrainerState(global_step=step, epoch=step / 2)
        if interrupted is not None:
            history = [log for log in interrupted.state.log_history if log["step"] <= step]
            state.log_history = history
            losses = [(log["eval_loss"], log["step"]) for log in history if "eval_loss" in log]
            if losses:
                state.best_metric, state.best_global_step = min(losses)
        training = self.training(callback, state=state, **more)
        training.fire("on_init_end")
        if states is not None:
            self.restore(callback, states)
        return training

    def states_of(self, callback: Any) -> dict[str, Any]:
        """Return the callback's state as a checkpoint restores it, after a conversion to JSON."""
        try:
            exported = export_states([callback], {})
            states: dict[str, Any] = json.loads(json.dumps(exported))
        except Exception as error:
            raise ContractViolation(
                f"the state of {type(callback).__name__} cannot be saved: {error}",
                cause=f"its state cannot be saved: {place_of(error, callback)}",
            ) from error
        return states

    def restore(self, callback: Any, states: dict[str, Any]) -> None:
        """Load `states` into a callback."""
        try:
            restore_states([callback], json.loads(json.dumps(states)))
        except Exception as error:
            raise ContractViolation(
                f"the state {states!r} cannot be restored: {error!r}",
                cause=f"its state cannot be restored: {place_of(error, callback)}",
            ) from error

    def end_trainings(self) -> None:
        """End the trainings of trackers, and wait for their deliveries."""
        end_trainings(callback for training in self.trainings for callback in training.callbacks)

    def close(self) -> None:
        """End the trainings, and drop the tensors that the classes of the callbacks keep."""
        with self._classes:
            self.end_trainings()

    def forget_trainings(self) -> None:
        """Drop all references to the trainings so far."""
        self.trainings.clear()

    def summary(self) -> str:
        """Return the events of the trainings so far, for messages."""
        summaries = (training.summary() for training in self.trainings)
        different = [*dict.fromkeys(filter(None, summaries))]
        return "; then ".join(different[:3] + ["…"] * (len(different) > 3))

    def runs(self, output_dir: Path | None = None) -> list[RecordedRun]:
        """Return the runs in the store of `output_dir`; by default in that of this case."""
        close_open_runs()  # offline, a run may stay open for further evaluations
        read = f"{type(self.subject).__name__}.read"
        try:
            runs: Any = self.subject.read(output_dir or self.output_dir)
        except MissingHook:
            raise
        except Exception as error:
            cause = f"{read} raised {place_of(error, self.subject)}"
            seen = f"{read} raised {error!r}"
            raise ContractViolation(seen, cause, FIX_OF_AN_ERROR) from error
        if not isinstance(runs, (list, tuple)) or not all(isinstance(r, RecordedRun) for r in runs):
            raise TypeError(f"{read} must return a list of RecordedRun, but it returned {runs!r}")
        return list(runs)

    def readable_runs(self, output_dir: Path | None = None) -> list[RecordedRun]:
        """Return the runs in the store; none if it cannot be read, such as during a write."""
        with suppress(Exception):
            return self.runs(output_dir)
        return []
