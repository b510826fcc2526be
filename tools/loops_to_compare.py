"""Train the same model in one of five loops: `loops_to_compare.py LOOP [STEP]`.

`compare_loops.py` runs this in an environment that has all of them. Each loop trains on the same
batches in the same order, logs the loss of every second step, evaluates and saves after each epoch,
and sends its points to TensorBoard, MLflow and W&B. It resumes from its newest checkpoint. With a
step, it kills itself there.
"""

import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from callback_mlflow import MLflowCallback
from callback_tensorboard import TensorBoardCallback
from callback_wandb import WandbCallback

EPOCHS, BATCH, EVERY, RATE = 3, 8, 2, 0.1
OUTPUT_DIR = "out"
PATIENCE = 120
"""Seconds that a training waits, before it kills itself, until MLflow has its last point."""


class Linear(nn.Module):
    """A regression on four numbers, in the form that transformers' Trainer takes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 1)

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss and the predictions."""
        outputs = self.layer(inputs)
        return {"loss": mse_loss(outputs, labels), "logits": outputs}


def samples(number: int) -> tuple[Tensor, Tensor]:
    """Return inputs and labels of some samples."""
    inputs = torch.linspace(-1, 1, 4 * number).reshape(number, 4).sin()
    return inputs, inputs.sum(1, keepdim=True)


def batches(number: int) -> DataLoader[Any]:
    """Return batches in a fixed order."""
    return DataLoader(TensorDataset(*samples(number)), BATCH)


def trackers() -> list[Any]:
    """Return the callbacks of the three trackers."""
    return [TensorBoardCallback(), MLflowCallback(), WandbCallback()]


def mean_loss(model: nn.Module) -> float:
    """Return the loss of the evaluation."""
    with torch.no_grad():
        losses = [model(inputs, labels)["loss"] for inputs, labels in batches(16)]
    return float(torch.stack(losses).mean())


def end_step(step: int) -> None:
    """Kill this process if the update step is the one for that, once MLflow has the last point."""
    if sys.argv[2:] != [str(step)]:
        return
    deadline = time.monotonic() + PATIENCE
    last = step // EVERY * EVERY
    query = "SELECT count(*) FROM metrics WHERE key = 'train/loss' AND step = ?"
    while time.monotonic() < deadline:
        with suppress(sqlite3.Error), closing(sqlite3.connect("mlflow.db")) as database:
            if database.execute(query, (last,)).fetchone()[0]:
                break
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGKILL)


def by_hand() -> None:
    """Train in a loop of its own."""
    from callback_core import Loop, get_last_checkpoint

    model = Linear()
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    args = {"output_dir": OUTPUT_DIR, "num_train_epochs": EPOCHS, "logging_steps": EVERY}
    args |= {"save_strategy": "epoch", "resume_from_checkpoint": get_last_checkpoint(OUTPUT_DIR)}
    loop = Loop(
        trackers(),
        args,
        model=model,
        optimizer=optimizer,
        train_dataloader=batches(32),
        evaluate=lambda: {"loss": mean_loss(model)},
        save=lambda directory: torch.save(model.state_dict(), directory / "model.pt"),
        load=lambda directory: model.load_state_dict(torch.load(directory / "model.pt")),
    )
    with loop:
        for inputs, labels in loop.steps():
            loss = model(inputs, labels)["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            loop.report(loss=loss)
            end_step(loop.state.global_step + 1)


def by_trainer(module: Any) -> None:
    """Train with the Trainer of a module, ours or transformers'."""
    from callback_core import get_last_checkpoint

    class Killer(module.TrainerCallback):
        """Kills the process at the end of a step."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            end_step(state.global_step)

    class Unshuffled(module.Trainer):
        """Yields the samples in their order."""

        def get_train_dataloader(self) -> Any:
            rows = [
                {"inputs": one, "labels": label} for one, label in zip(*samples(32), strict=True)
            ]
            return DataLoader(rows, BATCH)

    model = Linear()
    args = module.TrainingArguments(
        output_dir=OUTPUT_DIR,
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=BATCH,
        logging_steps=EVERY,
        eval_strategy="epoch",
        save_strategy="epoch",
        max_grad_norm=0.0,
        report_to="none",
        use_cpu=True,
    )
    rows = [{"inputs": one, "labels": label} for one, label in zip(*samples(16), strict=True)]
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    Unshuffled(
        model=model,
        args=args,
        train_dataset=rows,
        eval_dataset=rows,
        optimizers=(optimizer, constant),
        callbacks=[*trackers(), Killer()],
    ).train(resume_from_checkpoint=get_last_checkpoint(OUTPUT_DIR))


def by_ours() -> None:
    """Train with this repository's Trainer."""
    import trainer_torch

    by_trainer(trainer_torch)


def by_transformers() -> None:
    """Train with transformers' Trainer."""
    import transformers

    by_trainer(transformers)


def by_accelerate() -> None:
    """Train in a script of Accelerate."""
    from accelerate import Accelerator

    from callback_accelerate import continue_runs, make_trackers

    made = make_trackers(trackers(), OUTPUT_DIR)
    accelerator = Accelerator(cpu=True, log_with=made, project_dir=OUTPUT_DIR)
    continue_runs(accelerator)
    accelerator.init_trackers("loops")
    model = Linear()
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    model, optimizer = accelerator.prepare(model, optimizer)
    saved = [epoch for epoch in range(EPOCHS) if os.path.exists(f"{OUTPUT_DIR}/epoch-{epoch}")]
    if saved:
        accelerator.load_state(f"{OUTPUT_DIR}/epoch-{saved[-1]}")
    losses: list[Tensor] = []
    step = len(saved) * len(batches(32))
    for epoch in range(len(saved), EPOCHS):
        for inputs, labels in batches(32):
            loss = model(inputs, labels)["loss"]
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            step, losses = step + 1, [*losses, loss.detach()]
            if step % EVERY == 0:
                accelerator.log({"loss": torch.stack(losses).mean()}, step=step)
                losses = []
            end_step(step)
        accelerator.log({"eval_loss": mean_loss(model)}, step=step)
        accelerator.save_state(f"{OUTPUT_DIR}/epoch-{epoch}")
    accelerator.end_training()


def by_lightning() -> None:
    """Train with Lightning's trainer."""
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

    from callback_lightning import LightningCallbacks

    class Module(LightningModule):
        """The model, and what belongs to its training."""

        def __init__(self) -> None:
            super().__init__()
            self.model, self.losses = Linear(), []

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            """Log the mean loss of every second step."""
            loss: Tensor = self.model(*batch)["loss"]
            self.losses.append(loss.detach())
            if len(self.losses) == EVERY:
                self.log("train_loss", torch.stack(self.losses).mean())
                self.losses = []
            return loss

        def on_train_batch_end(self, *args: Any) -> None:
            """Kill the process at the end of a step."""
            end_step(self.trainer.global_step)

        def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
            """Log the loss of the evaluation."""
            self.log("val_loss", self.model(*batch)["loss"])

        def configure_optimizers(self) -> Any:
            """Return the optimizer."""
            return torch.optim.SGD(self.parameters(), RATE)

        def train_dataloader(self) -> Any:
            """Return the batches of the training."""
            return batches(32)

        def val_dataloader(self) -> Any:
            """Return the batches of the evaluation."""
            return batches(16)

    Trainer(
        default_root_dir=OUTPUT_DIR,
        max_epochs=EPOCHS,
        log_every_n_steps=EVERY,
        accelerator="cpu",
        callbacks=[
            ModelCheckpoint(dirpath=OUTPUT_DIR, save_last=True),
            LightningCallbacks(trackers(), {"output_dir": OUTPUT_DIR}),
        ],
        logger=False,
        enable_progress_bar=False,
    ).fit(Module(), ckpt_path="last")


LOOPS: dict[str, Callable[[], None]] = {
    "a loop by hand": by_hand,
    "trainer-torch": by_ours,
    "transformers": by_transformers,
    "Lightning": by_lightning,
    "Accelerate": by_accelerate,
}


if __name__ == "__main__":
    LOOPS[sys.argv[1]]()
