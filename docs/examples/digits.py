"""Train a small network to read handwritten digits, on the CPU, in less than a minute.

The data is scikit-learn's bundled digits, 1,797 real images of 8 by 8 pixels; nothing is
downloaded.

    tools/pants run docs/examples/digits.py
    tools/pants run docs/examples/digits.py -- --resume
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from callback_core import EarlyStoppingCallback
from trainer_torch import EvalPrediction, Trainer, TrainingArguments


class DigitNet(nn.Module):
    """A small convolutional network: images (batch, 1, 8, 8) to scores (batch, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(32 * 4 * 4, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return a score for each digit."""
        return self.layers(images)


def digits() -> tuple[TensorDataset, TensorDataset, TensorDataset]:
    """Return the training, evaluation and test data, in the same parts at every call."""
    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    targets = torch.tensor(labels)
    rest, test = train_test_split(
        np.arange(len(targets)), test_size=360, random_state=0, stratify=targets
    )
    train, evaluation = train_test_split(
        rest, test_size=240, random_state=0, stratify=targets[rest]
    )
    parts = [TensorDataset(pixels[part], targets[part]) for part in (train, evaluation, test)]
    return parts[0], parts[1], parts[2]


def compute_loss(model: nn.Module, batch: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the loss of a batch, and the scores."""
    images, labels = batch
    scores = model(images)
    return nn.functional.cross_entropy(scores, labels), scores


def accuracy(evaluated: EvalPrediction) -> dict[str, float]:
    """Return the share of images whose highest score is that of their digit."""
    return {
        "accuracy": float((evaluated.predictions.argmax(axis=-1) == evaluated.label_ids).mean())
    }


def make_trainer(
    output_dir: Path, epochs: float = 20, max_steps: int = -1, report_to: str | list[str] = "all"
) -> Trainer:
    """Return a trainer of a `DigitNet` that is the same at every call."""
    train, evaluation, _ = digits()
    torch.manual_seed(0)
    return Trainer(
        DigitNet(),
        TrainingArguments(
            output_dir=str(output_dir),
            num_train_epochs=epochs,
            max_steps=max_steps,
            per_device_train_batch_size=32,
            per_device_eval_batch_size=120,
            learning_rate=3e-3,
            lr_scheduler_type="cosine",
            warmup_steps=20,
            logging_steps=20,
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=2,
            load_best_model_at_end=True,
            metric_for_best_model="accuracy",
            report_to=report_to,
        ),
        train_dataset=train,
        eval_dataset=evaluation,
        compute_loss=compute_loss,
        compute_metrics=accuracy,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=5)],
    )


def main() -> None:
    """Train, and say how many digits of the test data are read right."""
    parser = argparse.ArgumentParser(
        description="Train a small network to read handwritten digits."
    )
    parser.add_argument(
        "--output-dir", type=Path, default=Path("digits_output"), help="where the run is kept"
    )
    parser.add_argument(
        "--epochs", type=float, default=20, help="how often to go through the data, at most"
    )
    parser.add_argument("--max-steps", type=int, default=-1, help="stop after so many update steps")
    parser.add_argument(
        "--report-to", nargs="+", default="all", help="trackers by name, or all, or none"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    options = parser.parse_args()

    trainer = make_trainer(options.output_dir, options.epochs, options.max_steps, options.report_to)
    trainer.train(resume_from_checkpoint=options.resume)
    _, _, test = digits()
    metrics = trainer.predict(test).metrics
    print(f"Test accuracy: {metrics['test_accuracy']:.1%} of {len(test)} images")
    runs = options.output_dir / "runs"
    if runs.is_dir():
        print(f"Show the curves: tensorboard --logdir {shlex.quote(str(runs))}")


if __name__ == "__main__":
    main()
