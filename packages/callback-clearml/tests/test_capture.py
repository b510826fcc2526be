"""ClearML's capture of TensorBoard beside `TensorBoardCallback`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
from clearml import Task

from callback_contract.testing import run_python
from callback_tensorboard import TensorBoardCallback
from trainer_torch.testing import small_trainer


def train(given: bool) -> None:
    """Train twice while ClearML captures, in a process of its own."""
    from torch.utils.tensorboard import SummaryWriter

    logging.basicConfig(format="WARNING %(message)s")
    Task.init("mine", "outer", auto_resource_monitoring=False, auto_connect_streams=False)
    writer = SummaryWriter("given") if given else None  # type: ignore[no-untyped-call]
    trainer = small_trainer(Path("out"), TensorBoardCallback(writer))
    trainer.train()
    trainer.train()
    if writer is not None:
        writer.close()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(("writer", "times"), [("given", 0), ("none", 1)])
def test_a_capture_that_sees_nothing_of_the_training_is_told_once(
    tmp_path: Path, writer: str, times: int
) -> None:
    done = run_python(
        __file__,
        writer,
        cwd=tmp_path,
        variables={"CLEARML_OFFLINE_MODE": "1", "CLEARML_CACHE_DIR": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "SummaryWriter" in line]
    assert len(told) == times
    assert all("clearml" in line for line in told)


if __name__ == "__main__":
    train(sys.argv[1] == "given")
