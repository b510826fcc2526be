"""`TrainerState`: where a training stands, as callbacks see it and as a checkpoint keeps it."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from callback_core.class_names import has_base_named
from callback_core.persistence import export_states
from callback_core.state_file import read_fields, write_fields

logger = logging.getLogger(__name__)


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
        stateful_callbacks: The states of callbacks, by class name: one, or a list where there are
            several of a class. May be given as the callbacks, which then are asked for `state()`.
        unknown_fields: What a file held besides these fields, to be written there again.

    Raises:
        TypeError: Something in a list of `stateful_callbacks` is no `ExportableState`.
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
    unknown_fields: dict[str, Any] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        # transformers' defaults are None and a list, which code written for it may pass.
        if self.log_history is None:
            self.log_history = []
        if not isinstance(self.stateful_callbacks, dict):
            self.stateful_callbacks = _states_by_class(self.stateful_callbacks or ())

    def compute_steps(self, args: StepArguments, max_steps: int) -> None:
        """Take the steps from `args`; a fraction below 1 is of `max_steps`."""
        for name in ("logging_steps", "eval_steps", "save_steps"):
            steps = getattr(args, name)
            if steps is not None:
                setattr(self, name, math.ceil(max_steps * steps) if steps < 1 else int(steps))

    def init_training_references(
        self, trainer: Any, max_steps: int, num_train_epochs: int, trial: Any
    ) -> None:
        """Take what is known when a training begins.

        Args:
            trainer: Tells which process this is and, where it has a trial, that trial's name.
            max_steps: Update steps that this training will do.
            num_train_epochs: Epochs that this training will do.
            trial: The trial of a hyperparameter search: its `params`, or an object that has them.
        """
        params = getattr(trial, "params", trial)
        if params is not None and not isinstance(params, dict):
            raise TypeError(f"The trial is neither a dict nor has it params: {trial!r}")
        searched = getattr(trainer, "_trial", None)
        if searched is not None and getattr(trainer, "hp_name", None) is not None:
            self.trial_name = trainer.hp_name(searched)
        self.trial_params = params
        self.max_steps = max_steps
        self.num_train_epochs = num_train_epochs
        self.is_local_process_zero = trainer.is_local_process_zero()
        self.is_world_process_zero = trainer.is_world_process_zero()

    def save_to_json(self, json_path: str | os.PathLike[str]) -> None:
        """Write the state to the file `json_path`, one field a line and one log a line.

        Scalars of numpy and torch are written as plain numbers, tuples as lists, and keys that are
        numbers as strings. On any error, what was at `json_path` is still there.

        Raises:
            TypeError: A value is of a type that JSON does not have; it says which value.
            ValueError: A value contains itself, or is nested too deeply or too long to be written.
        """
        values = {name: getattr(self, name) for name in _names(type(self))}
        write_fields(json_path, {**self.unknown_fields, **values})

    @classmethod
    def load_from_json(cls, json_path: str | os.PathLike[str]) -> TrainerState:
        """Return the state that `save_to_json`, ours or transformers', wrote to `json_path`.

        A field that the file lacks has its default. One that `TrainerState` does not know is kept
        in `unknown_fields` and named in a warning.

        Raises:
            ValueError: The file does not hold a JSON object.
        """
        names = _names(cls)
        content = read_fields(json_path)
        state = cls(**{name: value for name, value in content.items() if name in names})
        state.unknown_fields = {name: value for name, value in content.items() if name not in names}
        if state.unknown_fields:
            listed = ", ".join(state.unknown_fields)
            logger.warning("%s has unknown fields, which are kept: %s", json_path, listed)
        return state


def _names(cls: type[TrainerState]) -> set[str]:
    """Return the names of the fields that have a place of their own in the file."""
    return {field.name for field in fields(cls)} - {"unknown_fields"}


def _states_by_class(callbacks: Iterable[Any]) -> dict[str, Any]:
    """Return the states of `callbacks` by class name, a list where there are several of a class."""
    callbacks = list(callbacks)
    for callback in callbacks:
        if isinstance(callback, type) or not has_base_named(callback, "ExportableState"):
            raise TypeError(
                "All callbacks passed to be saved must inherit `ExportableState`, but received "
                f"{callback!r}"
            )
    return export_states(callbacks, {})
