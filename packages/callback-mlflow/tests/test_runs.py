"""Which run a training has in MLflow, when it began and ended, and what MLflow refuses for good."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import pytest
from reader import Database

from callback_contract.testing import replay
from callback_core.tracking import Opening, Point, Rejected, RunNotFound
from callback_mlflow import MLflowCallback, MLflowTracker
from callback_mlflow.runs import page_of
from trainer_torch.testing import logged_points, small_trainer

UNKNOWN = "0123456789abcdef0123456789abcdef"


def opening(tmp_path: Path, **changed: Any) -> Opening:
    folder = tmp_path / "tracking" / "20260101-000000-abcdef" / "mlflow"
    return Opening(**{"name": None, "output_dir": tmp_path, "folder": folder, **changed})


def times(database: Database) -> list[tuple[int, int]]:
    """Return when each run began and ended, in milliseconds."""
    return database.ask("select start_time, end_time from runs order by rowid")


def begin_and_end(output_dir: Path) -> tuple[float, float]:
    """Return when a training began and ended, according to its journal."""
    [journal] = output_dir.glob("tracking/*/journal.jsonl")
    records = [json.loads(line) for line in journal.read_text("utf-8").splitlines()]
    ended = next(record for record in records if record["kind"] == "end")
    return records[0]["time"] * 1000, ended["time"] * 1000


def test_a_run_that_is_replayed_has_the_times_of_its_training(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback = MLflowCallback(tracking_uri="sqlite:////no/such/folder/m.db", flush_limit=0)
    small_trainer(tmp_path / "out", callback).train()
    [identity] = tmp_path.glob("out/tracking/*/mlflow.tracker.json")
    known = json.loads(identity.read_text("utf-8"))
    known["settings"]["tracking_uri"] = None
    identity.write_text(json.dumps(known), "utf-8")
    assert replay(tmp_path / "out").returncode == 0
    [(began, ended)] = times(database)
    assert (began, ended) == tuple(map(int, begin_and_end(tmp_path / "out")))


def test_the_times_of_a_run_are_those_of_the_training_without_its_evaluations(
    database: Database, tmp_path: Path
) -> None:
    made = small_trainer(tmp_path / "out", MLflowCallback(delivery="inline"))
    made.train()
    made.evaluate()
    [(began, ended)] = times(database)
    assert (began, ended) == tuple(map(int, begin_and_end(tmp_path / "out")))


@pytest.mark.parametrize("deleted", [True, False])
def test_a_training_whose_run_is_gone_is_delivered_in_full_to_a_new_one(
    database: Database, tmp_path: Path, deleted: bool
) -> None:
    made = small_trainer(tmp_path / "out", MLflowCallback(delivery="inline"))
    made.train()
    [before] = database.runs("Default")
    if deleted:
        mlflow.MlflowClient().delete_run(before.id)
    else:
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            database.ask(f"delete from {table}")
    made.evaluate(metric_key_prefix="late")
    after = database.runs("Default")[-1]
    assert after.id != before.id
    assert after.values().keys() >= before.values().keys()
    assert after.parameters == before.parameters
    assert after.status == "FINISHED"


def test_a_run_that_is_deleted_during_a_training_is_not_there(
    database: Database, tmp_path: Path
) -> None:
    tracker = MLflowTracker()
    run_id = tracker.open(opening(tmp_path))
    mlflow.MlflowClient().delete_run(run_id)
    with pytest.raises(RunNotFound, match=run_id):
        tracker.log_metrics([Point("loss", 1.0, 1, 1.0)])
    with pytest.raises(RunNotFound, match=run_id):
        MLflowTracker().open(opening(tmp_path, run_id=run_id))


def test_a_wrong_run_id_is_refused_and_named_and_the_end_does_not_wait(
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", UNKNOWN)
    made = small_trainer(tmp_path / "out", MLflowCallback(flush_limit=10_000))
    made.train()
    assert UNKNOWN in caplog.text
    assert database.runs("Default") == []
    monkeypatch.delenv("MLFLOW_RUN_ID")
    assert replay(tmp_path / "out", "--new-run").returncode == 0
    [run] = database.runs("Default")
    assert run.values() == logged_points(made)
    assert run.status == "FINISHED"


def test_a_deleted_run_that_a_setting_names_is_refused(database: Database, tmp_path: Path) -> None:
    client = mlflow.MlflowClient()
    run_id = client.create_run("0").info.run_id
    client.delete_run(run_id)
    with pytest.raises(Rejected, match=run_id):
        MLflowTracker(run_id=run_id).open(opening(tmp_path))


@pytest.fixture(params=[401, 403])
def denying(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server that denies everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(request.param)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_server_that_denies_access_is_not_asked_again(
    denying: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = MLflowTracker(tracking_uri=denying, experiment_name="mine")
    with pytest.raises(Rejected):
        tracker.open(opening(tmp_path))


def test_the_last_active_run_is_that_of_the_training(database: Database, tmp_path: Path) -> None:
    callback = MLflowCallback()
    small_trainer(tmp_path / "out", callback).train()
    last = mlflow.last_active_run()
    assert last is not None
    assert last.info.run_id == callback.run_id == database.runs("Default")[0].id
    assert callback.run_url is None  # a database has no pages


class _Client:
    def __init__(self, tracking_uri: str) -> None:
        self.tracking_uri = tracking_uri


@pytest.mark.parametrize(
    ("uri", "page"),
    [
        ("http://host:5000", "http://host:5000/#/experiments/0/runs/"),
        ("https://me:word@host/ml/flow/", "https://host/ml/flow/#/experiments/0/runs/"),
        ("sqlite:///mlflow.db", None),
        ("databricks", None),
    ],
)
def test_the_address_of_a_run_is_its_page_without_a_password(
    database: Database, uri: str, page: str | None
) -> None:
    run = mlflow.MlflowClient().create_run("0", start_time=int(time.time() * 1000))
    found = page_of(_Client(uri), run)
    assert found == (None if page is None else page + run.info.run_id)
