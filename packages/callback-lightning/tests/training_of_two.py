"""A training by Lightning in two processes. The arguments are DIRECTORY HOW STRATEGY.

HOW is `callbacks` or `logger`. Each process writes what it has seen to `seen-<rank>.json`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers.logger import DummyLogger
from lightning_for_tests import LinesCallback, Recorder, Small, trainer

from callback_core import TrainerCallback
from callback_lightning import LightningCallbacks, TrackerLogger


class StopOnTheSecond(TrainerCallback):
    """Asks on rank 1 only: to save at step 2, and to stop at step 6."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            control.should_save = state.global_step == 2
            control.should_training_stop = state.global_step == 6


class Look(Callback):
    """Writes what this process has seen."""

    def __init__(self, root: Path, recorder: Recorder) -> None:
        self.root, self.recorder = root, recorder

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        logger = trainer.logger
        seen = {
            "steps": [step for name, step in self.recorder.events if name == "on_step_end"],
            "saved": [step for name, step in self.recorder.events if name == "on_save"],
            "logs": [step for name, step in self.recorder.events if name == "on_log"],
            "dummy": isinstance(
                getattr(logger, "experiment", None), type(DummyLogger().experiment)
            ),
        }
        (self.root / f"seen-{trainer.global_rank}.json").write_text(json.dumps(seen))


def main(root: Path, how: str, strategy: str) -> None:
    lines, recorder = LinesCallback(root / "runs.jsonl", checkpoints=True), Recorder()
    by_logger = how == "logger"
    asking = [recorder, StopOnTheSecond()]
    running = trainer(
        root,
        LightningCallbacks(asking if by_logger else [*asking, lines]),
        ModelCheckpoint(root / "kept", every_n_train_steps=4),
        Look(root, recorder),
        logger=TrackerLogger(lines) if by_logger else False,
        enable_checkpointing=True,
        devices=2,
        strategy=strategy,
        limit_val_batches=0,
        max_epochs=4,
    )
    running.fit(Small())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
