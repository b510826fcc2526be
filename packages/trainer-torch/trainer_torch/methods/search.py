"""Hyperparameter search with Optuna: each trial is a training in a folder of its own."""

from __future__ import annotations

import inspect
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, SupportsFloat

from callback_core import TrainerCallback, nearest_name, request_stop
from trainer_torch.addresses import joined
from trainer_torch.arguments.training_arguments import TrainingArguments
from trainer_torch.checkpoints.selection import find_checkpoint
from trainer_torch.methods.evaluating import EvaluationMethods

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger(__name__)

Objective = Callable[[dict[str, float]], Any]
"""Takes the metrics of an evaluation. Returns what the search minimizes or maximizes."""

_OF_OPTIMIZE: Final = ("timeout", "gc_after_trial", "catch", "show_progress_bar", "callbacks")
"""The options of `Study.optimize`. All others are those of `create_study`."""

_SPEED: Final = ("_runtime", "_per_second", "_compilation_time")


class BestRun(NamedTuple):
    """The best trial of a search.

    Attributes:
        run_id: The number of the trial, as text.
        objective: Its objective; for several directions, a list.
        hyperparameters: Its hyperparameters.
        run_summary: Always `None`; transformers fills it for Ray.
    """

    run_id: str
    objective: Any
    hyperparameters: dict[str, Any]
    run_summary: Any = None


class Searched(Protocol):
    """What a search uses of a Trainer."""

    args: TrainingArguments
    model_init: Callable[..., Any] | None
    eval_dataset: Any
    hp_name: Callable[[Any], str] | None

    def train(self, resume_from_checkpoint: Any = None, trial: Any = None) -> Any:
        """Train with a new model, or resume."""

    def evaluate(self) -> dict[str, float]:
        """Evaluate and return the metrics."""

    def add_callback(self, callback: Any) -> None:
        """Append a callback."""

    def remove_callback(self, callback: Any) -> None:
        """Remove a callback."""


def default_hp_space(trial: optuna.Trial) -> dict[str, Any]:
    """Suggest learning rate, number of epochs, seed and batch size, as transformers does."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-6, 1e-4, log=True),
        "num_train_epochs": trial.suggest_int("num_train_epochs", 1, 5),
        "seed": trial.suggest_int("seed", 1, 40),
        "per_device_train_batch_size": trial.suggest_categorical(
            "per_device_train_batch_size", [4, 8, 16, 32, 64]
        ),
    }


def default_compute_objective(metrics: Mapping[str, float]) -> float:
    """Return the sum of all metrics but loss and speed; without such metrics, the loss."""
    others = {
        name: value
        for name, value in metrics.items()
        if name not in ("eval_loss", "epoch") and not name.endswith(_SPEED)
    }
    return sum(others.values()) if others else metrics["eval_loss"]


class SearchMethods:
    """Searches for hyperparameters."""

    def hyperparameter_search(
        self: Searched,
        hp_space: Callable[[Any], dict[str, Any]] | None = None,
        compute_objective: Objective | None = None,
        n_trials: int = 20,
        direction: str | list[str] = "minimize",
        backend: str | None = None,
        hp_name: Callable[[Any], str] | None = None,
        **kwargs: Any,
    ) -> BestRun | list[BestRun]:
        """Search for hyperparameters with Optuna, and return the best trial.

        Each trial trains a new model of `model_init` in a folder of its own in `output_dir`. After
        each evaluation, Optuna may prune the trial.

        Args:
            hp_space: Takes a trial and returns arguments by name. By default, it suggests those of
                `default_hp_space`. `model_init` may take the trial and use further ones.
            compute_objective: Takes the metrics of an evaluation and returns the objective. By
                default, it is `default_compute_objective`.
            n_trials: The number of trials in the study that are complete or pruned.
            direction: `minimize` or `maximize`; a list for several objectives.
            backend: `optuna` or `None`.
            hp_name: Takes a trial and returns its name, for its folder and for trackers.
            kwargs: Options of `optuna.create_study` and `Study.optimize`. With a `storage`, a
                search that was killed continues, also within its trial.

        Raises:
            ModuleNotFoundError: Optuna is not installed.
            RuntimeError: There is no `model_init`.
            ValueError: An option or a hyperparameter is not allowed.
        """
        _check_search(self, backend, kwargs)
        self.hp_name = hp_name
        space = hp_space or default_hp_space
        objective = compute_objective or default_compute_objective
        return _run_search(self, space, objective, n_trials, direction, kwargs)


def _check_search(trainer: Searched, backend: str | None, options: Mapping[str, Any]) -> None:
    """Check that a search can begin.

    Raises:
        ModuleNotFoundError: Optuna is not installed.
        RuntimeError: There is no `model_init`.
        ValueError: The backend is not Optuna, there is nothing to evaluate on, or trials would run
            at the same time.
    """
    if backend is not None and getattr(backend, "value", backend) != "optuna":
        raise ValueError(f"backend is {backend!r}, but must be 'optuna' or None.")
    if find_spec("optuna") is None:
        raise ModuleNotFoundError(
            "hyperparameter_search needs Optuna: pip install 'trainer-torch[optuna]'", name="optuna"
        )
    if trainer.model_init is None:
        raise RuntimeError(
            "Each trial needs a new model: pass model_init to the Trainer instead of a model."
        )
    own: Any = type(trainer)
    base = EvaluationMethods
    evaluates_by_base = (own.evaluate, own.get_eval_dataloader) == (
        base.evaluate,
        base.get_eval_dataloader,
    )
    if trainer.eval_dataset is None and evaluates_by_base:
        raise ValueError(
            "There is no data to compare trials on: pass eval_dataset to the Trainer, because the "
            "objective is computed from the metrics of an evaluation."
        )
    if options.get("n_jobs", 1) != 1:
        raise ValueError(
            f"n_jobs is {options['n_jobs']}, but a Trainer trains one model at a time. To run "
            "trials at the same time, start this program several times with the same storage and "
            "study_name."
        )


def _run_search(
    trainer: Searched,
    space: Callable[[Any], dict[str, Any]],
    objective: Objective,
    n_trials: int,
    direction: str | list[str],
    options: Mapping[str, Any],
) -> BestRun | list[BestRun]:
    """Run trials until the study has `n_trials`, and return the best; of several directions, each.

    A study in a `storage` is continued. A trial that was killed continues from its checkpoint.
    """
    import optuna

    kind = "directions" if isinstance(direction, list) else "direction"
    of_study: dict[str, Any] = {"study_name": "hyperparameter_search", "load_if_exists": True}
    of_study |= {k: v for k, v in options.items() if k not in (*_OF_OPTIMIZE, "n_jobs")}
    study = optuna.create_study(**{kind: direction, **of_study})
    _enqueue_interrupted(study)
    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    left = n_trials - len(study.get_trials(deepcopy=False, states=ended))
    if left < n_trials:
        logger.info("The study has %d of %d trials. It continues.", n_trials - left, n_trials)
    args = trainer.args

    def train(trial: optuna.Trial) -> Any:
        return _train(trainer, args, trial, space, objective)

    try:
        if left > 0:
            optimize = {k: v for k, v in options.items() if k in _OF_OPTIMIZE}
            study.optimize(train, n_trials=left, **optimize)
    finally:
        trainer.args = args
    if not study.get_trials(deepcopy=False, states=ended[:1]):
        pruned = len(study.get_trials(deepcopy=False, states=ended[1:]))
        raise RuntimeError(
            f"No trial of the search is complete, so none is the best: of {len(study.trials)} "
            f"trials, {pruned} were pruned, and the others failed. Messages of Optuna say why."
        )
    if isinstance(direction, list):
        return [BestRun(str(one.number), one.values, one.params) for one in study.best_trials]
    best = study.best_trial
    return BestRun(str(best.number), best.value, best.params)


class _Reports(TrainerCallback):
    """Reports the objective of each evaluation to the study, which may prune the trial."""

    def __init__(self, trial: optuna.Trial, objective: Objective) -> None:
        self._trial, self._objective = trial, objective
        self.value: Any = None
        self.is_pruned = False

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any
    ) -> None:
        self.value = _value_of(self._trial, self._objective, dict(metrics or {}))
        if len(self._trial.study.directions) > 1:
            return  # Optuna prunes by one objective only
        self._trial.report(self.value, state.global_step)
        if self._trial.should_prune():
            self.is_pruned = True
            request_stop(control, "the search has pruned the trial")


def _train(
    trainer: Searched,
    args: TrainingArguments,
    trial: optuna.Trial,
    space: Callable[[Any], dict[str, Any] | None],
    objective: Objective,
) -> Any:
    """Train with the hyperparameters of `trial` and return its objective."""
    import optuna

    values = space(trial) or trial.params
    trial.set_user_attr("process", _this_process())
    name_of = trainer.hp_name or (lambda one: f"run-{one.number}")
    folder = trial.user_attrs.get("folder") or name_of(trial)
    trial.set_user_attr("folder", folder)
    output_dir = Path(args.output_dir) / folder
    logger.info("Trial %d begins in %s.", trial.number, output_dir)
    own = {field.name for field in fields(args)}
    _check_names(trainer, values, own)
    known = {name: value for name, value in values.items() if name in own}
    remote = args.remote_output_dir and joined(args.remote_output_dir, folder)
    known = {**known, "output_dir": str(output_dir), "remote_output_dir": remote}
    known["resume_from_checkpoint"] = None
    trainer.args = replace(args, **known)
    checkpoint = None
    if "continues" in trial.user_attrs:
        with suppress(FileNotFoundError, ValueError):  # warnings name what cannot be resumed
            checkpoint = find_checkpoint(True, output_dir, remote_output_dir=remote)
    reports = _Reports(trial, objective)
    trainer.add_callback(reports)
    try:
        trainer.train(checkpoint, trial)
        value = reports.value
        if value is None:
            value = _value_of(trial, objective, trainer.evaluate())
    except (KeyboardInterrupt, SystemExit):
        trial.set_user_attr("interrupted", True)
        raise
    finally:
        trainer.remove_callback(reports)
    if reports.is_pruned:
        raise optuna.TrialPruned
    return value


def _value_of(trial: optuna.Trial, objective: Objective, metrics: dict[str, float]) -> Any:
    """Return the objective, after checking that it has a number for each direction.

    Raises:
        ValueError: It has not. Optuna would only note that the trial has failed.
    """
    value, count = objective(metrics), len(trial.study.directions)
    is_several = isinstance(value, Sequence) and not isinstance(value, str)
    values = value if is_several else [value]
    if len(values) != count or not all(isinstance(one, SupportsFloat) for one in values):
        raise ValueError(
            f"compute_objective returned {value!r}, but must return a number for each direction of "
            f"the search, so {count}."
        )
    return value


def _check_names(trainer: Searched, values: Mapping[str, Any], known: set[str]) -> None:
    """Check that each value is an argument, unless `model_init` may use it."""
    assert trainer.model_init is not None
    if inspect.signature(trainer.model_init).parameters:
        return
    for name in values:
        if name not in known:
            nearest = nearest_name(name, list(known))
            hint = f"Did you mean {nearest!r}?" if nearest else ""
            raise ValueError(
                f"hp_space suggests {name!r}, which is not an argument, and model_init has no "
                f"parameter for the trial, so nothing can use it. {hint}".rstrip()
            )


def _enqueue_interrupted(study: optuna.Study) -> None:
    """Enqueue the trials again that were killed or interrupted, to continue them."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    continued = {trial.user_attrs.get("continues") for trial in trials}
    for trial in trials:
        is_killed = trial.state is TrialState.RUNNING and not _runs(trial.user_attrs.get("process"))
        if is_killed:
            study.tell(trial.number, state=TrialState.FAIL)
        if trial.number in continued or not (is_killed or trial.user_attrs.get("interrupted")):
            continue
        folder = trial.user_attrs.get("folder")
        logger.info("Trial %d was interrupted and continues.", trial.number)
        study.enqueue_trial(trial.params, user_attrs={"continues": trial.number, "folder": folder})


def _this_process() -> list[Any]:
    return [socket.gethostname(), os.getpid()]


def _runs(process: Any) -> bool:
    """Return whether a process may still run. One on another machine may."""
    if process is None:
        return False
    host, pid = process
    if host != socket.gethostname():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
