"""Facts about a process: they are about the training, whoever delivers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from callback_contract.testing import run_python
from callback_wandb import WandbCallback
from trainer_torch.testing import small_trainer


def train(output_dir: str) -> None:
    """Train offline, with a delivery process."""
    small_trainer(Path(output_dir), WandbCallback(delivery="process", flush_limit=300)).train()


@pytest.mark.slow
def test_a_delivery_process_records_the_program_and_arguments_of_the_training(
    tmp_path: Path,
) -> None:
    done = run_python(__file__, str(tmp_path / "out"), "--my-flag")
    assert done.returncode == 0, done.stderr
    [file] = (tmp_path / "out").glob("wandb/offline-run-*/run-*.wandb")
    kept = file.read_bytes()
    assert Path(__file__).name.encode() in kept
    assert b"--my-flag" in kept
    assert b"callback_core.tracking.replay" not in kept


if __name__ == "__main__":
    train(sys.argv[1])
