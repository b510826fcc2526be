"""Mutants of the rules about state and failure."""

from __future__ import annotations

import logging
from typing import Any

from mutants import mutant
from reference_tracker import Reference, ReferenceCallback

from callback_core import TrainerCallback


class Counter(TrainerCallback):
    """Counts the steps of a training, and goes on counting when it is resumed: keeps all rules."""

    def __init__(self) -> None:
        self.counted: dict[str, Any] = {"steps": 0}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.counted["steps"] += 1

    def state_dict(self) -> dict[str, Any]:
        return dict(self.counted)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.counted["steps"] = state["steps"]


@mutant("STA-001", capabilities=["state"])
class BeginsAnew(Counter):
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.counted["steps"] = 0


@mutant("STA-002", capabilities=["state"])
class KeepsWhatJsonDoesNotHave(Counter):
    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.counted["steps"], "of_epochs": {1: 2}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.counted["steps"] = state["steps"]


@mutant("STA-003", capabilities=["state"])
class CountsOnItsClass(Counter):
    of_all = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        type(self).of_all += 1

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.of_all}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        type(self).of_all = state["steps"]


@mutant("STA-004", capabilities=["state"])
class HasNoStateBeforeTraining(Counter):
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.began = True

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() if self.began else {}


@mutant("STA-005", capabilities=["state"])
class RefusesNewerVersions(Counter):
    def load_state_dict(self, state: dict[str, Any]) -> None:
        if unknown := state.keys() - {"steps"}:
            raise TypeError(f"unknown: {unknown}")
        super().load_state_dict(state)


@mutant("STA-006", capabilities=["state"])
class HandsOutWhatGoesOnChanging(Counter):
    def state_dict(self) -> dict[str, Any]:
        return self.counted


@mutant("STA-007")
class KeepsAStateInSecret(Counter):
    pass


@mutant("FLT-001")
class HasAPolicyOfItsOwn(TrainerCallback):
    on_error = "ignore"  # type: ignore[assignment]


@mutant("FLT-002")
class TrackerThatEndsTrainings(Reference):
    class OfUsers(ReferenceCallback):
        on_error = "raise"

    callback = OfUsers


@mutant("FLT-003")
class ReadsTheErrorsFirstArgument(TrainerCallback):
    def on_exception(
        self, args: Any, state: Any, control: Any, exception: Any = None, **kwargs: Any
    ) -> None:
        self.reason = exception.args[0]


@mutant("FLT-004")
class MeddlesWithTheError(TrainerCallback):
    def on_exception(
        self, args: Any, state: Any, control: Any, exception: Any = None, **kwargs: Any
    ) -> None:
        exception.args = ("the training failed",)


@mutant("FLT-005")
class ForcesItsPolicy(TrainerCallback):
    @property
    def on_error(self) -> Any:
        return "isolate"

    @on_error.setter
    def on_error(self, chosen: str) -> None:
        logging.getLogger(__name__).debug("%s is ignored", chosen)


@mutant("FLT-006")
class SwallowsInterrupts(TrainerCallback):
    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        try:
            self.values = list(logs.values())
        except:  # noqa: E722
            self.values = []
