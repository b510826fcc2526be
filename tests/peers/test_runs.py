"""Which run a training of either trainer has: evaluations before and after it, and branches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from line_tracker import LineTracker
from small_training import TRAINERS, build

from callback_core.tracking import Opening, RunNotFound, TrackerCallback


class Runs(LineTracker):
    """Gives each new run an id of its own. It does not have the runs in the file `<path>.lost`."""

    def open(self, opening: Opening) -> str:
        lost = Path(f"{self.path}.lost")
        if lost.exists() and opening.run_id in lost.read_text("utf-8").split():
            raise RunNotFound(f"{opening.run_id} is not there")
        self.run = opening.run_id or opening.training
        self._write(called="open", run_id=self.run, step=opening.step)
        return self.run


def tracked(out: Path) -> TrackerCallback:
    return TrackerCallback(Runs(str(out)), delivery="inline", flush_limit=300)


def calls(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text("utf-8").splitlines()]


def points(out: Path) -> dict[str, list[tuple[str, int]]]:
    """Return names and steps of the points of each run."""
    found: dict[str, list[tuple[str, int]]] = {}
    run = ""
    for call in calls(out):
        if call["called"] == "open":
            run = call["run_id"]
        elif call["called"] == "point":
            found.setdefault(run, []).append((call["name"], call["step"]))
    return found


@pytest.fixture(params=[*TRAINERS])
def trainer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_evaluations_and_predictions_around_a_training_are_in_its_run(
    tmp_path: Path, trainer: str
) -> None:
    out = tmp_path / "lines.jsonl"
    callback = tracked(out)
    made = build(trainer, tmp_path / "out", callback)
    made.evaluate()
    made.train()
    made.evaluate(metric_key_prefix="eval_late")
    made.predict(made.eval_dataset)
    [(run, found)] = points(out).items()
    assert run == callback.run_id
    assert ("eval/loss", 0) in found
    assert ("train/loss", 10) in found
    assert ("eval/late_loss", 10) in found
    assert ("test/loss", 10) in found
    assert calls(out)[-1] == {"called": "close", "status": "finished"}


def test_a_training_that_branches_off_another_checkpoint_is_a_run_of_its_own(
    tmp_path: Path, trainer: str
) -> None:
    out = tmp_path / "lines.jsonl"
    saves = {"save_strategy": "steps", "save_steps": 4}
    build(trainer, tmp_path / "a", tracked(out), **saves).train()
    branch = build(trainer, tmp_path / "b", tracked(out), **saves)
    branch.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-4"))
    first, second = points(out).values()
    assert [step for name, step in first if name == "train/loss"] == [*range(1, 11)]
    assert [step for name, step in second if name == "train/loss"] == [*range(5, 11)]


def test_a_resumed_training_whose_run_is_gone_has_everything_in_a_new_one(
    tmp_path: Path, trainer: str
) -> None:
    out = tmp_path / "lines.jsonl"
    saves = {"save_strategy": "steps", "save_steps": 4}
    build(trainer, tmp_path / "a", tracked(out), **saves).train()
    Path(f"{out}.lost").write_text(" ".join(points(out)), "utf-8")
    made = build(trainer, tmp_path / "a", tracked(out), **saves)
    made.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-4"))
    _, found = points(out).values()
    assert [step for name, step in found if name == "train/loss"] == [*range(1, 11)]
