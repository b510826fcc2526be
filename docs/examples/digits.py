"""Train a small network to read handwritten digits, on the CPU, in less than a minute.

The data is scikit-learn's bundled digits, 1,797 real images of 8 by 8 pixels; nothing is
downloaded.

    tools/pants run docs/examples/digits.py
    tools/pants run docs/examples/digits.py -- --resume
    tools/pants run docs/examples/digits.py -- --show
    TRACKER=mlflow tools/pants run docs/examples/digits.py

Most of the code below `make_trainer` is for the command line. `look.py` has what depends on the
tracker.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path

import look
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from tqdm.contrib.logging import logging_redirect_tqdm

from callback_core import EarlyStoppingCallback, NotConfigured
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
    """Return the training, evaluation and test data, split in the same way at every call."""
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
    """Return the loss and the scores of a batch."""
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
    """Return a trainer of a new `DigitNet`, with the same weights at every call."""
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


def positive_number(text: str) -> float:
    """Return a number above zero. argparse shows the name of this function in errors."""
    number = float(text)
    if not 0 < number < math.inf:
        raise ValueError
    return number


def positive_whole_number(text: str) -> int:
    """Return a whole number above zero."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description="Train a small network to read handwritten digits."
    )
    parser.add_argument(
        "--output-dir",
        type=Path,
        default=Path("digits_output"),
        help="the directory of the run (default: %(default)s)",
    )
    parser.add_argument(
        "--epochs",
        type=positive_number,
        default=20,
        help="the maximum number of epochs (default: %(default)s)",
    )
    parser.add_argument(
        "--max-steps",
        type=positive_whole_number,
        help="stop after this many update steps (default: after the last epoch)",
    )
    parser.add_argument(
        "--report-to",
        nargs="+",
        default=["all"],
        metavar="TRACKER",
        help="names of trackers, or all (every installed one), or none (default: all)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the newest checkpoint (default: start from the beginning)",
    )
    parser.add_argument(
        "--show",
        action="store_true",
        help="do not train, but show the curves of --output-dir until Ctrl-C",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and print the accuracy on the test data."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    directories = (options.output_dir, *options.output_dir.parents)
    if (there := next(filter(Path.exists, directories))).is_file():
        parser.error(f"--output-dir: {there} is a file")
    if problem := look.find_problem(options.report_to):
        parser.error(f"--report-to: {problem}")
    if options.show:
        if problem := look.show(options.report_to, options.output_dir):
            parser.error(f"--show: {problem}")
        return

    look.keep_in(options.output_dir)
    # At INFO, the trainer logs what it resumes from and what it finds in the output directory.
    logging.basicConfig(format="%(message)s")
    logging.getLogger("trainer_torch").setLevel(logging.INFO)
    # The network is so small that several threads would mostly wait for each other.
    torch.set_num_threads(1)
    begun = time.time()
    try:
        trainer = make_trainer(
            options.output_dir, options.epochs, options.max_steps or -1, options.report_to
        )
    except (NotConfigured, ValueError) as error:  # wrong settings of a tracker
        parser.error(str(error))
    try:
        with logging_redirect_tqdm():  # do not write logs into the progress bar
            trainer.train(resume_from_checkpoint=options.resume)
    except FileNotFoundError:
        if not options.resume or trainer.state.max_steps:  # it found a checkpoint
            raise
        parser.error(
            f"--resume: {options.output_dir} has no complete checkpoint; "
            "leave out --resume to start from the beginning"
        )
    _, _, test = digits()
    metrics = trainer.predict(test).metrics
    print(f"Test accuracy: {metrics['test_accuracy']:.1%} of {len(test)} images")
    for line in look.where_to_look(
        trainer.callback_handler.callbacks, options.output_dir, since=begun
    ):
        print(line)


if __name__ == "__main__":
    main()
