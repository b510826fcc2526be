"""Which experiment a training has, where it is, and how many archives it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
from comet_server import CometServer

from callback_comet import CometCallback
from trainer_torch.testing import small_trainer


def test_a_training_whose_experiment_is_gone_is_delivered_in_full_to_a_new_one(
    server: CometServer, tmp_path: Path
) -> None:
    callback = CometCallback(delivery="inline", flush_limit=60)
    made = small_trainer(tmp_path / "out", callback)
    made.train()
    before = server.only()
    assert callback.run_url is not None
    assert callback.run_url.startswith(server.url)
    server.experiments.clear()
    made.evaluate(metric_key_prefix="late")
    after = server.only()
    assert after.key != before.key
    assert callback.run_id == after.key
    assert {name for name, *_ in before.points} <= {name for name, *_ in after.points}


def test_evaluations_after_an_offline_training_leave_one_more_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMET_MODE", "OFFLINE")
    archives = tmp_path / "archives"
    callback = CometCallback(offline_directory=str(archives))
    made = small_trainer(tmp_path / "out", callback)
    made.train()
    for _ in range(3):
        made.evaluate()
    assert callback.session is not None
    callback.session.close()
    assert len([*archives.glob("*.zip")]) == 2
    assert callback.run_url is None
