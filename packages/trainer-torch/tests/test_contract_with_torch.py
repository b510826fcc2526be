"""The contract's loop with a torch model: callbacks that change the weights for evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from callback_contract import CallbackContract, check
from callback_core import TrainerCallback


def outcome(callback: type[TrainerCallback], rule: str, folder: Path, *capabilities: str) -> str:
    """Check one rule for a callback with capabilities and a state, and return the outcome."""
    own: dict[str, Any] = {"contract": (2, 0), "capabilities": {"state", *capabilities}}
    own["make"] = lambda self, output_dir: callback()
    [result] = check(type("Suite", (CallbackContract,), own), folder, [rule])
    return result.outcome


class AveragesForEvaluations(TrainerCallback):
    """Has an average of the weights in the model during the loop's evaluations."""

    def __init__(self) -> None:
        self._average: dict[str, Any] = {}
        self._trained: dict[str, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:
            self._average = {}
        self._trained = {}

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for name, weight in kwargs["model"].named_parameters():
            now = weight.detach().clone()
            before = torch.as_tensor(self._average.get(name, now), dtype=now.dtype)
            self._average[name] = before.lerp(now, 0.1)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if control.should_evaluate:
            model = kwargs["model"]
            self._trained = {n: w.detach().clone() for n, w in model.named_parameters()}
            self._put(model, self._average)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._put_back(kwargs["model"])

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._put_back(kwargs["model"])

    def _put_back(self, model: Any) -> None:
        self._put(model, self._trained)
        self._trained = {}

    def _put(self, model: Any, weights: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name in weights:
                    weight.copy_(weights[name])

    def state_dict(self) -> dict[str, Any]:
        return {"average": {n: torch.as_tensor(w).tolist() for n, w in self._average.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._average = {n: torch.tensor(w) for n, w in state["average"].items()}


class PutsTheTrainedBackTooLate(AveragesForEvaluations):
    """Leaves the average in the model, and so in a checkpoint, until the next step begins."""

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        pass


@pytest.mark.parametrize("rule", ["ROY-012", "STA-010"])
def test_an_average_is_in_the_model_while_the_loop_evaluates(rule: str, tmp_path: Path) -> None:
    assert outcome(AveragesForEvaluations, rule, tmp_path / "right", "alters") == "kept"
    assert outcome(PutsTheTrainedBackTooLate, rule, tmp_path / "late", "alters") == "broken"


class AveragesWeights(TrainerCallback):
    """Has a state that depends on the weights."""

    def __init__(self) -> None:
        self._mean: float | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        weight = next(kwargs["model"].parameters()).sum().item()
        self._mean = weight if self._mean is None else (self._mean + weight) / 2

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self._mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._mean = state["mean"]


class RestoresNoAverage(AveragesWeights):
    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


@pytest.mark.parametrize(
    ("callback", "expected"), [(AveragesWeights, "kept"), (RestoresNoAverage, "broken")]
)
def test_a_resumed_training_continues_with_the_weights_of_its_checkpoint(
    callback: type[TrainerCallback], expected: str, tmp_path: Path
) -> None:
    assert outcome(callback, "STA-009", tmp_path) == expected
