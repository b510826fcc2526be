"""Traces of some steps: where they are, what they hold, and what remains of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small import trainer

from callback_core import TrainerCallback
from callback_core.tracking import Tracker, TrackerCallback, Upload
from trainer_torch import ProfilerCallback
from trainer_torch.testing import At


class Kept(Tracker):
    """Keeps the names of the files that it gets."""

    name = "kept"

    def __init__(self) -> None:
        self.files: list[list[str]] = []

    def open(self, opening: Any) -> str:
        return "run"

    def log_parameters(self, parameters: Any) -> None: ...

    def log_metrics(self, points: Any) -> None: ...

    def log_text(self, points: Any) -> None: ...

    def log_files(self, upload: Upload) -> None:
        self.files.append(sorted(path.name for path in upload.path.iterdir()))

    def close(self, status: Any) -> None: ...


def events(trace: Path) -> list[dict[str, Any]]:
    """Return the events of a trace as Perfetto reads them."""
    found = json.loads(trace.read_text())["traceEvents"]
    assert all("ph" in event for event in found)
    return [event for event in found if event["ph"] == "X"]


def steps_in(trace: Path) -> int:
    """Return how often the optimizer has stepped in a trace."""
    return sum(event["name"].startswith("Optimizer.step#") for event in events(trace))


def test_the_steps_of_a_cycle_are_in_its_trace(tmp_path: Path) -> None:
    profile = ProfilerCallback(wait=2, warmup=1, active=3)
    trainer(tmp_path, profile).train()
    [trace] = profile.traces
    assert trace == tmp_path / "profile" / "steps-4-6-rank0.json"
    assert steps_in(trace) == 3
    assert any(event["name"] == "aten::addmm" for event in events(trace))
    assert all(event["dur"] >= 0 for event in events(trace))


@pytest.mark.parametrize(("repeat", "spans"), [(1, ["2-3"]), (2, ["2-3", "5-6"]), (0, None)])
def test_cycles_repeat(tmp_path: Path, repeat: int, spans: Any) -> None:
    profile = ProfilerCallback(wait=1, warmup=0, active=2, repeat=repeat)
    trainer(tmp_path, profile).train()
    expected = spans or ["2-3", "5-6", "8-9"]
    assert [path.name for path in profile.traces] == [f"steps-{one}-rank0.json" for one in expected]
    assert all(steps_in(path) == 2 for path in profile.traces)


def test_a_training_that_ends_within_a_cycle_leaves_its_steps(tmp_path: Path) -> None:
    profile = ProfilerCallback(wait=1, warmup=1, active=50)
    trainer(tmp_path, profile, max_steps=4).train()
    assert [path.name for path in profile.traces] == ["steps-3-4-rank0.json"]


@pytest.mark.parametrize("step", [2, 3, 4])
def test_a_training_that_fails_leaves_nothing(tmp_path: Path, step: int) -> None:
    def fail() -> None:
        raise OSError("gone")

    profile = ProfilerCallback(wait=1, warmup=1, active=5)
    trained = trainer(tmp_path, profile, At(step, fail))
    with pytest.raises(OSError, match="gone"):
        trained.train()
    assert not (tmp_path / "profile").exists()
    assert profile.traces == []
    with torch.profiler.profile() as own:  # torch refuses a second one
        torch.ones(2) + 1
    assert own.key_averages()


def test_a_second_training_is_recorded_again(tmp_path: Path) -> None:
    profile = ProfilerCallback(wait=1, warmup=0, active=1)
    trained = trainer(tmp_path, profile)
    trained.train()
    profile.traces[0].unlink()
    trained.train()
    assert profile.traces[0].exists()


def test_a_training_too_short_to_record_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer(tmp_path, ProfilerCallback(wait=20)).train()
    assert sum("ProfilerCallback" in one.getMessage() for one in caplog.records) == 1


@pytest.mark.parametrize("active", [2, 50])
def test_trackers_that_keep_files_get_the_trace(tmp_path: Path, active: int) -> None:
    kept = Kept()
    profile = ProfilerCallback(wait=1, warmup=0, active=active)
    trainer(tmp_path, TrackerCallback(kept, delivery="inline"), profile).train()
    [trace] = profile.traces
    assert kept.files == [[trace.name]]


def test_the_options_are_those_of_torch(tmp_path: Path) -> None:
    profile = ProfilerCallback(wait=0, warmup=0, active=1, record_shapes=True)
    trainer(tmp_path, profile).train()
    found = events(profile.traces[0])
    assert any("Input Dims" in event.get("args", {}) for event in found)
    with pytest.raises(TypeError, match="schedule"):
        ProfilerCallback(schedule=None)
    with pytest.raises(ValueError, match="active"):
        ProfilerCallback(active=0)


def test_other_processes_record_only_if_asked(tmp_path: Path) -> None:
    class NotMain(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            state.is_world_process_zero = False

    profile = ProfilerCallback(wait=0, warmup=0, active=1)
    trainer(tmp_path, NotMain(), profile).train()
    assert profile.traces == []
    profile = ProfilerCallback(wait=0, warmup=0, active=1, all_ranks=True)
    trainer(tmp_path, NotMain(), profile).train()
    assert len(profile.traces) == 1


def test_a_profiler_of_the_program_is_let_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    profile = ProfilerCallback(wait=0, warmup=0, active=1)
    with torch.profiler.profile() as own:
        trainer(tmp_path, profile).train()
    assert profile.traces == []
    assert any(event.key == "aten::addmm" for event in own.key_averages())
    assert any("profiler" in one.getMessage() for one in caplog.records)
