"""Offline trainings. The tests read the files in ClearML's folder."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import curves  # noqa: F401  for the program below: Pants provides only imported modules
import pytest
from clearml_server import ClearMLServer

from callback_contract.testing import run_python

TRAINING = """
import json, logging, os, random, signal, sys, tempfile
from pathlib import Path
import clearml, torch
from callback_clearml import ClearMLCallback
from curves import curves
from trainer_torch.testing import At, small_trainer

def state():
    signals = [signal.getsignal(number) for number in (2, 11, 15)]
    of_torch = torch.save, torch.load, torch.jit.save, torch.nn.Module.load_state_dict
    level = logging.getLogger("urllib3").level
    return dict(os.environ), sys.excepthook, sys.exit, os.fork, signals, of_torch, level

logging.getLogger("urllib3").setLevel(logging.INFO)
small_trainer(Path("warm")).train()
before = state()
callback = ClearMLCallback(log_model=True, delivery=sys.argv[1], task_name="off")
draw = At(12, lambda: print("random", random.random()))
mine = At(6, lambda: torch.save({"mine": 1}, "mine.pt"))
made = small_trainer(Path("out"), callback, draw, mine, save_strategy="epoch")
random.seed(5)
made.train()
assert state() == before, [pair for pair in zip(state(), before) if pair[0] != pair[1]]
print("temporary", [*filter(Path.is_file, Path(tempfile.gettempdir()).rglob("*"))])
print(json.dumps([[*key, points] for key, points in curves(made).items()]))
"""


def session(cache: Path) -> tuple[dict[str, Any], dict[tuple[str, str], Any], list[str]]:
    """Return the task of the only session, its points by plot and curve, and its files."""
    [path] = (cache / "offline").glob("*.zip")
    with zipfile.ZipFile(path) as kept:
        task = json.loads(kept.read("task.json"))
        lines = [json.loads(line) for line in kept.read("metrics.jsonl").splitlines()]
        names = kept.namelist()
    points: dict[tuple[str, str], Any] = {}
    for event in (event for line in lines for event in line):
        point = [event["iter"], event["value"]]
        points.setdefault((event["metric"], event["variant"]), []).append(point)
    return task, points, names


@pytest.fixture(scope="module")
def trained(
    shared: ClearMLServer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, CompletedProcess[str]]:
    """Return the directory and the completed process of an offline training."""
    folder = tmp_path_factory.mktemp("offline")
    shared.forget()
    variables = {
        **shared.environment(),
        "CLEARML_OFFLINE_MODE": "1",
        "CLEARML_CONFIG_FILE": str(folder / "none.conf"),
        "CLEARML_CACHE_DIR": str(folder / "cache"),
        "TMPDIR": str(folder / "temporary"),
    }
    (folder / "temporary").mkdir()
    done = run_python("-c", TRAINING, "thread", cwd=folder, variables=variables)
    assert done.returncode == 0, done.stderr
    assert shared.requests == []
    return folder, done


def test_an_offline_training_is_a_complete_session_and_leaves_nothing_else(
    trained: tuple[Path, CompletedProcess[str]],
) -> None:
    folder, done = trained
    task, points, names = session(folder / "cache")
    assert (task["name"], task["type"]) == ("off", "training")
    expected = json.loads(done.stdout.splitlines()[-1])
    assert points.keys() == {(title, series) for title, series, _ in expected}
    for title, series, curve in expected:
        assert [step for step, _ in points[title, series]] == [step for step, _ in curve]
        for (_, value), (_, logged) in zip(points[title, series], curve, strict=True):
            assert math.isclose(value, logged, rel_tol=1e-6)
    parameters = task["hyperparams"]
    assert parameters["Args"]["learning_rate"]["value"] == "0.05"
    assert parameters["Model Configuration"]["rope/theta"]["value"] == "10.5"
    kept = sorted(Path(name).name for name in names if name.endswith(".zip"))
    assert kept == ["checkpoint-12.zip", "checkpoint-4.zip", "checkpoint-8.zip"]
    assert "temporary []" in done.stdout.splitlines()
    assert "script" not in task  # neither sources nor git information
    assert not any("mine" in name for name in names)
    assert not (task.get("models") or {}).get("output")


def test_a_delivery_process_writes_a_session_too(tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    variables = {"CLEARML_OFFLINE_MODE": "1", "TMPDIR": str(tmp_path / "temporary")}
    done = run_python("-c", TRAINING, "process", variables=variables)
    assert done.returncode == 0, done.stderr
    _, points, _ = session(tmp_path / "cache")
    assert len(points["train", "loss"]) == 12


DRAWING = """
import sys
from pathlib import Path
from trainer_torch.testing import draws_after_training
from callback_clearml import ClearMLCallback
expected = draws_after_training(Path("without"), run_name=None)
assert draws_after_training(Path("with"), ClearMLCallback(), run_name=None) == expected
"""


def test_an_offline_training_draws_the_same_random_numbers(tmp_path: Path) -> None:
    done = run_python("-c", DRAWING, variables={"CLEARML_OFFLINE_MODE": "1"})
    assert done.returncode == 0, done.stderr
    assert session(tmp_path / "cache")


USERS_TASK = """
import sys
from pathlib import Path
from clearml import Task
from callback_clearml import ClearMLCallback
from trainer_torch.testing import small_trainer
task = Task.init("mine", "outer", auto_connect_frameworks=False, auto_connect_streams=False,
                 auto_connect_arg_parser=False, auto_resource_monitoring=False)
small_trainer(Path("out"), ClearMLCallback).train()
assert Task.current_task() is task
task.get_logger().report_single_value("after", 1.0)
task.close()
"""


def test_an_offline_task_opened_by_the_user_is_used_and_stays_open(tmp_path: Path) -> None:
    done = run_python("-c", USERS_TASK, variables={"CLEARML_OFFLINE_MODE": "1"})
    assert done.returncode == 0, done.stderr
    task, points, _ = session(tmp_path / "cache")
    assert task["name"] == "outer"
    assert len(points["train", "loss"]) == 12
    assert ("Summary", "after") in points


def test_a_session_can_be_imported_to_a_server(
    trained: tuple[Path, CompletedProcess[str]], server: ClearMLServer
) -> None:
    [path] = (trained[0] / "cache" / "offline").glob("*.zip")
    code = "import sys; from clearml import Task; Task.import_offline_session(sys.argv[1])"
    done = run_python("-c", code, str(path))
    assert done.returncode == 0, done.stderr
    points = server.points(server.task()["id"])
    assert [step for step, _ in points["train", "loss"]] == list(range(1, 13))
