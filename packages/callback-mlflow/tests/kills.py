"""Repeatedly kills and resumes trainings: kills.py URI FOLDER KILLS SEED.

Each attempt is a fork of this process, which has imported everything. Otherwise most kills would
hit seconds of imports, and prove nothing. The program prints a line of JSON for each training: its
experiment, the number of kills, and the values that it logged. The first training is not killed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import mlflow  # noqa: F401  (imported once here, not in each attempt)
import torch

from callback_core import TrainerCallback
from callback_mlflow import MLflowCallback
from trainer_torch.testing import SmallNet, logged_points, small_trainer


class Slow(TrainerCallback):
    """Slows down each step."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        time.sleep(self.seconds)


def run_attempt(uri: str, experiment: str, output_dir: Path) -> None:
    """Train to the end, from the newest checkpoint if there is one, and write the logs."""
    callback = MLflowCallback(tracking_uri=uri, experiment_name=experiment, flush_limit=60)
    made = small_trainer(
        output_dir,
        callback,
        Slow(0.02),
        num_train_epochs=10,
        eval_strategy="steps",  # "epoch" evaluates after the last checkpoint
        eval_steps=4,
        save_strategy="steps",
        save_steps=5,
        save_total_limit=2,
    )
    made.train(resume_from_checkpoint=any(output_dir.glob("checkpoint-*")))
    logged = [[*key, value] for key, value in logged_points(made).items()]
    (output_dir / "logged.json").write_text(json.dumps(logged))


def main(uri: str, folder: Path, kills: int, seed: int) -> None:
    """Train until there were `kills` kills, each at a random moment."""
    torch.set_num_threads(1)
    torch.optim.AdamW(SmallNet().parameters()).step()  # imports hundreds of torch modules
    dice = random.Random(seed)
    whole = 0.0  # seconds of a training that is not killed
    number = 0
    while number == 0 or kills > 0:
        experiment, killed = f"killed-{number}", 0
        output_dir = folder / experiment
        output_dir.mkdir()
        while not (output_dir / "logged.json").exists():
            begun = time.monotonic()
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    with (output_dir / "output.txt").open("a") as output:
                        os.dup2(output.fileno(), 1)
                        os.dup2(output.fileno(), 2)
                        run_attempt(uri, experiment, output_dir)
                    status = 0
                finally:
                    os._exit(status)
            if number and kills:
                time.sleep(dice.uniform(0.0, 0.8 * whole))
                os.kill(child, signal.SIGKILL)
            _, code = os.waitpid(child, 0)
            if os.WIFSIGNALED(code):
                kills, killed = kills - 1, killed + 1
            elif code:
                sys.exit((output_dir / "output.txt").read_text())
            whole = whole or time.monotonic() - begun
        logged = json.loads((output_dir / "logged.json").read_text())
        print(json.dumps({"experiment": experiment, "killed": killed, "logged": logged}))
        number += 1


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
