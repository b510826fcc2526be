"""Loops of one's own, as users write them: `own_loops.py stop OUTPUT_DIR` under torchrun."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from callback_core import Loop, PrinterCallback, TrainerCallback, request_stop


def regression(samples: int = 32) -> tuple[nn.Module, DataLoader[Any]]:
    """Return a linear model, and shuffled batches of eight samples that it can fit."""
    torch.manual_seed(0)
    inputs = torch.randn(samples, 4)
    targets = inputs @ torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    generator = torch.Generator().manual_seed(1)
    batches = DataLoader(TensorDataset(inputs, targets), 8, shuffle=True, generator=generator)
    return nn.Linear(4, 1), batches


def train(callbacks: list[Any], args: dict[str, Any], **options: Any) -> Loop:
    """Train that model by a loop of its own, and return the loop."""
    model, batches = regression()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"model": model, "optimizer": optimizer, "train_dataloader": batches, **options}
    with Loop([*callbacks, PrinterCallback], args, **options) as loop:
        for inputs, targets in loop.steps():
            loss = mse_loss(model(inputs), targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            loop.report(loss=loss)
    return loop


class StopOn(TrainerCallback):
    """Asks to stop at a step, on one rank only."""

    def __init__(self, rank: int, step: int) -> None:
        self.rank, self.step = rank, step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask at that step."""
        if torch.distributed.get_rank() == self.rank and state.global_step == self.step:
            request_stop(control, "one rank has seen enough")


def main() -> None:
    """Train on two ranks. The second asks to stop. Each writes what it has seen."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    output_dir = Path(sys.argv[2])
    args = {"output_dir": str(output_dir), "logging_steps": 1, "save_steps": 2}
    loop = train(
        [StopOn(rank=1, step=3)],
        args,
        save=lambda directory: (directory / "saved_by").write_text(str(rank)),
        evaluate=lambda: {"loss": float(rank)},
    )
    report = {
        "steps": loop.state.global_step,
        "history": loop.state.log_history,
        "requests": [str(request) for request in loop.control.requests],
        "is_main": loop.state.is_world_process_zero,
    }
    (output_dir / f"rank{rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
