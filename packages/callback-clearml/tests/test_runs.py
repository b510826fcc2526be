"""Which task a training has in ClearML, and where it is."""

from __future__ import annotations

from pathlib import Path

from clearml_server import ClearMLServer

from callback_clearml import ClearMLCallback
from trainer_torch.testing import small_trainer


def test_a_training_whose_task_is_gone_is_delivered_in_full_to_a_new_one(
    server: ClearMLServer, tmp_path: Path
) -> None:
    callback = ClearMLCallback(delivery="inline")
    made = small_trainer(tmp_path / "out", callback)
    made.train()
    before = server.task()["id"]
    points = server.points(before)
    assert callback.run_url is not None
    assert callback.run_url.startswith(server.url)
    assert before in callback.run_url
    server.lose_tasks()
    made.evaluate(metric_key_prefix="late")
    after = server.task()["id"]
    assert after != before
    assert callback.run_id == after
    found = server.points(after)
    assert all(found[curve] == values for curve, values in points.items())


def test_a_server_that_denies_access_is_not_asked_again(
    server: ClearMLServer, tmp_path: Path
) -> None:
    server.denies = True
    callback = ClearMLCallback(flush_limit=10_000)
    small_trainer(tmp_path / "out", callback).train()
    assert callback.run_id is None
    assert server.calls.count("tasks.create") <= 1
