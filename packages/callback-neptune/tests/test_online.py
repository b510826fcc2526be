"""Trainings that are logged to a Neptune server, over real connections."""

from __future__ import annotations

import json
import math
import os
import random
import sys
import threading
from pathlib import Path
from typing import Any

import neptune
import pytest
from neptune_server import NeptuneServer

from callback_contract.testing import not_configured, replay, run_python, wait_until
from callback_core import TrainerCallback
from callback_neptune import NeptuneCallback
from trainer_torch.testing import At, Trial, comparable, logged_points, raising, small_trainer

TRAINING = """
import sys
from callback_neptune import NeptuneCallback
from trainer_torch.testing import At, small_trainer
import os, signal
kill = At(int(sys.argv[2]), lambda: os.kill(os.getpid(), signal.SIGKILL))
options = {"delivery": sys.argv[3]} if len(sys.argv) > 3 else {}
trainer = small_trainer(sys.argv[1], NeptuneCallback(**options), kill, save_strategy="epoch")
trainer.train()
"""


def test_the_server_has_the_whole_training(server: NeptuneServer, tmp_path: Path) -> None:
    trained = small_trainer(tmp_path / "out", NeptuneCallback(tags=["first"]))
    trained.train()
    run = server.only()
    assert run.curves() == logged_points(trained)
    assert run.project == "team/digits"
    assert run.fields["sys/name"] == "small"
    assert run.tags == {"first"}
    assert run.fields["finetuning/trainer_parameters/learning_rate"] == 0.05
    assert run.below("finetuning/model_parameters") == {"hidden_size": 8, "rope/theta": 10.5}
    assert run.fields[NeptuneCallback.integration_version_key] == "0.1.0"
    assert run.fields["finetuning/training_status"] == "finished"
    assert run.fields["sys/failed"] is False


def test_points_have_the_time_at_which_they_were_logged(
    server: NeptuneServer, tmp_path: Path
) -> None:
    small_trainer(tmp_path / "out", NeptuneCallback()).train()
    times = [time for _, _, time in server.only().series["finetuning/train/learning_rate"]]
    assert times == sorted(times)
    (journal,) = (tmp_path / "out" / "tracking").glob("*/journal.jsonl")
    lines = journal.read_text("utf-8").splitlines()
    logs = [json.loads(line[line.index("{") :]) for line in lines if '"learning_rate"' in line]
    written = [record["time"] for record in logs if record["kind"] == "logs"]
    assert times == pytest.approx(written, abs=0.002)


def test_points_are_sent_in_few_requests(server: NeptuneServer, tmp_path: Path) -> None:
    small_trainer(tmp_path / "out", NeptuneCallback()).train()
    sent = [request for request in server.requests if request.path.startswith("/operations")]
    most = max(len(request.json()) for request in sent)
    assert most > 40  # each parameter is an operation


def test_nothing_is_collected_by_default(server: NeptuneServer, tmp_path: Path) -> None:
    hook, before = sys.excepthook, random.getstate()
    trainer = small_trainer(tmp_path / "out", NeptuneCallback())
    seen: list[Any] = []
    trainer.add_callback(At(3, lambda: seen.extend(threading.enumerate())))
    trainer.train()
    run = server.only()
    assert not any(path.startswith("monitoring/") for path in (*run.fields, *run.texts))
    assert run.git is None
    assert not run.file_sets
    assert not any("Neptune" in thread.name for thread in seen)
    assert sys.excepthook is hook
    assert random.getstate() == before
    assert not any("/ping" in request.path for request in server.requests)


def test_what_the_user_enables_is_collected(server: NeptuneServer, tmp_path: Path) -> None:
    source = tmp_path / "model.py"
    source.write_text("layers = 3\n")
    captured = {"capture_stdout": True, "monitoring_namespace": "monitoring/here"}
    callback = NeptuneCallback(source_files=[str(source)], **captured)
    small_trainer(tmp_path / "out", callback, At(12, lambda: print("a line"))).train()
    run = server.only()
    assert run.file_sets["source_code/files"] == {"model.py": b"layers = 3\n"}
    assert run.fields["monitoring/here/pid"] == str(os.getpid())


@pytest.mark.parametrize(
    ("error", "status", "failed"),
    [(RuntimeError("no"), "failed", True), (KeyboardInterrupt(), "interrupted", False)],
)
def test_the_status_says_how_a_training_ended(
    server: NeptuneServer, tmp_path: Path, error: BaseException, status: str, failed: bool
) -> None:
    trainer = small_trainer(tmp_path / "out", NeptuneCallback(), At(5, raising(error)))
    with pytest.raises(type(error)):
        trainer.train()
    assert server.only().fields["finetuning/training_status"] == status
    assert server.only().fields["sys/failed"] is failed


def test_a_given_run_is_used_and_not_stopped(server: NeptuneServer, tmp_path: Path) -> None:
    mine = users_run()
    trained = small_trainer(tmp_path / "out", NeptuneCallback(run=mine, base_namespace="first/net"))
    trained.train()
    assert mine.get_state() == "started"
    mine["note"] = "still open"
    mine.stop()
    run = server.only()
    assert run.curves("first/net") == logged_points(trained)
    assert run.fields["note"] == "still open"
    assert "first/net/training_status" not in run.fields


def test_a_second_training_in_a_given_run_gets_its_own_namespace(
    server: NeptuneServer, tmp_path: Path
) -> None:
    mine = users_run()
    callback = NeptuneCallback(run=mine)
    first = small_trainer(tmp_path / "out", callback)
    first.train()
    second = small_trainer(tmp_path / "out", callback, Trial("trial-1", {"lr": 0.5}))
    second.train()
    mine.stop()
    run = server.only()
    in_second = {p: s for p, s in run.series.items() if p.startswith("finetuning_2/")}
    assert len(in_second) * 2 == len(run.series)
    points = [(s, v) for s, v, _ in in_second["finetuning_2/train/loss"]]
    assert points == [(s, v) for (n, s), v in logged_points(second).items() if n == "train/loss"]


def test_a_stopped_given_run_is_reopened(
    server: NeptuneServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = users_run()
    mine.stop()
    trained = small_trainer(tmp_path / "out", NeptuneCallback(run=mine))
    trained.train()
    assert server.only().curves() == logged_points(trained)
    assert "RUN-1" in caplog.text


def test_each_training_gets_its_own_run(server: NeptuneServer, tmp_path: Path) -> None:
    trainer = small_trainer(tmp_path / "out", NeptuneCallback(name="mine"))
    trainer.train()
    trainer.train()
    assert [run.fields["sys/name"] for run in server.runs] == ["mine", "mine"]
    assert server.runs[1].curves().keys() == server.runs[0].curves().keys()


def test_a_trial_is_its_own_run_with_its_hyperparameters(
    server: NeptuneServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = NeptuneCallback(custom_run_id="the-search")
    trial = Trial("trial-1", {"learning_rate": 0.5, "layers": [1, 2]})
    small_trainer(tmp_path / "out", trial, callback).train()
    run = server.only()
    assert run.custom_id != "the-search"
    assert run.fields["sys/name"] == "small trial-1"
    assert run.fields["finetuning/trial"] == "trial-1"
    assert run.below("finetuning/trial_params") == {"learning_rate": 0.5, "layers": "[1, 2]"}
    assert "trial-1" in caplog.text


def test_trainings_with_the_same_custom_run_id_share_a_run(
    server: NeptuneServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEPTUNE_CUSTOM_RUN_ID", "ours")
    small_trainer(tmp_path / "a", NeptuneCallback()).train()
    small_trainer(tmp_path / "b", NeptuneCallback(base_namespace="other")).train()
    assert server.only().custom_id == "ours"


def test_with_id_continues_a_run(server: NeptuneServer, tmp_path: Path) -> None:
    small_trainer(tmp_path / "a", NeptuneCallback(name="mine")).train()
    again = NeptuneCallback(name="mine", with_id="RUN-1", base_namespace="b")
    small_trainer(tmp_path / "b", again).train()
    assert any(path.startswith("b/train/") for path in server.only().series)


@pytest.mark.slow
def test_a_resumed_training_continues_its_run(server: NeptuneServer, tmp_path: Path) -> None:
    done = run_python("-c", TRAINING, str(tmp_path / "out"), "6")
    assert done.returncode == -9
    resumed = small_trainer(tmp_path / "out", NeptuneCallback(), save_strategy="epoch", data_seed=7)
    resumed.train(resume_from_checkpoint=True)
    run = server.only()
    assert comparable(run.curves()) == comparable(logged_points(resumed))
    assert (
        run.fields["finetuning/trainer_parameters/data_seed"] == 7
    )  # the first part logged the string 'None'
    assert run.fields["sys/failed"] is False


@pytest.mark.slow
def test_a_delivery_process_closes_the_run_of_a_killed_training(
    server: NeptuneServer, tmp_path: Path
) -> None:
    assert run_python("-c", TRAINING, str(tmp_path / "out"), "6", "process").returncode == -9
    wait_until(lambda: server.runs and "finetuning/training_status" in server.only().fields)
    assert server.only().fields["sys/failed"] is True
    assert ("train/loss", 6) in server.only().curves() or (
        "train/loss",
        5,
    ) in server.only().curves()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["broken", "silent", "refusing"])
def test_an_unreachable_service_does_not_affect_the_training_and_a_replay_delivers(
    server: NeptuneServer, tmp_path: Path, mode: Any
) -> None:
    if mode == "refusing":
        server.stop()
    else:
        server.mode = mode
    trained = small_trainer(tmp_path / "out", NeptuneCallback(flush_limit=0.2))
    trained.train()
    assert trained.state.global_step == 12
    assert not server.runs
    if mode == "silent":
        server.stop()  # closes the connections of waiting clients
    server.mode = "ok"
    if mode != "broken":
        server.start()
    done = replay(tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert server.only().curves() == logged_points(trained)
    assert server.only().fields["finetuning/training_status"] == "finished"


@pytest.mark.parametrize("variable", ["NEPTUNE_API_TOKEN", "NEPTUNE_PROJECT"])
def test_without_a_token_or_a_project_the_end_of_training_does_not_wait(
    variable: str, server: NeptuneServer, tmp_path: Path
) -> None:
    with not_configured("Neptune", variable) as logged:
        trained = small_trainer(tmp_path / "out", NeptuneCallback(flush_limit=600))
        trained.train()
    assert any(variable in message for message in logged)
    done = replay(tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert server.only().curves() == logged_points(trained)


def test_a_temporary_outage_duplicates_no_point(server: NeptuneServer, tmp_path: Path) -> None:
    def break_it() -> None:
        wait_until(lambda: server.runs and server.only().series)
        server.mode = "broken"

    callback = NeptuneCallback(flush_limit=60.0)
    trained = small_trainer(
        tmp_path / "out", callback, At(4, break_it), At(9, lambda: mend(server))
    )
    trained.train()
    assert server.only().curves() == logged_points(trained)


def test_forking_does_not_wait_for_a_service_that_hangs(
    server: NeptuneServer, tmp_path: Path
) -> None:
    def hang_and_fork() -> None:
        wait_until(lambda: server.runs and server.only().series)
        server.mode = "silent"
        if (child := os.fork()) == 0:
            os._exit(0)
        os.waitpid(child, 0)

    trainer = small_trainer(
        tmp_path / "out", NeptuneCallback(flush_limit=0.2), At(6, hang_and_fork)
    )
    trainer.train()
    assert trainer.state.global_step == 12


def test_the_token_is_written_to_no_file(
    server: NeptuneServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NEPTUNE_API_TOKEN")
    proxies = {"ftp": "ftp://me:hidden-word@proxy"}
    callback = NeptuneCallback(api_token=server.token, proxies=proxies)
    small_trainer(tmp_path / "out", callback, save_strategy="epoch").train()
    assert server.only().series
    for file in (tmp_path / "out").rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        assert server.token.encode() not in content, file
        assert b"hidden-word" not in content, file


def test_names_and_texts_of_any_language_are_kept(server: NeptuneServer, tmp_path: Path) -> None:
    class Says(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            trainer.log({"größe": 0.5, "beispiel": "中文 ½", "nan": math.nan})
            control.should_training_stop = True

    trainer = small_trainer(tmp_path / "out", NeptuneCallback(), Says())
    trainer.train()
    run = server.only()
    assert run.series["finetuning/train/größe"][0][:2] == (1, 0.5)
    assert run.texts["finetuning/train/beispiel"][0][:2] == (1, "中文 ½")
    assert "finetuning/train/nan" not in run.series


def test_without_log_parameters_none_are_sent(server: NeptuneServer, tmp_path: Path) -> None:
    small_trainer(tmp_path / "out", NeptuneCallback(log_parameters=False)).train()
    assert not any("_parameters/" in path for path in server.only().fields)


def users_run() -> neptune.Run:
    """Return a run that the user opened."""
    return neptune.init_run(
        capture_stdout=False,
        capture_stderr=False,
        capture_hardware_metrics=False,
        capture_traceback=False,
        git_ref=False,
        source_files=[],
    )


def mend(server: NeptuneServer) -> None:
    server.mode = "ok"


def test_the_run_of_a_training_accepts_the_users_values(
    server: NeptuneServer, tmp_path: Path
) -> None:
    def add() -> None:
        NeptuneCallback.get_run(trainer)["mine"] = "added"

    trainer = small_trainer(tmp_path / "out", NeptuneCallback(), At(5, add))
    trainer.train()
    assert server.only().fields["mine"] == "added"
    assert server.only().curves() == logged_points(trainer)


def test_the_run_is_reopened_after_a_training(server: NeptuneServer, tmp_path: Path) -> None:
    callback = NeptuneCallback()
    small_trainer(tmp_path / "out", callback).train()
    callback.run["after"] = 1
    assert callback.run["sys/id"].fetch() == "RUN-1"
    callback.run.stop()
    assert server.only().fields["after"] == 1


def test_the_first_training_uses_a_run_opened_before(server: NeptuneServer, tmp_path: Path) -> None:
    callback = NeptuneCallback()
    mine = callback.run
    trained = small_trainer(tmp_path / "out", callback)
    trained.train()
    assert callback.run is mine
    assert mine.get_state() == "started"
    mine.stop()
    assert server.only().curves() == logged_points(trained)


def test_a_trainer_without_the_callback_has_no_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="NeptuneCallback"):
        NeptuneCallback.get_run(small_trainer(tmp_path / "out"))


def test_last_keeps_the_newest_checkpoint_of_a_resumed_training_too(
    server: NeptuneServer, tmp_path: Path
) -> None:
    last = NeptuneCallback(log_checkpoints="last")
    small_trainer(tmp_path / "out", last, save_strategy="epoch", max_steps=8).train()
    assert set(server.only().file_sets) == {"finetuning/checkpoints/last/checkpoint-8"}
    last = NeptuneCallback(log_checkpoints="last")
    resumed = small_trainer(tmp_path / "out", last, save_strategy="epoch")
    resumed.train(resume_from_checkpoint=True)
    files = server.only().file_sets
    assert set(files) == {"finetuning/checkpoints/last/checkpoint-12"}
    kept = tmp_path / "out" / "checkpoint-12" / "model.safetensors"
    of_last = files["finetuning/checkpoints/last/checkpoint-12"]
    assert of_last["model.safetensors"] == kept.read_bytes()


def test_a_given_run_gets_checkpoints_before_their_copies_are_deleted(
    server: NeptuneServer, tmp_path: Path
) -> None:
    mine = users_run()
    callback = NeptuneCallback(run=mine, log_checkpoints="same")
    small_trainer(tmp_path / "out", callback, save_strategy="epoch", save_total_limit=1).train()
    mine.stop()
    files = server.only().file_sets
    assert set(files) == {f"finetuning/checkpoints/checkpoint-{n}" for n in (4, 8, 12)}
    assert all("model.safetensors" in names for names in files.values())


def test_a_failed_upload_is_retried(
    server: NeptuneServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.failing_uploads = 2
    callback = NeptuneCallback(log_checkpoints="last")
    trained = small_trainer(tmp_path / "out", callback, save_strategy="epoch")
    trained.train()
    assert server.failing_uploads == 0
    assert set(server.only().file_sets) == {"finetuning/checkpoints/last/checkpoint-12"}
    assert server.only().curves() == logged_points(trained)
    assert not [r for r in caplog.records if r.name == "callback_neptune.open_run"]
    assert "rejected" not in caplog.text


def test_neptunes_refusals_are_reported_with_its_message(
    server: NeptuneServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = users_run()
    mine["finetuning/train/loss"].append(0.5, step=6)
    mine.wait()
    mine.stop()
    trained = small_trainer(tmp_path / "out", NeptuneCallback(with_id="RUN-1"))
    trained.train()
    assert "the steps of finetuning/train/loss must grow, but" in caplog.text
    curves, loss = server.only().curves(), "train/loss"
    others = {key: value for key, value in logged_points(trained).items() if key[0] != loss}
    assert {key: value for key, value in curves.items() if key[0] != loss} == others
