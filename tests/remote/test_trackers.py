"""A training that continues on an empty machine continues its runs in trackers, too."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callback_core import TrainerCallback
from callback_mlflow import MLflowCallback
from callback_tensorboard import TensorBoardCallback
from trainer_torch.testing import small_trainer

SAVES = {"save_strategy": "steps", "save_steps": 3, "save_total_limit": 1}
STEPS = list(range(1, 13))


class At(TrainerCallback):
    """Calls a function after a step."""

    def __init__(self, step: int, do: Callable[[], Any]) -> None:
        self._step, self._do = step, do

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self._step:
            self._do()


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of an empty store, for a machine with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machine"))
    return f"file://{tmp_path / 'store'}/run"


def test_tensorboard_has_each_step_once_after_a_machine_was_lost(
    tmp_path: Path, address: str
) -> None:
    def lose() -> None:
        """Keep the store as it is now, with what was whole at an earlier step."""
        manifest = tmp_path / "store" / "run" / "checkpoint-6" / "manifest.json"
        while not manifest.exists():
            pass
        shutil.copytree(tmp_path / "store", tmp_path / "kept")

    small_trainer(address, TensorBoardCallback(), At(8, lose), **SAVES).train()
    shutil.rmtree(tmp_path / "machine")
    shutil.rmtree(tmp_path / "store")
    shutil.move(tmp_path / "kept", tmp_path / "store")
    resumed = small_trainer(address, TensorBoardCallback(), **SAVES)
    resumed.train(resume_from_checkpoint=True)
    (directory,) = Path(resumed.args.output_dir, "runs").iterdir()
    losses = EventAccumulator(str(directory)).Reload().Scalars("train/loss")
    assert [one.step for one in losses] == STEPS


def test_mlflow_has_each_step_once_after_an_error_ended_the_first_training(
    tmp_path: Path, address: str
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(uri)
    client.search_experiments()  # makes the database, which takes seconds

    def fail() -> None:
        raise RuntimeError("as planned")

    first = small_trainer(address, MLflowCallback(tracking_uri=uri), At(8, fail), **SAVES)
    with pytest.raises(RuntimeError, match="as planned"):
        first.train()
    shutil.rmtree(tmp_path / "machine")
    resumed = small_trainer(address, MLflowCallback(tracking_uri=uri), **SAVES)
    resumed.train(resume_from_checkpoint=True)
    experiments = [one.experiment_id for one in client.search_experiments()]
    (run,) = client.search_runs(experiments)
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted(one.step for one in history) == STEPS
