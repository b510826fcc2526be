"""`TrainerState`: the state of a training, which callbacks read and a checkpoint keeps."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from callback_core.arguments import share_of_steps
from callback_core.class_names import has_base_named
from callback_core.persistence import export_states
from callback_core.spelling import meant_by
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
    """The state of a training.

    A step is an update step: with gradient accumulation over n batches, a step takes n batches.

    Args:
        epoch: Epochs done, including a fraction of the current one; `None` before training.
        global_step: Update steps done.
        max_steps: Update steps that this training will do; -1 if unknown.
        logging_steps: Steps between two logs.
        eval_steps: Steps between two evaluations.
        save_steps: Steps between two checkpoints.
        train_batch_size: Samples in a batch of training.
        num_train_epochs: Epochs that this training will do.
        num_input_tokens_seen: Tokens of input so far, if the trainer counts them.
        total_flos: Floating point operations of the model so far, if the trainer counts them.
        log_history: Every log so far, each with its `step`.
        best_metric: The best value so far of the metric that chooses the best model.
        best_global_step: The step of that value.
        best_model_checkpoint: The checkpoint of that step.
        is_local_process_zero: Whether this process is the main one of its machine.
        is_world_process_zero: Whether this process is the main one of all.
        is_hyper_param_search: Whether this training is a trial of a hyperparameter search.
        trial_name: The name of that trial.
        trial_params: The hyperparameters of that trial.
        stateful_callbacks: The states of callbacks by class name: one, or a list for several of a
            class. A list of callbacks is also accepted; their `state()` is called.
        unknown_fields: Further fields of the file from which the state was read, to write again.

    Raises:
        TypeError: Something in a list of `stateful_callbacks` is not an `ExportableState`.
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

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field, or an attribute of the user's own. A warning names a misspelt field."""
        if name not in self.__dict__ and name not in self.__dataclass_fields__:
            if name.startswith("should_"):
                meant = f"control.{name}"
            elif not hasattr(type(self), name) and (near := meant_by(name, _names(type(self)))):
                meant = f"state.{near}"
            else:
                meant = None
            if meant is not None:
                logger.warning(
                    "state.%s was set, which no loop reads. Did you mean %s?", name, meant
                )
        super().__setattr__(name, value)

    def compute_steps(self, args: StepArguments, max_steps: int) -> None:
        """Set the steps from `args`. A value below 1 is a fraction of `max_steps`."""
        for name in ("logging_steps", "eval_steps", "save_steps"):
            steps = getattr(args, name)
            if steps is not None:
                share = share_of_steps(steps, max_steps) if steps < 1 else int(steps)
                setattr(self, name, share)

    def init_training_references(
        self, trainer: Any, max_steps: int, num_train_epochs: int, trial: Any
    ) -> None:
        """Set the fields that are known when a training begins.

        Args:
            trainer: Tells which process this is and, in a search, the name of the trial.
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
        """Write the state to `json_path`, with a line for each field and for each log.

        Single numbers of numpy and torch become plain numbers, tuples become lists, and keys that
        are numbers become strings. After an error, the old file is still there.

        Raises:
            TypeError: A value is of a type that JSON does not have; the message names the value.
            ValueError: A value contains itself, is nested too deeply, or is an integer with too
                many digits.
        """
        values = {name: getattr(self, name) for name in _names(type(self))}
        write_fields(json_path, {**self.unknown_fields, **values})

    @classmethod
    def load_from_json(cls, json_path: str | os.PathLike[str]) -> TrainerState:
        """Return the state that our or transformers' `save_to_json` wrote to `json_path`.

        A field that the file lacks gets its default. A field that is unknown goes to
        `unknown_fields`, and a warning names it.

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
    """Return the names of the fields in the file."""
    return {field.name for field in fields(cls)} - {"unknown_fields"}


def _states_by_class(callbacks: Iterable[Any]) -> dict[str, Any]:
    """Return the states of `callbacks` by class name; several of a class are a list."""
    callbacks = list(callbacks)
    for callback in callbacks:
        if isinstance(callback, type) or not has_base_named(callback, "ExportableState"):
            raise TypeError(
                "All callbacks passed to be saved must inherit `ExportableState`, but received "
                f"{callback!r}"
            )
    return export_states(callbacks, {})
