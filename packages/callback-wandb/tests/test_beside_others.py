"""W&B beside another tracker, whose callback comes first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recorded import the_run

from callback_core.tracking import Tracker, TrackerCallback
from callback_wandb import WandbCallback
from trainer_torch.testing import small_trainer


class NullTracker(Tracker):
    """Takes everything and keeps nothing."""

    name = "null"

    def open(self, opening: Any) -> str:
        return "run"

    def log_parameters(self, parameters: Any) -> None:
        pass

    def log_metrics(self, points: Any) -> None:
        pass

    def close(self, status: Any) -> None:
        pass


def test_the_final_model_is_kept_though_another_tracker_ends_first(tmp_path: Path) -> None:
    first, wandb = TrackerCallback(NullTracker()), WandbCallback(log_model="end")
    small_trainer(tmp_path / "out", first, wandb).train()
    [final] = the_run(tmp_path / "out").artifacts
    assert "final_model" in final.aliases
