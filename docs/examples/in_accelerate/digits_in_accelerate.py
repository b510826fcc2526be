"""Train a small network to read handwritten digits, in a loop of Accelerate, with three trackers.

    python docs/examples/in_accelerate/digits_in_accelerate.py
    python docs/examples/in_accelerate/digits_in_accelerate.py --resume

The loop is that of Accelerate's own examples: `prepare`, `backward`, `gather_for_metrics`, and a
checkpoint after each epoch. The data is scikit-learn's bundled digits, so nothing is downloaded.
Kill the script and resume it: each point is in each tracker once. W&B needs an account, or
`WANDB_MODE=offline`. MLflow writes to `mlflow.db` here, unless `MLFLOW_TRACKING_URI` says where.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from callback_accelerate import continue_runs, register_trackers

TRACKERS = ["callback_mlflow", "callback_tensorboard", "callback_wandb"]


def loaders(batch_size: int) -> tuple[DataLoader, DataLoader]:
    """Return the data to train with and the data to evaluate with."""
    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images / 16, dtype=torch.float32)
    data = TensorDataset(pixels, torch.tensor(labels))
    train, evaluation = random_split(data, [0.8, 0.2], torch.Generator().manual_seed(0))
    return DataLoader(train, batch_size, shuffle=True), DataLoader(evaluation, batch_size)


def evaluate(accelerator: Accelerator, model: nn.Module, batches: DataLoader) -> float:
    """Return the share of images that the model reads correctly, in all processes."""
    model.eval()
    right = total = 0
    for images, labels in batches:
        with torch.no_grad():
            read = model(images).argmax(dim=-1)
        read, labels = accelerator.gather_for_metrics((read, labels))
        right, total = right + int((read == labels).sum()), total + len(labels)
    model.train()
    return right / total


def train(options: argparse.Namespace) -> None:
    """Train, and log the loss of each step and the accuracy after each epoch."""
    register_trackers()
    accelerator = Accelerator(cpu=True, log_with=TRACKERS, project_dir=options.output_dir)
    continue_runs(accelerator)
    set_seed(options.seed)
    train_batches, eval_batches = loaders(options.batch_size)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr)
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.lr, epochs=options.epochs, steps_per_epoch=len(train_batches)
    )
    model, optimizer, train_batches, eval_batches, rates = accelerator.prepare(
        model, optimizer, train_batches, eval_batches, rates
    )
    accelerator.init_trackers("digits", config=vars(options))

    checkpoints = Path(options.output_dir, "checkpoints")
    first = 0
    if options.resume:
        newest = max(checkpoints.glob("epoch_*"), key=lambda path: int(path.name[6:]))
        accelerator.load_state(str(newest))
        first = int(newest.name[6:]) + 1
    step = first * len(train_batches)
    for epoch in range(first, options.epochs):
        for images, labels in train_batches:
            loss = nn.functional.cross_entropy(model(images), labels)
            accelerator.backward(loss)
            optimizer.step()
            rates.step()
            optimizer.zero_grad()
            step += 1
            accelerator.log({"loss": loss, "learning_rate": rates.get_last_lr()[0]}, step=step)
        accuracy = evaluate(accelerator, model, eval_batches)
        accelerator.print(f"epoch {epoch}: {accuracy:.1%}")
        accelerator.log({"eval_accuracy": accuracy, "epoch": epoch + 1}, step=step)
        accelerator.save_state(str(checkpoints / f"epoch_{epoch}"))
    accelerator.end_training()


def main() -> None:
    """Read the command line, and train."""
    parser = argparse.ArgumentParser(description="Train a small network to read digits.")
    parser.add_argument("--output-dir", default="digits_in_accelerate")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
