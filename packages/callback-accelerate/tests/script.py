"""A script of Accelerate: `script.py FOLDER HOW`, which tests run in a process of its own.

HOW is `end`, `no_end`, `raise` or `interrupt`; the last two happen at step 7.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from recording import FileCallback

from callback_accelerate import make_trackers


def main(folder: Path, how: str) -> None:
    """Train a line for 10 steps."""
    logging.basicConfig()
    trackers = make_trackers([FileCallback(folder / "file")], str(folder / "out"))
    accelerator = Accelerator(log_with=trackers, project_dir=str(folder), cpu=True)
    accelerator.init_trackers("lines", {"lr": 0.1})
    x = torch.linspace(-1, 1, 64).reshape(-1, 1)
    model = torch.nn.Linear(1, 1)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    for step in range(10):
        loss = torch.nn.functional.mse_loss(model(x), 3 * x)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        accelerator.log({"loss": loss}, step=step)
        if step == 7 and how == "raise":
            raise ValueError("broken")
        if step == 7 and how == "interrupt":
            raise KeyboardInterrupt
    if how != "no_end":
        accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
