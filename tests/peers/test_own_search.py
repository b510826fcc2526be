"""`hyperparameter_search` of trainer-torch, with Optuna."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from line_tracker import LineTracker
from small_training import TinyDataset, TinyModel

from callback_core import TrainerCallback
from callback_core.tracking import TrackerCallback
from trainer_torch import BestRun, Trainer, TrainingArguments

RATES = [0.4, 0.01, 0.2, 0.1]


def searching(output_dir: Path, *callbacks: Any, init: Any = TinyModel, **changed: Any) -> Trainer:
    args = TrainingArguments(
        **{
            "output_dir": str(output_dir),
            "per_device_train_batch_size": 2,
            "max_steps": 4,
            "eval_strategy": "steps",
            "eval_steps": 2,
            "save_strategy": "no",
            "logging_steps": 1,
            "use_cpu": True,
            "disable_tqdm": True,
            "report_to": "none",
            **changed,
        }
    )
    data = {"train_dataset": TinyDataset(10), "eval_dataset": TinyDataset(4)}
    return Trainer(model_init=init, args=args, callbacks=callbacks, **data)


def rate(trial: Any) -> dict[str, Any]:
    return {"learning_rate": trial.suggest_float("learning_rate", 0.0, 1.0)}


def search(trainer: Trainer, **options: Any) -> Any:
    sampler = optuna.samplers.GridSampler({"learning_rate": RATES}, seed=0)
    chosen = {"hp_space": rate, "n_trials": len(RATES), "sampler": sampler, **options}
    return trainer.hyperparameter_search(**chosen)


class Notes(TrainerCallback):
    """Notes each trial as callbacks see it."""

    def __init__(self) -> None:
        self.trials: list[Any] = []
        self.stopped: list[Any] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        assert state.is_hyper_param_search
        folder = Path(args.output_dir).name
        self.trials.append((folder, args.learning_rate, state.trial_name, state.trial_params))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.stopped.append(state.global_step)


def test_trials_start_from_the_beginning_whatever_the_arguments_resume(tmp_path: Path) -> None:
    notes = Notes()
    search(searching(tmp_path, notes, resume_from_checkpoint=str(tmp_path / "none")))
    assert notes.stopped == [4] * len(RATES)


def test_a_search_returns_the_trial_with_the_lowest_loss(tmp_path: Path) -> None:
    trainer = searching(tmp_path)
    best = search(trainer)
    losses = {}
    for value in RATES:
        alone = searching(tmp_path / "alone", learning_rate=value)
        alone.train()
        losses[value] = alone.evaluate()["eval_loss"]
    expected = min(losses, key=lambda value: losses[value])
    assert isinstance(best, BestRun)
    assert best.hyperparameters == {"learning_rate": expected}
    assert best.objective == pytest.approx(losses[expected])


def test_each_trial_has_a_folder_and_callbacks_see_its_hyperparameters(tmp_path: Path) -> None:
    notes = Notes()
    trainer = searching(tmp_path, notes, save_strategy="steps", save_steps=2)
    before = trainer.args
    search(trainer)
    seen = [
        (f"run-{n}", params["learning_rate"], None) for n, (*_, params) in enumerate(notes.trials)
    ]
    assert [trial[:3] for trial in notes.trials] == seen
    assert sorted(rate for _, rate, *_ in notes.trials) == sorted(RATES)
    assert all((tmp_path / f"run-{n}" / "checkpoint-4").is_dir() for n in range(4))
    assert trainer.args is before


def test_trials_may_have_names(tmp_path: Path) -> None:
    notes = Notes()
    search(searching(tmp_path, notes), hp_name=lambda trial: f"trial {trial.number}", n_trials=2)
    assert [(folder, name) for folder, _, name, _ in notes.trials] == [
        ("trial 0", "trial 0"),
        ("trial 1", "trial 1"),
    ]


def test_each_trial_is_a_run_of_a_tracker(tmp_path: Path) -> None:
    tracker = TrackerCallback(LineTracker(f"{tmp_path}/lines.jsonl"), flush_limit=300)
    search(searching(tmp_path, tracker))
    lines = (tmp_path / "lines.jsonl").read_text("utf-8")
    assert lines.count('"called": "open"') == len(RATES)


def test_a_trial_that_optuna_prunes_stops_after_its_evaluation(tmp_path: Path) -> None:
    class Always(optuna.pruners.BasePruner):
        def prune(self, study: Any, trial: Any) -> bool:
            return trial.number > 0

    notes = Notes()
    best = search(searching(tmp_path, notes), pruner=Always())
    assert notes.stopped == [4, 2, 2, 2]
    assert best.run_id == "0"


def test_a_model_may_be_made_from_the_trial(tmp_path: Path) -> None:
    class Wide(TinyModel):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.linear = torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.Linear(width, 1))

    def init(trial: Any) -> Wide:
        return Wide(1 if trial is None else trial.params["width"])

    trainer = searching(tmp_path, init=init)
    trainer.hyperparameter_search(
        lambda trial: {"width": trial.suggest_int("width", 3, 3)}, n_trials=1
    )
    assert trainer.model.linear[0].out_features == 3


def test_several_objectives_give_several_best_trials(tmp_path: Path) -> None:
    def objective(metrics: dict[str, float]) -> list[float]:
        return [metrics["eval_loss"], -metrics["eval_loss"]]

    best = search(
        searching(tmp_path), compute_objective=objective, direction=["minimize", "minimize"]
    )
    assert len(best) == len(RATES)


@pytest.mark.parametrize(
    ("options", "error", "names"),
    [
        ({"hp_space": lambda trial: {"learning_rat": 0.1}}, ValueError, "learning_rate"),
        ({"backend": "ray"}, ValueError, "optuna"),
        ({"n_jobs": 2}, ValueError, "storage"),
        ({"direction": "down"}, ValueError, "maximize"),
        ({"direction": ["minimize", "maximize"]}, ValueError, "compute_objective.* 2"),
        ({"compute_objective": lambda metrics: None}, ValueError, "compute_objective.*None"),
    ],
)
def test_what_a_search_cannot_do_is_refused(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], names: str
) -> None:
    with pytest.raises(error, match=names):
        search(searching(tmp_path), **options)


def test_a_search_without_data_to_evaluate_on_is_refused_before_its_first_trial(
    tmp_path: Path,
) -> None:
    trainer = searching(tmp_path)
    trainer.eval_dataset = None
    with pytest.raises(ValueError, match="eval_dataset"):
        search(trainer)
    assert trainer.state.global_step == 0


def test_a_search_without_a_complete_trial_has_no_best_one(tmp_path: Path) -> None:
    pruner = optuna.pruners.ThresholdPruner(upper=-1.0)
    with pytest.raises(RuntimeError, match=f"{len(RATES)} were pruned"):
        search(searching(tmp_path), pruner=pruner)


def test_a_search_needs_a_model_init(tmp_path: Path) -> None:
    args = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    with pytest.raises(RuntimeError, match="model_init"):
        Trainer(TinyModel(), args).hyperparameter_search()


class KilledAt(TrainerCallback):
    """Ends the process in the second trial, at its third step."""

    def __init__(self, number: int) -> None:
        self.number, self.trials = number, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trials += 1

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trials == 2 and state.global_step == 3:
            os.kill(os.getpid(), self.number)


def stored(directory: Path, *callbacks: Any) -> Any:
    """Search with a study that is stored in `directory`."""
    trainer = searching(directory, *callbacks, save_strategy="steps", save_steps=2)
    storage = f"sqlite:///{directory / 'study.db'}"
    return search(trainer, storage=storage)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_search_that_was_killed_continues_within_its_trial(tmp_path: Path, number: int) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    command = [sys.executable, __file__, str(tmp_path / "killed"), str(int(number))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert killed.returncode != 0
    notes = Notes()
    best = stored(tmp_path / "killed", notes)
    assert len(notes.trials) == len(RATES) - 1  # one was complete
    assert notes.trials[0][0] == "run-1"
    assert not (tmp_path / "killed" / "run-2").exists()  # the number of the one that continued it
    assert best.objective == stored(tmp_path / "whole").objective


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by jobs in the background
    stored(Path(sys.argv[1]), KilledAt(int(sys.argv[2])))
