"""Counts the collective operations of a training in two processes, with torch's profiler.

Run as `torchrun ... collective_cases.py counts DIRECTORY`, like `distributed_cases.py`.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from distributed_cases import RANK
from small import trainer

from callback_core import TrainerCallback, TrainerControl

MANY = 20


class Asks(TrainerCallback):
    """Asks in every process, at every step, for what the loop would do anyway."""

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        control.should_log = control.should_log or args.logging_strategy == "steps"


def count(out: Path, steps: int, callbacks: int = 0, **changed: Any) -> Counter[str]:
    """Return how often a training of so many steps, in one epoch, called each collective."""
    classes = [type(f"Asks{number}", (Asks,), {}) for number in range(callbacks)]
    strategies = {"logging_strategy": "no", "save_strategy": "no", "num_train_epochs": 1}
    args = {**strategies, "per_device_train_batch_size": 1, "max_steps": steps, **changed}
    training = trainer(out, *[one() for one in classes], **args)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True
    ) as profiler:
        training.train()
    names = [event.name for event in profiler.events()]
    return Counter(name.removeprefix("c10d::") for name in names if name.startswith("c10d::"))


def counts(out: Path) -> dict[str, dict[str, int]]:
    """Return the collectives of one step, with few and many callbacks, and of what may follow."""
    kinds: dict[str, dict[str, Any]] = {
        "step": {},
        "step of many callbacks": {"callbacks": MANY},
        "logged step": {"logging_strategy": "steps", "logging_steps": 1},
        "logged step of many callbacks": {
            "callbacks": MANY,
            **{"logging_strategy": "steps", "logging_steps": 1},
        },
        "saved step": {"save_strategy": "steps", "save_steps": 1},
        "evaluated step": {"eval_strategy": "steps", "eval_steps": 1},
    }
    found: dict[str, dict[str, int]] = {}
    for kind, changed in kinds.items():
        few, more = count(out / kind / "2", 2, **changed), count(out / kind / "6", 6, **changed)
        of_steps = {name: more[name] - few[name] for name in more}
        assert all(calls % 4 == 0 for calls in of_steps.values()), of_steps
        found[kind] = {name: calls // 4 for name, calls in of_steps.items() if calls}
    return found


if __name__ == "__main__":
    directory = Path(sys.argv[2])
    report = counts(directory)
    (directory / f"rank{RANK}.json").write_text(json.dumps(report))
