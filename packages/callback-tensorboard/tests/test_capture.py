"""Without an SDK that captures TensorBoard's writers. W&B's and ClearML's packages test those."""

from __future__ import annotations

import logging
from pathlib import Path

from tensorboard_for_tests import Run

from callback_contract.testing import run_python
from callback_tensorboard import TensorBoardCallback


def train() -> None:
    """Train in a process that has imported no such SDK."""
    logging.basicConfig(format="WARNING %(message)s")
    run = Run(TensorBoardCallback(), Path("out"))
    run.begin()
    run.log(1, loss=0.5)
    run.end()


def test_where_nothing_captures_nothing_is_told(tmp_path: Path) -> None:
    done = run_python(__file__, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "SummaryWriter" not in done.stderr


if __name__ == "__main__":
    train()
