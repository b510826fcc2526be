"""Count the trainings with a `TimeLimit` that end before they are killed.

    python tools/bench/time_limit.py [--check]

Twenty trainings have a limit of ten seconds, after which a signal kills them, as a scheduler would.
Their steps, evaluations and saves take random times. The target is that all of them end by
themselves, with a complete checkpoint of their last step. One second is reserved for the first
evaluation and the first save, which nobody can know.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from table import Targets, checks, print_table

LIMIT: Final = 10.0
TRAININGS: Final = 20
KILLED: Final = "killed"
UNSAVED: Final = "no checkpoint"


def train(directory: str, seed: int) -> None:
    """Train until the limit."""
    import torch

    from callback_core import TimeLimit, TrainerCallback
    from trainer_torch import Trainer, TrainingArguments

    draw = random.Random(seed)
    means = {"step": draw.uniform(0.01, 0.3), "other": draw.uniform(0.1, 1.0)}

    class Slow(TrainerCallback):
        begun = 0.0

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            signal.setitimer(signal.ITIMER_REAL, LIMIT)
            self.begun = time.perf_counter()

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            time.sleep(means["step"] * draw.uniform(0.5, 1.5))

        def on_prediction_step(self, *args: Any, **kwargs: Any) -> None:
            time.sleep(means["other"] * draw.uniform(0.5, 1.5))

    class SlowToSave(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": self.layer(x).square().mean()}

        def state_dict(self, *args: Any, **kwargs: Any) -> Any:
            time.sleep(means["other"] / 3 * draw.uniform(0.5, 1.5))
            return super().state_dict(*args, **kwargs)

    data = [{"x": torch.ones(2)}] * 8
    slow = Slow()
    strategy = draw.choice(["no", "steps", "epoch"])
    args = TrainingArguments(
        directory,
        max_steps=10**6,
        per_device_train_batch_size=draw.choice([1, 8]),
        eval_strategy=strategy,
        eval_steps=7,
        save_strategy=draw.choice(["no", "steps", "epoch"]),
        save_steps=7,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(
        SlowToSave(),
        args,
        train_dataset=data,  # type: ignore[arg-type]
        eval_dataset=data,  # type: ignore[arg-type]
        callbacks=[slow, TimeLimit(LIMIT, reserve=1.0)],
    )
    trainer.train()
    taken = time.perf_counter() - slow.begun
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(f"{taken:.2f}", trainer.state.global_step)


def outcome_of(seed: int) -> tuple[str, str, str]:
    """Return how a training ended: its number, its seconds, and its last step."""
    with TemporaryDirectory() as directory:
        command = [sys.executable, __file__, "train", directory, str(seed)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == -signal.SIGALRM:
            return str(seed), "", KILLED
        if done.returncode:
            raise SystemExit(done.stderr)
        taken, step = done.stdout.split()[-2:]
        saved = (Path(directory) / f"checkpoint-{step}" / "manifest.json").exists()
        return str(seed), f"{taken} s", f"step {step}" if saved else UNSAVED


def main() -> None:
    """Run the trainings, and print when they ended."""
    if len(sys.argv) == 4:
        train(sys.argv[2], int(sys.argv[3]))
        return
    checks()  # reject a wrong command line before the measurement
    with ThreadPoolExecutor(4) as pool:  # they sleep most of the time
        rows = list(pool.map(outcome_of, range(TRAININGS)))
    in_time = sum(outcome not in (KILLED, UNSAVED) for _, _, outcome in rows)
    print_table(f"Trainings with a limit of {LIMIT:g} s", ("training", "ended after", "at"), rows)
    targets = Targets()
    targets.note(f"{in_time} of {TRAININGS} end in time", in_time == TRAININGS)
    targets.leave()


if __name__ == "__main__":
    main()
