"""`Case`: what one rule has to work with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

from callback_contract._ending import end_trainings
from callback_contract._subject import MissingHook, RecordedRun, Subject
from callback_contract._training import Arguments, Training
from callback_contract._violation import ContractViolation, DoesNotApply
from callback_core import TrainerState, export_states, restore_states
from callback_core.tracking import Tracker, TrackerCallback


class Case:
    """What one rule has to work with: a directory, and trainings of the subject's callbacks.

    Args:
        subject: The callback under test.
        folder: An empty directory.

    Attributes:
        output_dir: Where the trainings of this case write to.
        trainings: The trainings so far.
    """

    def __init__(self, subject: Subject, folder: Path) -> None:
        self.subject = subject
        self.folder = folder
        self.output_dir = folder / "output"
        self.output_dir.mkdir(parents=True, exist_ok=True)
        self.trainings: list[Training] = []

    def make(self) -> Any:
        """Return a new callback."""
        return self.subject.make(self.output_dir)

    def make_tracker(self) -> TrackerCallback:
        """Return a new callback that has a `Tracker`.

        Raises:
            DoesNotApply: The subject's callback has none.
        """
        callback = self.make()
        if not isinstance(getattr(callback, "tracker", None), Tracker):
            raise DoesNotApply("it is about the Tracker of a TrackerCallback")
        return callback  # type: ignore[no-any-return]

    @property
    def subject_is_a_tracker(self) -> bool:
        """Whether the callback has a store that can be read."""
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
        """Return a training of `callbacks`, or of a new callback.

        Args:
            callbacks: The callbacks.
            kind: The class of the training.
            args: The arguments; by default those of `arguments()`.
            state: The state at its beginning.
            max_steps: The steps of the training.
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

    def live_and_stop(self, **more: Any) -> list[Training]:
        """Take a training through every event, and return it.

        For a callback that stops, there is a second one, which ends as its author says.
        """
        state = more.pop("state", None)
        lives = self.training(state=deepcopy(state), **more)
        lives.live()
        if not self.claims("stops"):
            return [lives]
        stops = self.training(state=deepcopy(state), **more)
        self.subject.train_until_it_stops(stops)
        return [lives, stops]

    def resumed(
        self,
        callback: Any,
        states: dict[str, Any] | None,
        step: int,
        *,
        of: Training | None = None,
        **more: Any,
    ) -> Training:
        """Return a training that resumes at `step`, as a loop does.

        Args:
            callback: The callback, which takes over its part of `states`.
            states: What `states_of` returned when the checkpoint was saved; `None` if the loop
                has not kept it.
            step: The step of the checkpoint.
            of: The training that was cut, whose history the state continues.
            more: Further arguments of `training`.
        """
        state = TrainerState(global_step=step, epoch=step / 2)
        if of is not None:
            state.log_history = [log for log in of.state.log_history if log["step"] <= step]
            losses = [
                (log["eval_loss"], log["step"]) for log in state.log_history if "eval_loss" in log
            ]
            if losses:
                state.best_metric, state.best_global_step = min(losses)
        training = self.training(callback, state=state, **more)
        training.fire("on_init_end")
        if states is not None:
            self.restore(callback, states)
        return training

    def states_of(self, callback: Any) -> dict[str, Any]:
        """Return the callback's state as a checkpoint gives it back: through JSON."""
        try:
            exported = export_states([callback], {})
            states: dict[str, Any] = json.loads(json.dumps(exported))
        except Exception as error:
            raise ContractViolation(
                f"the state of {type(callback).__name__} cannot be saved: {error}",
                cause=f"its state cannot be saved: {error}",
            ) from error
        return states

    def restore(self, callback: Any, states: dict[str, Any]) -> None:
        """Give a callback its state back."""
        try:
            restore_states([callback], json.loads(json.dumps(states)))
        except Exception as error:
            raise ContractViolation(
                f"the state {states!r} cannot be restored: {error!r}",
                cause=f"its state cannot be restored: {error!r}",
            ) from error

    def end_trainings(self) -> None:
        """End the trainings of trackers, and wait for their deliveries."""
        end_trainings(self.callbacks)

    def let_go(self) -> None:
        """Keep nothing of the trainings so far, which have ended."""
        self.trainings.clear()

    @property
    def callbacks(self) -> Iterable[Any]:
        """The callbacks of all trainings so far."""
        return [callback for training in self.trainings for callback in training.callbacks]

    def summary(self) -> str:
        """Return what the trainings of this case did, for messages."""
        summaries = (training.summary() for training in self.trainings)
        different = [*dict.fromkeys(filter(None, summaries))]
        return "; then ".join(different[:3] + ["…"] * (len(different) > 3))

    def runs(self) -> list[RecordedRun]:
        """Return what the store holds of the trainings of this case."""
        read = f"{type(self.subject).__name__}.read"
        try:
            runs: Any = self.subject.read(self.output_dir)
        except MissingHook:
            raise
        except Exception as error:
            cause = f"{read} raised {type(error).__name__}"
            raise ContractViolation(f"{read} raised {error!r}", cause) from error
        if not isinstance(runs, (list, tuple)) or not all(isinstance(r, RecordedRun) for r in runs):
            raise TypeError(f"{read} must return a list of RecordedRun, but it returned {runs!r}")
        return list(runs)
