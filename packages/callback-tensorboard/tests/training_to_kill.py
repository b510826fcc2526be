"""A training that kills itself, and resumes from its newest checkpoint.

Its arguments are OUTPUT_DIR DELIVERY KILL_AT. Where it is not killed, it prints what it logged.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tensorboard_for_tests import read
from torch import Tensor, nn

from callback_core import TrainerCallback
from callback_tensorboard import TensorBoardCallback
from trainer_torch import Trainer, TrainingArguments


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor]:
        return (((self.layer(inputs) - labels) ** 2).mean(),)


class KillAt(TrainerCallback):
    """Kills the training at a step, once TensorBoard has the point of the one before."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        while state.global_step == self.step:
            for directory in Path(args.output_dir).glob("runs/*"):
                found = read(directory)
                written = "train/loss" in found.Tags()["scalars"]
                if written and found.Scalars("train/loss")[-1].step >= self.step - 1:
                    os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.05)


def main(output_dir: str, delivery: Any, kill_at: str) -> None:
    torch.manual_seed(0)
    data = [{"inputs": torch.randn(2), "labels": torch.randn(1)} for _ in range(64)]
    trainer = Trainer(
        Line(),
        TrainingArguments(
            output_dir=output_dir,
            num_train_epochs=3,
            per_device_train_batch_size=8,
            logging_steps=1,
            eval_strategy="epoch",
            save_strategy="steps",
            save_steps=5,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=data,
        eval_dataset=data,
        callbacks=[TensorBoardCallback(delivery=delivery), KillAt(int(kill_at))],
    )
    trainer.train(resume_from_checkpoint=any(Path(output_dir).glob("checkpoint-*")))
    print(json.dumps(trainer.state.log_history))


if __name__ == "__main__":
    main(*sys.argv[1:])
