"""Without an SDK that captures TensorBoard's writers. W&B's and ClearML's packages test those."""

from __future__ import annotations

from pathlib import Path

from callback_contract.testing import run_python

TRAINING = """
import logging
from pathlib import Path
from callback_tensorboard import TensorBoardCallback
from tensorboard_for_tests import Run
logging.basicConfig(format="WARNING %(message)s")
run = Run(TensorBoardCallback(), Path("out"))
run.begin()
run.log(1, loss=0.5)
run.end()
"""


def test_where_nothing_captures_nothing_is_told(tmp_path: Path) -> None:
    done = run_python("-c", TRAINING, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "SummaryWriter" not in done.stderr
