"""A tracker in transformers' Trainer. Kill this, and run it again: the curve is unbroken."""

import time
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from callback_core import get_last_checkpoint
from callback_tensorboard import TensorBoardCallback

OUTPUT_DIR = "digits_in_transformers"


class Classifier(nn.Module):
    """A small network, as transformers' Trainer takes one: it returns its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the loss and the scores of the ten digits."""
        logits = self.layers(images)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Slowly(TrainerCallback):
    """Takes a while for each step, so that there is time to kill the training."""

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        """Wait."""
        time.sleep(0.05)


def main() -> None:
    """Train, or continue the training that was killed."""
    images, labels = load_digits(return_X_y=True)
    pairs = zip(torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels), strict=True)
    dataset = [{"images": image, "labels": label} for image, label in pairs]
    args = TrainingArguments(
        OUTPUT_DIR,
        report_to="none",  # its own TensorBoardCallback would write a second run
        logging_steps=5,
        save_steps=20,
        max_steps=200,
        learning_rate=0.01,
        per_device_train_batch_size=32,
    )
    callbacks: list[Any] = [TensorBoardCallback(), Slowly()]
    trainer = Trainer(model=Classifier(), args=args, train_dataset=dataset, callbacks=callbacks)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(OUTPUT_DIR))


if __name__ == "__main__":
    main()
