"""Runs that are killed, moved, delivered later, or fill the disk."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tensorboardX
import training_to_kill
from tensorboard.plugins.hparams.api_pb2 import STATUS_SUCCESS
from tensorboard_for_tests import (
    Run,
    hparams,
    in_a_process,
    points,
    read,
    shown,
    texts,
    the_run,
)
from torch.utils.tensorboard import SummaryWriter

from callback_contract.testing import replay, run_python
from callback_core.tracking import Opening, Point, TrackerCallback
from callback_tensorboard import TensorBoardCallback, TensorBoardTracker


def train(output_dir: Path, delivery: str, kill_at: int) -> list[dict[str, Any]]:
    """Train until the training ends or is killed; return the logs if it ended."""
    answer = run_python(
        training_to_kill.__file__,
        *(str(output_dir), delivery, str(kill_at)),
        variables={"OMP_NUM_THREADS": "1"},
    )
    assert answer.returncode == (-signal.SIGKILL if kill_at else 0), answer.stderr
    logged = next((line for line in answer.stdout.splitlines() if line.startswith("[{")), "[]")
    return list(json.loads(logged))


@pytest.mark.slow
@pytest.mark.parametrize(("delivery", "kills"), [("thread", (8, 14)), ("process", (8,))])
def test_a_killed_and_resumed_training_has_no_duplicate_points_in_one_directory(
    tmp_path: Path, delivery: str, kills: tuple[int, ...]
) -> None:
    for kill_at in kills:
        train(tmp_path, delivery, kill_at)
    history = train(tmp_path, delivery, 0)
    directory = the_run(tmp_path)
    assert set(Counter(shown(directory)).values()) == {1}
    for tag, name in (("train/loss", "loss"), ("eval/loss", "eval_loss")):
        logged = [(e["step"], pytest.approx(e[name])) for e in history if name in e]
        assert points(directory, tag) == logged
        assert len(logged) == {"loss": 24, "eval_loss": 6}[name]
    assert len(texts(directory, "args")) == 1
    assert hparams(directory, "session_end_info").session_end_info.status == STATUS_SUCCESS
    assert len(list((tmp_path / "tracking").iterdir())) == 1


@pytest.mark.parametrize("purging", [True, False])
@pytest.mark.parametrize(
    "make_writer", [SummaryWriter, tensorboardX.SummaryWriter], ids=["torch", "tensorboardX"]
)
def test_a_resumed_training_continues_in_the_users_writer(
    tmp_path: Path, make_writer: Any, purging: bool
) -> None:
    state = None
    for steps in ((1, 2, 3), (3, 4)):  # the checkpoint is from step 2
        purge_step = steps[0] if purging else None
        suffix = f".{steps[0]}"  # two tensorboardX writers of the same second would share a file
        writer = make_writer(str(tmp_path / "mine"), purge_step=purge_step, filename_suffix=suffix)
        callback = TensorBoardCallback(writer)
        if state is not None:
            callback.load_state_dict(state)
        run = Run(callback, tmp_path)
        run.begin(steps[0] - 1)
        for step in steps:
            run.log(step, loss=1 / step)
            if step == 2:
                run.handler.on_save(run.args, run.state, run.control)
                state = callback.state_dict()
        run.end(KeyboardInterrupt())
        writer.close()
    thirds = pytest.approx(1 / 3)
    assert points(tmp_path / "mine", "train/loss") == [(1, 1), (2, 0.5), (3, thirds), (4, 0.25)]
    tags = [tag for tag, _ in shown(tmp_path / "mine") if tag == "train/loss"]
    assert len(tags) == 4


def opening(output_dir: Path, run_id: str | None = None, rewind_to: int | None = None) -> Opening:
    return Opening(None, output_dir, output_dir / "own", run_id, rewind_to=rewind_to)


def test_rewound_points_are_forgotten_and_files_keep_their_order(tmp_path: Path) -> None:
    tracker, run_id = TensorBoardTracker(), None
    for attempt in range(12):  # several in the same second, the resolution of the file names
        run_id = tracker.open(opening(tmp_path, run_id, attempt or None))
        tracker.log_metrics(
            [Point("train/loss", attempt, step, 1e9 + step) for step in range(attempt, 20)]
        )
        tracker.close(None)
    expected = [(step, min(step, 11)) for step in range(20)]
    assert points(tmp_path / str(run_id), "train/loss") == expected
    assert sorted(shown(tmp_path / str(run_id))) == [("train/loss", step) for step in range(20)]


def test_a_run_is_found_again_after_its_output_directory_was_moved(tmp_path: Path) -> None:
    tracker = TensorBoardTracker()
    run_id = tracker.open(opening(tmp_path / "here"))
    tracker.log_metrics([Point("train/loss", 0.5, 1, 1e9)])
    tracker.close("failed")
    shutil.move(tmp_path / "here", tmp_path / "there")
    tracker.open(opening(tmp_path / "there", run_id))
    tracker.log_metrics([Point("train/loss", 0.25, 2, 1e9)])
    tracker.close("finished")
    assert points(the_run(tmp_path / "there"), "train/loss") == [(1, 0.5), (2, 0.25)]
    assert not (tmp_path / "here").exists()


def test_changed_parameters_replace_those_of_the_hparams_tab(tmp_path: Path) -> None:
    tracker, run_id = TensorBoardTracker(), None
    for rate in (0.5, 0.25):
        run_id = tracker.open(opening(tmp_path, run_id))
        tracker.log_parameters({"args": {"rate": rate}, "model_config": {}})
        tracker.close("finished")
    directory = tmp_path / str(run_id)
    found = hparams(directory, "session_start_info").session_start_info.hparams
    assert found["rate"].number_value == 0.25
    assert len(texts(directory, "args")) == 2


def test_a_run_of_another_tracker_is_replayed_with_its_own_times(
    tmp_path: Path,
) -> None:
    class Other(TensorBoardTracker):
        name = "other"

    run = Run(TrackerCallback(Other(), delivery="inline"), tmp_path)
    run.begin()
    before = time.time()
    run.log(1, loss=0.5, note="hello")
    after = time.time()
    run.end()
    shutil.rmtree(tmp_path / "runs")
    time.sleep(0.2)
    assert replay(tmp_path, "--to", "tensorboard").returncode == 0
    directory = the_run(tmp_path)
    [event] = read(directory).Scalars("train/loss")
    assert (event.step, event.value) == (1, 0.5)
    assert before - 0.01 <= event.wall_time <= after + 0.01
    assert texts(directory, "train/note") == ["hello"]
    assert '"learning_rate": 0.1' in texts(directory, "args")[0]


FULL_DISK = """
import logging, resource, sys
from pathlib import Path
from callback_contract.testing import wait_until
from callback_tensorboard import TensorBoardCallback
from tensorboard_for_tests import Run
logging.basicConfig(format="%(message)s")
warnings = []
logger = logging.getLogger("callback_core.tracking.delivery.base")
logger.addFilter(lambda record: warnings.append(record) or True)
run = Run(TensorBoardCallback(flush_limit=1), Path(sys.argv[1]))
run.begin()
# The event file reaches the limit first, because it has the most bytes.
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
for step in range(1, 9):
    run.log(step, **{f"a{number}": step for number in range(200)})
wait_until(lambda: warnings)
run.end()
"""


def test_a_full_disk_is_reported_and_a_replay_writes_the_rest_once(
    tmp_path: Path,
) -> None:
    output = in_a_process(FULL_DISK, tmp_path)
    assert "tensorboard" in output
    assert "File too large" in output
    assert "python -m callback_core.tracking.replay" in output
    assert replay(tmp_path).returncode == 0
    directory = the_run(tmp_path)
    for number in (0, 199):
        expected = [(step, step) for step in range(1, 9)]
        assert points(directory, f"train/a{number}") == expected


GROWING_DISK = """
import resource, sys
from pathlib import Path
from callback_contract.testing import replay, run_python
from callback_core.tracking import Opening, Point, TrackerCallback
from callback_tensorboard import TensorBoardTracker
tracker = TensorBoardTracker()
output_dir = Path(sys.argv[1])
tracker.open(Opening(None, output_dir, output_dir / "own"))
limit = resource.RLIM_INFINITY
for step in range(1, 4):
    points = [Point(f"train/a{number}", step, step, 1e9) for number in range(200)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000 if step == 2 else limit, limit))
    try:
        tracker.log_metrics(points)
    except OSError:
        print("full at", step)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        tracker.log_metrics(points)
tracker.close("finished")
"""


def test_writing_continues_in_the_same_file_when_there_is_space(tmp_path: Path) -> None:
    assert in_a_process(GROWING_DISK, tmp_path) == "full at 2\n"
    directory = the_run(tmp_path)
    assert points(directory, "train/a0") == points(directory, "train/a199")
    assert points(directory, "train/a0") == [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize("steps", [(), (1, 3)], ids=["before training", "after training"])
def test_evaluations_outside_a_training_keep_the_points_of_the_run(
    tmp_path: Path, steps: tuple[int, ...]
) -> None:
    callback = TensorBoardCallback(delivery="inline")
    run = Run(callback, tmp_path)
    if steps:
        run.begin()
        for step in steps:
            run.log(step, loss=0.5)
        run.end()
    else:
        run.state.max_steps = 0
    last = max(steps, default=0)
    for name in ("eval_loss", "test_loss"):
        run.log(last, **{name: 0.25})
        callback.session.close("finished")
    directory = the_run(tmp_path)
    assert points(directory, "eval/loss") == points(directory, "test/loss") == [(last, 0.25)]
    kept = [(tag, step) for tag, step in shown(directory) if tag == "train/loss"]
    assert kept == [("train/loss", step) for step in steps]
    assert len(texts(directory, "args")) == 1


def test_a_run_that_is_written_later_has_the_times_of_its_training(tmp_path: Path) -> None:
    tracker = TensorBoardTracker()
    tracker.open(Opening(name=None, output_dir=tmp_path, folder=tmp_path / "t", time=100.0))
    tracker.log_parameters({"args": {"learning_rate": 0.1}, "model_config": {}})
    tracker.ended_at = 160.0
    tracker.close("finished")
    directory = the_run(tmp_path)
    assert hparams(directory, "session_start_info").session_start_info.start_time_secs == 100.0
    assert hparams(directory, "session_end_info").session_end_info.end_time_secs == 160.0
