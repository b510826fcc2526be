"""A training by Lightning that kills itself, and resumes from its last checkpoint.

The arguments are DIRECTORY HOW KILL_AT, where HOW is `callbacks` or `logger`.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning_for_tests import Small, trainer

from callback_lightning import LightningCallbacks, TrackerLogger
from callback_mlflow import MLflowCallback
from callback_tensorboard import TensorBoardCallback


class Kill(Callback):
    """Kills this process at a step, once MLflow has the run."""

    def __init__(self, tracker: MLflowCallback, step: int) -> None:
        self.tracker, self.step = tracker, step

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == self.step:
            assert self.tracker.member is not None
            self.tracker.member.delivery.wait_for_run(60)
            os.kill(os.getpid(), signal.SIGKILL)


def main(root: Path, how: str, kill_at: int) -> None:
    mlflow, tensorboard = MLflowCallback(), TensorBoardCallback()
    saving = ModelCheckpoint(root / "kept", save_last=True)
    by_logger = how == "logger"
    running = trainer(
        root,
        *([] if by_logger else [LightningCallbacks([mlflow, tensorboard])]),
        Kill(mlflow, kill_at),
        saving,
        logger=[TrackerLogger(mlflow), TrackerLogger(tensorboard)] if by_logger else False,
        enable_checkpointing=True,
        max_epochs=3,
    )
    running.fit(Small(), ckpt_path="last", weights_only=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
