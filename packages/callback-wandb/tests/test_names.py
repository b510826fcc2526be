"""Names that W&B, or the callback, uses for something else."""

from __future__ import annotations

from pathlib import Path

import pytest
from recorded import the_run

from callback_wandb import WandbCallback
from trainer_torch.testing import At, small_trainer


def test_a_value_with_the_name_of_the_x_axis_has_a_curve_of_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = small_trainer(tmp_path / "out", WandbCallback)
    logs = {"global_step": 700.0, "_step": 701.0, "_timestamp": 702.0, "a.b": 703.0, "a/b": 704.0}
    made.add_callback(At(3, lambda: made.log(logs)))
    made.train()
    [row] = [row for row in the_run(tmp_path / "out").rows if logs["a.b"] in row.values()]
    assert row["train/global_step"] == 3
    assert set(logs.values()) <= set(row.values())
    assert any("global_step" in message for message in caplog.messages)
