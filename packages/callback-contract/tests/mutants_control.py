"""Mutants of the rules about control, and about what a callback only reads."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from mutants import mutant

from callback_core import TrainerCallback


@mutant("CTL-001")
class ClearsAFlag(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_save = False


@mutant("CTL-002")
class DropsReasons(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.requests = [request._replace(reason=None) for request in control.requests]


@mutant("CTL-003")
class SteersInSecret(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_log = True


@mutant("CTL-004", capabilities=["steers"])
class StopsInSecret(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            control.request_stop("two steps are enough")


@mutant("CTL-005", capabilities=["steers", "stops"])
class StopsWithoutAReason(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            control.should_training_stop = True


@mutant("CTL-006")
class AnswersWithSomethingElse(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        return True


@mutant("ROY-001")
class ChangesTheArguments(TrainerCallback):
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        args.run_name = None


@mutant("ROY-002")
class ChangesTheState(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state.total_flos += 1


@mutant("ROY-003")
class ChangesTheModel(TrainerCallback):
    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        if model is not None:
            model.watched_by = "a mutant"


@mutant("ROY-004")
class LeavesTheModelInEvaluation(TrainerCallback):
    def on_evaluate(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        if model is not None:
            model.eval()


@mutant("ROY-005")
class TakesFromTheLogs(TrainerCallback):
    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        logs.pop("epoch", None)


@mutant("ROY-006")
class TakesFromTheMetrics(TrainerCallback):
    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any
    ) -> None:
        metrics.pop("epoch", None)


@mutant("ROY-007")
class DrawsANumber(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        random.random()


@mutant("ROY-008")
class WritesIntoTheCheckpoint(TrainerCallback):
    def on_save(
        self, args: Any, state: Any, control: Any, checkpoint_dir: str = "", **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            Path(checkpoint_dir, "README.md").write_text(f"Step {state.global_step}.")
