"""Tasks that the tests run in separate processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
from flytekit import current_context, task

from callback_contract.testing import wait_until
from callback_flyte import FlyteCallback, restored_checkpoint
from trainer_torch.testing import At, small_trainer


def train(outputs: str, kept: str, step: int, how: str, resume_from: Path | None) -> None:
    """Train to the end, or until an interruption at `step`; save the weights in `outputs`."""

    def end() -> None:
        if how == "raises":
            raise RuntimeError("the machine was taken away")
        newest = Path(kept, "newest.json")
        wait_until(lambda: newest.exists() and "checkpoint-6" in newest.read_text("utf-8"))
        os.kill(os.getpid(), signal.SIGKILL)

    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 1}
    trainer = small_trainer(Path(outputs, "run"), FlyteCallback(), At(step, end), **saving)
    trainer.train(resume_from_checkpoint=resume_from)
    torch.save(trainer.model.state_dict(), Path(outputs, "weights.pt"))


@task(enable_deck=True)
def as_documented(outputs: str, kept: str, step: int, how: str) -> None:
    cp = current_context().checkpoint
    train(outputs, kept, step, how, resume_from=cp.restore())


@task(enable_deck=True)
def with_restored_checkpoint(outputs: str, kept: str, step: int, how: str) -> None:
    train(outputs, kept, step, how, resume_from=restored_checkpoint())
