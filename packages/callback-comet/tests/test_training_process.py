"""What Comet records of a process, which is not always the process that trains."""

from __future__ import annotations

from pathlib import Path

import pytest
from recorded import archives_in

from callback_comet import CometCallback
from callback_contract.testing import run_python
from trainer_torch.testing import small_trainer


def train() -> None:
    """Train offline, with a delivery process."""
    callback = CometCallback(
        mode="OFFLINE", offline_directory="archives", delivery="process", flush_limit=300
    )
    small_trainer(Path("out"), callback).train()


@pytest.mark.slow
def test_a_delivery_process_does_not_record_its_own_environment_or_code(tmp_path: Path) -> None:
    variables = {"COMET_AUTO_LOG_ENV_DETAILS": "1", "COMET_AUTO_LOG_CODE": "1"}
    done = run_python(__file__, cwd=tmp_path, variables=variables)
    assert done.returncode == 0, done.stderr
    [recorded] = archives_in(tmp_path / "archives")
    assert not {"system_details", "file_name", "git_metadata"} & recorded.kinds
    [log] = (tmp_path / "out").glob("tracking/*/*.log")
    assert "log_code" in log.read_text()


if __name__ == "__main__":
    train()
