"""`TrainerState`: where a training stands, as callbacks see it and as a checkpoint keeps it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


class StepArguments(Protocol):
    """What `TrainerState.compute_steps` reads: steps, or fractions below 1 of all steps."""

    @property
    def logging_steps(self) -> float | None:
        """Steps between two logs."""

    @property
    def eval_steps(self) -> float | None:
        """Steps between two evaluations."""

    @property
    def save_steps(self) -> float | None:
        """Steps between two checkpoints."""


@dataclass
class TrainerState:
    """Where a training stands.

    A step is an update step: with gradient accumulation over n batches, one step takes n of them.

    Args:
        epoch: Epochs done, with the part of the current one as a fraction; `None` before training.
        global_step: Update steps done.
        max_steps: Update steps that this training will do.
        logging_steps: Log every so many steps.
        eval_steps: Evaluate every so many steps.
        save_steps: Save every so many steps.
        train_batch_size: Samples in a batch of training.
        num_train_epochs: Epochs that this training will do.
        num_input_tokens_seen: Tokens of input so far, where the trainer counts them.
        total_flos: Floating point operations of the model so far, where the trainer counts them.
        log_history: Every log so far, each with its `step`.
        best_metric: The best value so far of the metric that chooses the best model.
        best_global_step: The step at which it was reached.
        best_model_checkpoint: The checkpoint of that step.
        is_local_process_zero: Whether this process is the main one of its machine.
        is_world_process_zero: Whether this process is the main one of all.
        is_hyper_param_search: Whether this training is a trial of a hyperparameter search.
        trial_name: The name of that trial.
        trial_params: The hyperparameters of that trial.
        stateful_callbacks: The states of callbacks, by class name.
    """

    epoch: float | None = None
    global_step: int = 0
    max_steps: int = 0
    logging_steps: int = 500
    eval_steps: int = 500
    save_steps: int = 500
    train_batch_size: int | None = None
    num_train_epochs: int = 0
    num_input_tokens_seen: int = 0
    total_flos: float = 0
    log_history: list[dict[str, Any]] = field(default_factory=list)
    best_metric: float | None = None
    best_global_step: int | None = None
    best_model_checkpoint: str | None = None
    is_local_process_zero: bool = True
    is_world_process_zero: bool = True
    is_hyper_param_search: bool = False
    trial_name: str | None = None
    trial_params: dict[str, str | float | int | bool] | None = None
    stateful_callbacks: dict[str, Any] = field(default_factory=dict)

    def compute_steps(self, args: StepArguments, max_steps: int) -> None:
        """Take the steps from `args`; a fraction below 1 is of `max_steps`."""
        for name in ("logging_steps", "eval_steps", "save_steps"):
            steps = getattr(args, name)
            if steps is not None:
                setattr(self, name, math.ceil(max_steps * steps) if steps < 1 else int(steps))

    def save_to_json(self, json_path: str | Path) -> None:
        """Write the state to the file `json_path`, one field a line and one log a line."""
        lines = [
            f"{json.dumps(name)}: {_encoded(value)}" for name, value in sorted(vars(self).items())
        ]
        Path(json_path).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")

    @classmethod
    def load_from_json(cls, json_path: str | Path) -> TrainerState:
        """Return the state that `save_to_json` wrote to the file `json_path`."""
        return cls(**json.loads(Path(json_path).read_text(encoding="utf-8")))


def _encoded(value: Any) -> str:
    """Return `value` as JSON, a list with one element a line."""
    # By hand, because json's own indentation is written in Python and slow.
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(json.dumps(element) for element in value) + "\n]"
    return json.dumps(value)
