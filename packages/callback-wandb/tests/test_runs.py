"""Which run a training has in W&B, where it is, and how many folders it leaves offline."""

from __future__ import annotations

from pathlib import Path

from wandb_server import WandbServer

from callback_wandb import WandbCallback
from trainer_torch.testing import small_trainer


def test_a_training_whose_run_is_gone_is_delivered_in_full_to_a_new_one(
    server: WandbServer, tmp_path: Path
) -> None:
    callback = WandbCallback(delivery="inline")
    made = small_trainer(tmp_path / "out", callback)
    made.train()
    [before] = server.runs.values()
    assert callback.run_url is not None
    assert before.id in callback.run_url
    server.runs.clear()
    made.evaluate(metric_key_prefix="late")
    [after] = server.runs.values()
    assert after.id != before.id
    assert callback.run_id is not None
    assert callback.run_id.endswith(after.id)
    assert after.points("train/loss") == before.points("train/loss")


def test_evaluations_around_an_offline_training_leave_few_folders(tmp_path: Path) -> None:
    callback = WandbCallback()
    made = small_trainer(tmp_path / "out", callback)
    for _ in range(2):
        made.evaluate()
    made.train()
    for _ in range(3):
        made.evaluate()
    assert callback.session is not None
    callback.session.close()
    folders = [*(tmp_path / "out" / "wandb").glob("offline-run-*")]
    assert len(folders) == 2
    assert len({folder.name.partition("-")[2].rpartition("-")[2] for folder in folders}) <= 2
    assert callback.run_url is None
