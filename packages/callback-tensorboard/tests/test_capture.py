"""SDKs that capture TensorBoard's writers. Each test runs where the SDK is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from callback_contract.testing import run_python

TRAINING = """
import logging, sys
from pathlib import Path
import torch
from torch.utils.tensorboard import SummaryWriter
from callback_tensorboard import TensorBoardCallback
from tensorboard_for_tests import Run
logging.basicConfig(format="WARNING %(message)s")
started = start()
writer = SummaryWriter("given") if sys.argv[1] == "given" else None
run = Run(TensorBoardCallback(writer), Path("out"))
for _ in range(2):
    run.begin()
    run.log(1, loss=0.5)
    run.end()
if writer is not None:
    writer.close()
"""

START = {
    "wandb": """
import wandb
def start():
    return wandb.init(mode="offline", sync_tensorboard=True, settings={"silent": True})
""",
    "clearml": """
from clearml import Task
def start():
    return Task.init("mine", "outer", auto_resource_monitoring=False, auto_connect_streams=False)
""",
}


@pytest.mark.parametrize("writer", ["given", "none"])
@pytest.mark.parametrize("sdk", START)
def test_an_sdk_that_sees_nothing_of_the_training_is_told_once(
    tmp_path: Path, sdk: str, writer: str
) -> None:
    pytest.importorskip(sdk)
    variables = {"CLEARML_OFFLINE_MODE": "1", "CLEARML_CACHE_DIR": str(tmp_path / "cache")}
    done = run_python("-c", START[sdk] + TRAINING, writer, cwd=tmp_path, variables=variables)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "SummaryWriter" in line]
    assert len(told) == (writer == "none")
    assert all(sdk in line for line in told)


def test_without_such_an_sdk_nothing_is_told(tmp_path: Path) -> None:
    code = "def start(): pass\n" + TRAINING
    done = run_python("-c", code, "none", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "SummaryWriter" not in done.stderr
