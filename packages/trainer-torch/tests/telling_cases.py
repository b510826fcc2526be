"""What two processes report of tokens, speed, averages and limits.

Run as `distributed_cases.py`, by `launch`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from distributed_cases import PATIENCE, RANK, main, weights
from resuming import EVERY_STEP, whole_and_resumed
from small import data, logged, trainer
from test_averaging import Normed
from test_usage import language

from callback_core import TimeLimit
from trainer_torch import ProfilerCallback, ThroughputCallback, Trainer, WeightAveragingCallback

USUAL: dict[str, Any] = {"per_device_train_batch_size": 2, "ddp_timeout": PATIENCE, **EVERY_STEP}


def counted(out: Path, *callbacks: Any) -> Trainer:
    return language(
        out,
        ThroughputCallback(peak_tflops=1.0),
        *callbacks,
        include_num_input_tokens_seen="non_padding",
        **USUAL,
    )


def tokens(out: Path) -> dict[str, Any]:
    whole, resumed = whole_and_resumed(counted, out)
    return {
        "whole": logged(whole, "num_input_tokens_seen"),
        "resumed": logged(resumed, "num_input_tokens_seen"),
        "flos": [whole.state.total_flos, resumed.state.total_flos],
        "speed": [logged(whole, name) for name in ("tokens_per_second", "tflops", "mfu")],
    }


def averaged(out: Path, *callbacks: Any) -> Trainer:
    given = {"model": Normed(), "callbacks": (WeightAveragingCallback(), *callbacks)}
    return trainer(out, given=given, eval_strategy="steps", eval_steps=1, **USUAL)


def averages(out: Path) -> dict[str, Any]:
    whole, resumed = whole_and_resumed(averaged, out)
    return {
        "whole": [weights(whole), logged(whole, "eval_loss"), logged(whole, "loss")],
        "resumed": [weights(resumed), logged(resumed, "eval_loss"), logged(resumed, "loss")],
        "again": [whole.evaluate()["eval_loss"]],
    }


class Ticks:
    """A clock that moves by a second at each look, in one process only."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += RANK
        return self.now


def limited(out: Path) -> dict[str, Any]:
    limit = TimeLimit(12, reserve=0, clock=Ticks())
    trained = trainer(out, limit, ddp_timeout=PATIENCE, eval_strategy="epoch")
    trained.train()
    return {
        "step": trained.state.global_step,
        "saved": sorted(path.name for path in out.glob("checkpoint-*")),
        "evaluations": len(logged(trained, "eval_loss")),
    }


def profiled(out: Path) -> list[str]:
    one, each = ProfilerCallback(0, 0, 1), ProfilerCallback(2, 0, 1, all_ranks=True)
    trainer(out, one, ddp_timeout=PATIENCE).train()
    trainer(out, each, ddp_timeout=PATIENCE).train()
    return [path.name for path in (*one.traces, *each.traces)]


def telling(out: Path) -> dict[str, Any]:
    assert len(data()) == 20
    torch.manual_seed(0)
    return {
        "tokens": tokens(out / "tokens"),
        "averages": averages(out / "averages"),
        "limited": limited(out / "limited"),
        "profiled": profiled(out / "profiled"),
    }


if __name__ == "__main__":
    main({"telling": telling})
