"""A small module of Lightning, a tracker that writes lines, and a callback that notes events."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from callback_core import EVENTS, TrainerCallback, TrainerControl, TrainerState
from callback_core.tracking import Limits, Opening, Point, Status, Tracker, TrackerCallback, Upload

BATCHES = 8
"""The batches of an epoch."""


class Small(LightningModule):
    """Learns to output ones, and logs as modules do."""

    def __init__(self, width: int = 4, fails_at: int = -1) -> None:
        super().__init__()
        self.save_hyperparameters()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(width, 1)
        self.fails_at = fails_at

    def loss(self, batch: torch.Tensor) -> torch.Tensor:
        return ((self.layer(batch) - 1) ** 2).mean()

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        if self.global_step == self.fails_at:
            raise RuntimeError("lost")
        loss = self.loss(batch)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    def test_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("test_loss", self.loss(batch))

    def predict_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return self.layer(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def batches(self) -> DataLoader[Any]:
        generator = torch.Generator().manual_seed(1)
        rows = torch.rand(2 * BATCHES, 4, generator=generator)
        return DataLoader(rows, batch_size=2)  # type: ignore[arg-type]

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = batches


def trainer(root: Path, *callbacks: Any, **options: Any) -> Trainer:
    """Return a quiet trainer on the CPU that logs each step of its two epochs."""
    defaults: dict[str, Any] = {
        "max_epochs": 2,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "logger": False,
        "accelerator": "cpu",
        "devices": 1,
    }
    return Trainer(default_root_dir=root, callbacks=list(callbacks), **{**defaults, **options})


class Recorder(TrainerCallback):
    """Notes the events, with the step, and what they pass."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.passed: dict[str, list[dict[str, Any]]] = {}
        self.states: list[TrainerState] = []

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    @property
    def logs(self) -> list[tuple[int, dict[str, Any]]]:
        steps = [step for name, step in self.events if name == "on_log"]
        return [
            (step, {name: value for name, value in one["logs"].items() if name != "epoch"})
            for step, one in zip(steps, self.passed.get("on_log", []), strict=True)
        ]


def _noting(name: str) -> Any:
    def method(
        self: Recorder, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.events.append((name, state.global_step))
        self.passed.setdefault(name, []).append({"epoch": state.epoch, **kwargs})
        self.states.append(state)

    return method


for _name in EVENTS:
    setattr(Recorder, _name, _noting(_name))


class LinesTracker(Tracker):
    """Appends a line of JSON for each call.

    Args:
        path: The file.
        checkpoints: Whether it takes checkpoints.
    """

    name = "lines"
    limits = Limits(deliver_every=0.01, retry_after=0.02)

    def __init__(self, path: str, checkpoints: bool = False) -> None:
        self.path, self.checkpoints = str(path), checkpoints

    def settings(self) -> dict[str, Any]:
        return {"path": self.path, "checkpoints": self.checkpoints}

    @property
    def takes_checkpoints(self) -> bool:
        return self.checkpoints

    def open(self, opening: Opening) -> str:
        self.run = opening.run_id or opening.training
        self.write(run_name=opening.name, step=opening.step)
        return self.run

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        self.write(parameters=dict(parameters))

    def log_metrics(self, points: Sequence[Point]) -> None:
        self.write(points=[[point.name, point.step, point.value] for point in points])

    def log_files(self, upload: Upload) -> None:
        files = sorted(path.name for path in upload.path.rglob("*") if path.is_file())
        self.write(upload=upload.name, step=upload.step, files=files)

    def close(self, status: Status | None) -> None:
        self.write(status=status)

    def write(self, **what: Any) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"run": self.run, **what}, default=str) + "\n")


class LinesCallback(TrackerCallback):
    """Sends a training to a `LinesTracker`."""

    def __init__(self, path: Path, checkpoints: bool = False, **options: Any) -> None:
        super().__init__(LinesTracker(str(path), checkpoints), **options)


class Run:
    """What a `LinesTracker` has of one run."""

    def __init__(self) -> None:
        self.parameters: dict[str, Any] = {}
        self.points: dict[str, list[tuple[int, float]]] = {}
        self.uploads: list[tuple[str, int, list[str]]] = []
        self.status: str | None = None

    def steps(self, name: str) -> list[int]:
        return [step for step, _ in self.points.get(name, [])]


def runs_in(path: Path) -> list[Run]:
    """Return the runs in a file, oldest first."""
    runs: dict[str, Run] = {}
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    for line in map(json.loads, lines):
        run = runs.setdefault(line["run"], Run())
        run.parameters.update(line.get("parameters", {}))
        for name, step, value in line.get("points", []):
            run.points.setdefault(name, []).append((step, value))
        if "upload" in line:
            run.uploads.append((line["upload"], line["step"], line["files"]))
        run.status = line.get("status", run.status)
    return list(runs.values())
