"""Checkpoints in an S3 store that is slow, hangs, or does not allow deletion."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attempts import attempt
from s3_server import BUCKET, S3Server
from s3fs import S3FileSystem

from callback_contract.testing import wait_until
from callback_flyte import FlyteCallback, restored_checkpoint
from trainer_torch.testing import At, small_trainer

SAVING: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 1}
STORE = f"s3://{BUCKET}/task"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with S3Server() as server:
        for name, value in server.variables().items():
            monkeypatch.setenv(name, value)
        yield server
        S3FileSystem.clear_instance_cache()  # closes the connections
        gc.collect()


def kept(server: S3Server, number: int) -> dict[str, bytes]:
    """Return the stored files of an attempt, by relative path."""
    place = f"task/checkpoints-{number}/"
    return {k[len(place) :]: v for k, v in server.objects.items() if k.startswith(place)}


def files_in(folder: Path, name: str) -> dict[str, bytes]:
    return {f"{name}/{path.name}": path.read_bytes() for path in (folder / name).iterdir()}


def test_a_retry_finds_the_newest_checkpoint_and_no_other(tmp_path: Path, server: S3Server) -> None:
    with attempt(tmp_path, 1, store=STORE):
        small_trainer(tmp_path / "run", FlyteCallback(), **SAVING).train()
        found = kept(server, 1)
        assert found.pop("newest.json")
        assert found == files_in(tmp_path / "run", "checkpoint-12")
    with attempt(tmp_path, 2, store=STORE):
        restored = restored_checkpoint()
        assert restored is not None
        assert files_in(restored.parent, "checkpoint-12") == found
    with attempt(tmp_path, 4, store=STORE):  # the third stored nothing
        assert restored_checkpoint() is None


def test_a_store_without_deletion_is_reported_once_and_the_newest_is_restored(
    tmp_path: Path, server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.may_delete = False
    with attempt(tmp_path, 1, store=STORE):
        small_trainer(
            tmp_path / "run",
            FlyteCallback(),
            At(3, lambda: wait_for_first_checkpoint(server)),
            **SAVING,
        ).train()
    assert [record.name for record in caplog.records].count("callback_flyte.store") == 1
    assert {name.partition("/")[0] for name in kept(server, 1)} >= {
        *("checkpoint-2", "checkpoint-12", "newest.json")
    }
    with attempt(tmp_path, 2, store=STORE):
        restored = restored_checkpoint()
        assert restored is not None
        assert restored.name == "checkpoint-12"


def wait_for_first_checkpoint(server: S3Server) -> None:
    """Wait until the first checkpoint is stored."""
    wait_until(lambda: "newest.json" in kept(server, 1))


def test_a_store_that_hangs_keeps_the_earlier_checkpoint(
    tmp_path: Path, server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.hangs_after = lambda key: "checkpoint-2/" not in key and "newest" not in key
    with attempt(tmp_path, 1, store=STORE):
        callback = FlyteCallback(flush_limit=0.5)
        trainer = small_trainer(
            tmp_path / "run", callback, At(3, lambda: wait_for_first_checkpoint(server)), **SAVING
        )
        trainer.train()
    assert trainer.state.global_step == 12
    last = [r.getMessage() for r in caplog.records if r.name == "callback_flyte.sync"][-1]
    assert "checkpoint-12 " in last and last.endswith("checkpoint-2.")
    server.mode = "ok"
    with attempt(tmp_path, 2, store=STORE):
        restored = restored_checkpoint()
        assert restored is not None
        assert restored.name == "checkpoint-2"


def test_a_slow_store_receives_only_the_newest_checkpoint(tmp_path: Path, server: S3Server) -> None:
    with attempt(tmp_path, 1, store=STORE):
        server.lock.acquire()
        small_trainer(
            tmp_path / "run", FlyteCallback(), At(11, server.lock.release), **SAVING
        ).train()
    uploaded = {
        request.path.split("/")[4] for request in server.requests if request.method == "PUT"
    }
    assert uploaded == {"checkpoint-2", "checkpoint-12"} | {"newest.json"}
