"""Mutants of the rules about lifecycle and events."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from mutants import mutant

from callback_core import COMMON_KEYWORDS, EVENTS, TrainerCallback


@mutant("LIF-001")
class ClosesWhatItNeverOpened(TrainerCallback):
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.opened = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.opened = not self.opened


@mutant("LIF-002")
class ClosesOnlyOnce(TrainerCallback):
    opened: list[str] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.opened = ["file"]

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.opened is not None:
            self.opened.pop()


@mutant("LIF-003")
class TrainsOnlyOnce(TrainerCallback):
    done = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.done:
            raise RuntimeError("its run is closed")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.done = True


@mutant("LIF-004")
class PredictsOnlyOnceItHasTrained(TrainerCallback):
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.run = "run"

    def on_predict(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.run.upper()


@mutant("LIF-005")
class EvaluatesOnlyUntilTheEnd(TrainerCallback):
    run: str | None = "none yet"

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.run = "run"

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.run is None:
            raise RuntimeError("its run is closed")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.run = None


@mutant("LIF-006")
class HasToSeeTheBeginning(TrainerCallback):
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps += 1


@mutant("LIF-007")
class HasToSeeTheEnd(TrainerCallback):
    opened = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.opened:
            raise RuntimeError("its run is open")
        self.opened = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.opened = False


@mutant("LIF-008")
class KnowsOnlyOneOfItsClass(TrainerCallback):
    training: WeakSet[TrainerCallback] = WeakSet()  # noqa: RUF012

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if {*self.training} - {self}:
            raise RuntimeError("another one is training")
        self.training.add(self)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.training.discard(self)


@mutant("EVT-001")
class RefusesUnknownKeywords(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if unknown := kwargs.keys() - {*COMMON_KEYWORDS, "loss"}:
            raise TypeError(f"unexpected keyword arguments {unknown}")


@mutant("EVT-002")
class CountsOnAStep(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.loss = 0.5

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.loss /= 2


@mutant("EVT-003")
class DividesByTheStep(TrainerCallback):
    training = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.training = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.training:
            self.mean = 1.0 / state.global_step

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.training = False


@mutant("EVT-004")
class IsInterruptedOnlyAfterAStep(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.loss = 0.5

    def on_exception(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.loss /= 2


@mutant("EVT-005")
class SavesOnlyWhatWasEvaluated(TrainerCallback):
    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.metric = 1.0

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.metric /= 2


@mutant("EVT-006")
class KnowsAllEvents(TrainerCallback):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return EVENTS[name]
        raise AttributeError(name)


@mutant("EVT-007")
class NeedsAModel(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.weights = kwargs["model"].weights


@mutant("EVT-008")
class NeedsEpochs(TrainerCallback):
    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.epoch = round(state.epoch)
