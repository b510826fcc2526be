"""Facts about a process: they are about the training, whoever delivers."""

from __future__ import annotations

from pathlib import Path

import pytest

from callback_contract.testing import run_python

TRAINING = """
import sys
from pathlib import Path
from callback_wandb import WandbCallback
from trainer_torch.testing import small_trainer
small_trainer(Path(sys.argv[1]), WandbCallback(delivery="process", flush_limit=300)).train()
"""


@pytest.mark.slow
def test_a_delivery_process_records_the_program_and_arguments_of_the_training(
    tmp_path: Path,
) -> None:
    program = tmp_path / "my_training.py"
    program.write_text(TRAINING)
    done = run_python(str(program), str(tmp_path / "out"), "--my-flag")
    assert done.returncode == 0, done.stderr
    [file] = (tmp_path / "out").glob("wandb/offline-run-*/run-*.wandb")
    kept = file.read_bytes()
    assert b"my_training.py" in kept
    assert b"--my-flag" in kept
    assert b"callback_core.tracking.replay" not in kept
