"""Our trackers in transformers' trainer, which fires no event for errors and keeps no states."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import line_tracker
import pytest
import transformers
from small_training import build

from callback_contract.testing import PreparedPython, environment
from callback_core.tracking import TrackerCallback


@pytest.fixture(scope="module")
def prepared() -> Iterator[PreparedPython]:
    """Return what trains in a process of its own, with transformers imported."""
    with PreparedPython(["transformers.trainer"], environment()) as running:
        yield running


def train(prepared: PreparedPython, output_dir: Path, how: str) -> tuple[int, list[dict[str, Any]]]:
    """Train in a process of its own; return its exit code and all calls of the tracker so far."""
    done = prepared.run(line_tracker.__file__, str(output_dir), how)
    lines = (output_dir / "lines.jsonl").read_text("utf-8").splitlines()
    return done.returncode, [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("how", "status"),
    [("finish", "finished"), ("raise", "failed"), ("interrupt", "interrupted")],
)
def test_a_run_is_closed_with_the_status_of_the_training(
    prepared: PreparedPython, tmp_path: Path, how: str, status: str
) -> None:
    code, calls = train(prepared, tmp_path, how)
    assert (code == 0) == (how == "finish")
    assert calls[-1] == {"called": "close", "status": status}


def test_a_resumed_training_continues_its_run_with_each_point_once(
    prepared: PreparedPython, tmp_path: Path
) -> None:
    train(prepared, tmp_path, "raise")
    code, calls = train(prepared, tmp_path, "resume")
    assert code == 0
    opened = [call for call in calls if call["called"] == "open"]
    assert [call["run_id"] for call in opened] == [None, "a-new-run"]
    points = Counter((call["name"], call["step"]) for call in calls if call["called"] == "point")
    assert {step for name, step in points if name == "train/loss"} == set(range(1, 11))
    assert set(points.values()) == {1}
    assert calls[-1]["status"] == "finished"


class SharedTracker(line_tracker.LineTracker):
    """A tracker whose SDK the program has imported."""

    sdk = "json"


class Looks(transformers.TrainerCallback):
    """Notes what the tracker was told by the first step, and logs a dict."""

    def __init__(self, lines: Path) -> None:
        self.lines, self.seen, self.trainer = lines, "", None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:
            self.seen = self.lines.read_text("utf-8")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            trainer: Any = self.trainer
            trainer.log({"eval_f1": {"cat": 0.5, "dog": 1.0}})


def test_the_run_is_open_at_the_first_step_and_the_entries_of_a_dict_are_points(
    tmp_path: Path,
) -> None:
    lines = tmp_path / "lines.jsonl"
    looks = Looks(lines)
    looks.trainer = build(
        "transformers", tmp_path, TrackerCallback(SharedTracker(str(lines))), looks
    )
    looks.trainer.train()
    assert json.loads(looks.seen.splitlines()[0])["called"] == "open"
    calls = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    found = {call["name"]: call["value"] for call in calls if call["called"] == "point"}
    assert (found["eval/f1/cat"], found["eval/f1/dog"]) == (0.5, 1.0)
