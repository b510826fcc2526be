"""Experiments on a server, which may be unreachable."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comet_ml  # noqa: F401  (import it before any training waits for it)
import pytest
from comet_server import CometServer

from callback_comet import CometCallback
from callback_contract.testing import not_configured, replay, wait_until
from trainer_torch.testing import At, comparable, logged_points, raising, small_trainer


def test_a_training_is_on_the_server(tmp_path: Path, server: CometServer) -> None:
    made = small_trainer(
        tmp_path / "out", CometCallback(project_name="mine"), save_strategy="epoch"
    )
    made.add_callback(At(3, lambda: made.log({"note": "hello", "none": float("nan")})))
    made.train()
    kept = server.only()
    assert {key: v for key, v in kept.curves().items() if v == v} == {
        key: v for key, v in logged_points(made).items() if key[0] != "train/note" and v == v
    }
    assert kept.texts == [("train/note", 3, "hello")]
    assert kept.project == "mine"
    assert (kept.others["Name"], kept.others["training_status"]) == ("small", "finished")
    assert kept.parameters["args|learning_rate"] == 0.05
    assert kept.graph is not None
    assert (kept.ended, kept.crashed) == (True, False)
    weights = tmp_path / "out" / "checkpoint-12" / "model.safetensors"
    assert kept.files["checkpoint-12/model.safetensors"] == weights.read_bytes()


def test_a_failed_training_is_shown_as_crashed(tmp_path: Path, server: CometServer) -> None:
    made = small_trainer(tmp_path / "out", CometCallback(), At(3, raising(RuntimeError("x"))))
    with pytest.raises(RuntimeError):
        made.train()
    assert server.only().crashed
    assert server.only().others["training_status"] == "failed"


def test_a_resumed_training_continues_its_experiment_without_duplicate_points(
    tmp_path: Path, server: CometServer
) -> None:
    arguments: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}
    broken = At(5, raising(RuntimeError("power cut")))
    with pytest.raises(RuntimeError):
        small_trainer(tmp_path / "out", CometCallback(), broken, **arguments).train()
    made = small_trainer(tmp_path / "out", CometCallback(), **arguments)
    made.train(resume_from_checkpoint=True)
    kept = server.only()
    assert kept.others["training_status"] == "finished"
    wanted = comparable(logged_points(made))
    assert {key: v for key, v in kept.curves().items() if key in wanted} == wanted


@pytest.mark.parametrize("mode", ["get", "get_or_create", "create"])
def test_the_mode_and_the_key_select_the_experiment(
    mode: str, tmp_path: Path, server: CometServer
) -> None:
    key = "a1" * 16
    if mode == "get":
        small_trainer(tmp_path / "1", CometCallback(experiment_key=key), max_steps=1).train()
    callback = CometCallback(mode=mode, experiment_key=key)
    small_trainer(tmp_path / "2", callback, max_steps=2).train()
    assert server.only().key == key
    assert ("train/loss", 2) in {(name, step) for name, step, _ in server.only().points}


def test_an_unreachable_server_does_not_delay_the_training_and_a_replay_delivers(
    tmp_path: Path, server: CometServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.stop()
    made = small_trainer(tmp_path / "out", CometCallback(flush_limit=2))
    with caplog.at_level(logging.WARNING, "callback_core"):
        made.train()
    last = caplog.records[-1].getMessage()
    assert "comet_ml" in last and "callback_core.tracking.replay" in last
    server.start()
    done = replay(tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert server.only().curves() == logged_points(made)
    assert server.only().others["training_status"] == "finished"


def test_without_a_key_nothing_prompts_and_the_end_of_training_does_not_wait(
    tmp_path: Path, server: CometServer
) -> None:
    with not_configured("Comet", "COMET_API_KEY"):
        made = small_trainer(tmp_path / "out", CometCallback(flush_limit=600))
        made.train()
    done = replay(tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert server.only().curves() == logged_points(made)


def test_a_temporary_outage_duplicates_no_point(tmp_path: Path, server: CometServer) -> None:
    callback = CometCallback(flush_limit=60)

    def away() -> None:
        wait_until(lambda: server.experiments and server.only().points)
        server.stop()

    def back() -> None:
        time.sleep(3)
        server.start()

    made = small_trainer(tmp_path / "out", callback, At(2, away), At(5, back))
    made.train()
    assert server.only().curves() == logged_points(made)
    assert server.only().ended


def test_temporarily_refused_points_are_sent_again(tmp_path: Path, server: CometServer) -> None:
    def refuse(value: bool) -> Callable[[], None]:
        return lambda: setattr(server, "refuses", value)

    def accept() -> None:
        time.sleep(2)
        server.refuses = False

    made = small_trainer(
        tmp_path / "out", CometCallback(flush_limit=60), At(1, refuse(True)), At(5, accept)
    )
    made.train()
    assert server.only().curves() == logged_points(made)


def test_the_sdk_does_not_send_what_was_discarded_at_the_end(
    tmp_path: Path, server: CometServer
) -> None:
    def away() -> None:
        # The SDK may split a batch: wait for all points of step 1.
        wait_until(lambda: server.experiments and len(server.only().points) == 4)
        wait_until(lambda: not callback.member.delivery.consumer.pending())  # type: ignore[union-attr]
        server.stop()

    callback = CometCallback(flush_limit=1)
    made = small_trainer(tmp_path / "out", callback, At(2, away))
    made.train()
    server.start()
    done = replay(tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    time.sleep(3)  # time for the SDK to reconnect and resend
    assert server.only().curves() == logged_points(made)


def test_a_delivery_process_delivers(tmp_path: Path, server: CometServer) -> None:
    made = small_trainer(tmp_path / "out", CometCallback(delivery="process"))
    made.train()
    assert server.only().curves().items() >= logged_points(made).items()
    assert server.only().others["training_status"] == "finished"
