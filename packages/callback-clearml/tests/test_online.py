"""What a server has after a training. The real SDK talks to it over real connections."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import clearml
import pytest
from clearml_server import ClearMLServer
from curves import curves

from callback_clearml import ClearMLCallback
from callback_clearml.online import OnlineTask
from callback_contract.testing import not_configured, replay, run_python, wait_until
from callback_core.tracking import Upload
from trainer_torch.testing import At, raising, small_trainer


def test_the_server_has_parameters_scalars_single_values_and_status(
    server: ClearMLServer, tmp_path: Path
) -> None:
    made = small_trainer(
        tmp_path / "out", ClearMLCallback(project_name="vision", task_name="first")
    )
    made.train()
    task = server.task()
    assert (task["name"], task["type"], task["status"]) == ("first", "training", "completed")
    assert server.projects == {"vision": task["project"]}
    assert server.points(task["id"]) == curves(made)
    parameters = server.parameters(task["id"])
    assert parameters["Args/learning_rate"] == "0.05"
    assert parameters["Model Configuration/hidden_size"] == "8"
    assert parameters["Model Configuration/rope/theta"] == "10.5"


def test_a_point_has_the_time_at_which_it_was_logged(server: ClearMLServer, tmp_path: Path) -> None:
    small_trainer(tmp_path / "out", ClearMLCallback).train()
    [journal] = (tmp_path / "out").glob("tracking/*/journal.jsonl")
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    times = {r["step"]: r["time"] for r in records if "loss" in r.get("logs", {})}
    found = {e["iter"]: e["timestamp"] for e in server.events if e["variant"] == "loss"}
    assert [found[step] for step in range(1, 12)] == [
        pytest.approx(times[step] * 1000) for step in range(1, 12)
    ]


def test_checkpoints_become_output_models_with_log_model(
    server: ClearMLServer, tmp_path: Path
) -> None:
    callback = ClearMLCallback(log_model=True)
    small_trainer(tmp_path / "out", callback, save_strategy="epoch", save_total_limit=1).train()
    models = {model["name"]: model for model in server.models.values()}
    assert list(models) == ["checkpoint-4", "checkpoint-8", "checkpoint-12"]
    assert {model["task"] for model in models.values()} == {server.task()["id"]}
    uploaded = {Path(name).name: content for name, content in server.files.items()}
    assert Path(models["checkpoint-12"]["uri"]).name in uploaded
    kept = zipfile.ZipFile(io.BytesIO(uploaded["checkpoint-12.zip"]))
    [newest] = (tmp_path / "out").glob("checkpoint-*")
    saved = {file.name: file.read_bytes() for file in newest.iterdir()}
    assert {name: kept.read(name) for name in kept.namelist()} == saved


def test_clearml_unpacks_an_uploaded_checkpoint(server: ClearMLServer, tmp_path: Path) -> None:
    nested = tmp_path / "saved" / "optimizer" / "shard"
    nested.mkdir(parents=True)
    (nested / "of zero.bin").write_bytes(b"weights")
    os.utime(nested / "of zero.bin", (0, 0))  # earlier than a zip can represent
    (tmp_path / "saved" / "empty").mkdir()
    task = OnlineTask(None, False, "vision", "first", "one")
    task.log_files(Upload(tmp_path / "saved", "checkpoint-7", 7), "checkpoint-7")
    [model] = server.models.values()
    assert (model["name"], model["task"]) == ("checkpoint-7", task.id)
    assert model["uri"].endswith("/models/checkpoint-7.zip")
    unpacked = Path(str(clearml.InputModel(model["id"]).get_weights_package(return_path=True)))
    assert (unpacked / "optimizer" / "shard" / "of zero.bin").read_bytes() == b"weights"
    assert sorted(path.name for path in unpacked.iterdir()) == ["empty", "optimizer"]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return this test's directory for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_an_uploaded_checkpoint_leaves_no_copy(
    server: ClearMLServer, tmp_path: Path, temporary: Path
) -> None:
    callback = ClearMLCallback(log_model=True, flush_limit=60)
    small_trainer(tmp_path / "out", callback, save_strategy="epoch").train()
    assert len(server.models) == 3
    assert [*temporary.rglob("*")] == []


def test_a_checkpoint_whose_upload_fails_leaves_no_copy(
    server: ClearMLServer, tmp_path: Path, temporary: Path
) -> None:
    server.takes_files = False
    callback = ClearMLCallback(log_model=True, flush_limit=1)
    refused = At(12, lambda: wait_until(lambda: bool(server.refused)))
    small_trainer(tmp_path / "out", callback, refused, save_strategy="epoch").train()
    wait_until(lambda: not [*temporary.rglob("*")])


@pytest.mark.parametrize(
    ("raised", "status"),
    [(ArithmeticError("broken"), "failed"), (KeyboardInterrupt(), "stopped")],
)
def test_the_status_says_how_a_training_broke(
    raised: BaseException, status: str, server: ClearMLServer, tmp_path: Path
) -> None:
    with pytest.raises(type(raised)):
        small_trainer(tmp_path / "out", ClearMLCallback, At(7, raising(raised))).train()
    task = server.task()
    assert task["status"] == status
    assert [step for step, _ in server.points(task["id"])["train", "loss"]] == [1, 2, 3, 4, 5, 6]


def test_a_resumed_training_continues_its_task_without_duplicate_points(
    server: ClearMLServer, tmp_path: Path
) -> None:
    whole = small_trainer(tmp_path / "whole")
    whole.train()
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 3}
    broken = At(8, raising(ArithmeticError("broken")))
    with pytest.raises(ArithmeticError):
        small_trainer(tmp_path / "out", ClearMLCallback, broken, **saving).train()
    assert server.task()["status"] == "failed"
    small_trainer(tmp_path / "out", ClearMLCallback, **saving).train(resume_from_checkpoint=True)
    task = server.task()
    assert task["status"] == "completed"
    found, expected = server.points(task["id"]), curves(whole)
    assert {k: [s for s, _ in v] for k, v in found.items()} == {
        k: [s for s, _ in v] for k, v in expected.items()
    }
    assert found["train", "loss"] == expected["train", "loss"]


def test_a_second_training_gets_its_own_task_and_an_evaluation_goes_to_the_last(
    server: ClearMLServer, tmp_path: Path
) -> None:
    made = small_trainer(tmp_path / "out", ClearMLCallback(delivery="inline"))
    made.train()
    made.train()
    made.evaluate(metric_key_prefix="test")
    first, second = server.tasks.values()
    assert (first["status"], second["status"]) == ("completed", "completed")
    points = [server.points(task["id"]) for task in (first, second)]
    assert [len(one["train", "loss"]) for one in points] == [12, 12]
    assert [("test", "loss") in one for one in points] == [False, True]
    assert len(server.projects) == 1


USERS_TASK = """
import sys
from pathlib import Path
from clearml import Task
from callback_clearml import ClearMLCallback
from trainer_torch.testing import small_trainer
task = Task.init("mine", "outer", auto_connect_frameworks=False, auto_connect_streams=False,
                 auto_connect_arg_parser=False, auto_resource_monitoring=False)
made = small_trainer(Path(sys.argv[1]), ClearMLCallback)
made.train()
made.train()
assert Task.current_task() is task
task.get_logger().report_single_value("after", 1.0)
print("used")
"""


def test_a_task_opened_by_the_user_is_used_and_stays_open(
    server: ClearMLServer, tmp_path: Path
) -> None:
    done = run_python("-c", USERS_TASK, str(tmp_path / "out"))
    assert "used" in done.stdout, done.stderr
    task = server.task()
    assert task["name"] == "outer"
    assert server.calls.count("tasks.completed") == 1  # when the script ends
    points = server.points(task["id"])
    assert len(points["train", "loss"]) == len(points["train_2", "loss"]) == 12
    assert {("Summary", name) for name in ("train_loss", "train_loss_2", "after")} <= points.keys()
    parameters = server.parameters(task["id"])
    assert parameters["Args/learning_rate"] == parameters["Args_2/learning_rate"] == "0.05"


def test_an_agents_task_is_used_and_stays_open(server: ClearMLServer, tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from callback_clearml import ClearMLCallback
from trainer_torch.testing import small_trainer
small_trainer(Path(sys.argv[1]), ClearMLCallback).train()
"""
    task = server.new_task(name="queued", type="training")
    done = run_python("-c", code, str(tmp_path / "out"), variables={"CLEARML_TASK_ID": task})
    assert done.returncode == 0, done.stderr
    assert len(server.points(task)["train", "loss"]) == 12
    assert not {"tasks.completed", "tasks.create"} & set(server.calls)


def test_a_delivery_process_delivers_the_same(
    server: ClearMLServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = small_trainer(tmp_path / "out", ClearMLCallback(delivery="process", flush_limit=60))
    made.train()
    assert server.points(server.task()["id"]) == curves(made)
    assert server.task()["status"] == "completed"
    assert caplog.text == ""


def test_a_delivery_process_closes_the_task_of_a_killed_training(
    server: ClearMLServer, tmp_path: Path
) -> None:
    code = """
import os, sys
from pathlib import Path
from callback_clearml import ClearMLCallback
from trainer_torch.testing import At, small_trainer
sent = ClearMLCallback(delivery="process")
small_trainer(Path(sys.argv[1]), sent, At(9, lambda: os.kill(os.getpid(), 9))).train()
"""
    done = run_python("-c", code, str(tmp_path / "out"))
    assert done.returncode == -signal.SIGKILL, done.stderr
    wait_until(lambda: [task["status"] for task in server.tasks.values()] == ["failed"])
    points = server.points(server.task()["id"])
    assert [step for step, _ in points["train", "loss"]] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_an_unreachable_server_does_not_delay_the_training_and_a_replay_delivers(
    server: ClearMLServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.stop()
    times: list[float] = []
    look = At(12, lambda: times.append(time.monotonic()))
    made = small_trainer(tmp_path / "out", ClearMLCallback(flush_limit=2), look)
    made.train()
    assert time.monotonic() - times[0] < 200
    [ending] = [m for m in caplog.messages if "callback_core.tracking.replay" in m]
    assert "clearml" in ending and "64" in ending
    server.start()
    done = replay(tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert server.points(server.task()["id"]) == curves(made)
    assert server.task()["status"] == "completed"


def test_without_credentials_the_end_of_training_does_not_wait(
    server: ClearMLServer, tmp_path: Path
) -> None:
    code = """
import logging, sys
from pathlib import Path
from callback_clearml import ClearMLCallback
from trainer_torch.testing import small_trainer
logging.basicConfig(format="%(message)s")
small_trainer(Path(sys.argv[1]), ClearMLCallback(flush_limit=600)).train()
"""
    with not_configured("ClearML", *server.environment()) as logged:
        done = run_python("-c", code, str(tmp_path / "out"))
        logged.append(done.stderr)
    assert done.returncode == 0, done.stderr
    done = replay(tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert server.task()["status"] == "completed"


def test_temporary_server_errors_lose_no_point(
    server: ClearMLServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def mend() -> None:
        wait_until(lambda: any("clearml" in message for message in caplog.messages))
        server.mode = "ok"

    def break_it() -> None:
        wait_until(lambda: bool(server.events))
        server.mode = "broken"

    made = small_trainer(tmp_path / "out", ClearMLCallback, At(4, break_it), At(8, mend))
    made.train()
    assert server.points(server.task()["id"]) == curves(made)
    assert server.task()["status"] == "completed"


SILENT = """
import logging, sys, time
from pathlib import Path
from callback_clearml import ClearMLCallback
from trainer_torch.testing import small_trainer
logging.basicConfig(format="%(message)s")
import clearml  # the import takes seconds that do not count
begun = time.monotonic()
made = small_trainer(Path(sys.argv[1]), ClearMLCallback(flush_limit=2, delivery=sys.argv[2]))
made.train()
print(made.state.global_step, time.monotonic() - begun, time.monotonic(), flush=True)
"""


@pytest.mark.parametrize("delivery", ["thread", "process"])
def test_a_server_that_never_answers_blocks_neither_training_nor_exit(
    delivery: str, server: ClearMLServer, tmp_path: Path
) -> None:
    server.mode = "silent"
    done = run_python("-c", SILENT, str(tmp_path / "out"), delivery)
    steps, trained, ended = map(float, done.stdout.splitlines()[-1].split())
    assert (done.returncode, steps) == (0, 12)
    assert trained < 200  # the limit is two seconds; a busy machine takes the rest
    assert time.monotonic() - ended < 200
    assert done.stderr.count("callback_core.tracking.replay") == 1


def test_unsupported_values_are_left_out_and_reported(
    server: ClearMLServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = small_trainer(tmp_path / "out", ClearMLCallback)

    def log() -> None:
        made.log({"bad": float("nan"), "note": "text", "good": 1.0})

    made.add_callback(At(5, log))
    with caplog.at_level(logging.WARNING):
        made.train()
    points = server.points(server.task()["id"])
    assert points["train", "good"] == [(5, 1.0)]
    assert ("train", "bad") not in points
    [ending] = [message for message in caplog.messages if "bad: " in message]
    assert "nan" in ending and "note: " in ending


def test_the_process_is_left_unchanged(server: ClearMLServer, tmp_path: Path) -> None:
    code = """
import os, random, signal, sys
from pathlib import Path
import clearml, torch
from callback_clearml import ClearMLCallback
from trainer_torch.testing import small_trainer

def state():
    signals = [signal.getsignal(number) for number in (2, 11, 15)]
    return dict(os.environ), sys.excepthook, sys.exit, os.fork, signals, random.getstate()

small_trainer(Path("warm")).train()
before = state()
small_trainer(Path("out"), ClearMLCallback).train()
assert state()[:-1] == before[:-1], [pair for pair in zip(state(), before) if pair[0] != pair[1]]
assert clearml.Task.current_task() is None
print("equal")
"""
    done = run_python("-c", code)
    assert done.stdout.endswith("equal\n"), done.stderr
