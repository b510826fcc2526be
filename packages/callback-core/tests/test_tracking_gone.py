"""A run that is gone from its store, and a store that refuses to open one."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from run_for_tests import Run
from tracking_for_tests import (
    FileTracker,
    Training,
    calls,
    curve,
    eventually,
    expected,
    hangs,
    replay,
    runs,
    statuses,
    stored,
    tracked,
    warned,
)

from callback_core import TrainerState
from callback_core.tracking import Opening, Point, Rejected, RunNotFound
from callback_core.tracking.run_folder import RunFolder


class LostTracker(FileTracker):
    """Its store has lost the runs that were opened before the file `<path>.lost` was written."""

    @property
    def lost(self) -> list[str]:
        file = Path(f"{self.path}.lost")
        return file.read_text("utf-8").split() if file.exists() else []

    def open(self, opening: Opening) -> str:
        if opening.run_id in self.lost:
            raise RunNotFound(f"the run {opening.run_id} is not there")
        return super().open(opening)

    def log_metrics(self, points: Any) -> None:
        if self.run in self.lost:
            raise RunNotFound(f"the run {self.run} is not there")
        super().log_metrics(points)


def lose(out: Path) -> None:
    """Lose all runs that are there."""
    Path(f"{out}.lost").write_text(" ".join(runs(out)), "utf-8")


def interrupted(output_dir: Path, out: Path, **options: Any) -> dict[str, Any]:
    """Train two steps, save, train a third, and return the state at the checkpoint."""
    tracker = tracked(out, LostTracker, **options)
    training = Training(output_dir, [tracker])
    training.begin()
    for _ in range(2):
        training.step()
    assert eventually(lambda: tracker.run_id)
    state = tracker.state_dict()
    training.save()
    training.step()
    training.end(RuntimeError("killed"))
    return state


@pytest.mark.parametrize("delivery", ["thread", "inline", "process"])
@pytest.mark.parametrize("rewinds", [False, True])
def test_a_resumed_training_whose_run_is_gone_delivers_everything_to_a_new_one(
    tmp_path: Path, out: Path, delivery: str, rewinds: bool
) -> None:
    state = interrupted(tmp_path, out, rewinds=rewinds)
    lose(out)
    again = tracked(out, LostTracker, delivery=delivery, rewinds=rewinds)
    again.load_state_dict(state)
    Training(tmp_path, [again], TrainerState(max_steps=9, global_step=2)).train(2)
    assert len(runs(out)) == 2
    assert again.run_id == calls(out, "open")[-1]["run"]
    has = [(step, value) for name, step, value in stored(out) if name == "train/loss"]
    assert has == expected(1, 2, 3, 4)
    assert len(calls(out, "log_parameters")) == 2
    assert statuses(out) == ["failed", "finished"]


def test_a_new_run_for_one_that_is_gone_is_warned_of_once_and_names_it(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = interrupted(tmp_path, out)
    lose(out)
    again = tracked(out, LostTracker)
    again.load_state_dict(state)
    Training(tmp_path, [again], TrainerState(max_steps=9, global_step=2)).train(2)
    [line] = warned(caplog)
    assert str(state["run_id"]) in line


def test_a_run_that_is_lost_while_it_is_open_is_replaced(tmp_path: Path, out: Path) -> None:
    tracker = tracked(out, LostTracker)
    training = Training(tmp_path, [tracker])
    training.begin()
    training.step()
    assert eventually(lambda: curve(out))
    lose(out)
    training.step()
    training.end()
    has = [(step, value) for name, step, value in stored(out) if name == "train/loss"]
    assert has == expected(1, 2)
    assert len(runs(out)) == 2


def test_an_older_checkpoint_finds_the_run_that_took_the_place_of_a_lost_one(
    tmp_path: Path, out: Path
) -> None:
    state = interrupted(tmp_path, out)
    lose(out)
    for _ in range(2):
        again = tracked(out, LostTracker)
        again.load_state_dict(state)
        Training(tmp_path, [again], TrainerState(max_steps=9, global_step=2)).train(2)
    assert len(runs(out)) == 2


def test_a_tracker_notes_nothing_of_a_lost_run_for_the_new_one(tmp_path: Path, out: Path) -> None:
    interrupted(tmp_path, out)
    lose(out)
    training = Training(tmp_path, [tracked(out, LostTracker)])
    training.state = TrainerState(max_steps=9, global_step=2)
    training.train(1)
    first, second = calls(out, "open")
    assert first["folder"] != second["folder"]


def test_a_tracker_notes_about_each_run_in_a_folder_of_its_own(run: Run) -> None:
    for step in (1, 2, 3):
        run.log(step, a=step)
        run.deliver(kind=LostTracker)
        lose(run.out)
    folders = [Path(call["folder"]).name for call in calls(run.out, "open")]
    assert folders == ["file", "file.2", "file.3"]


def test_an_evaluation_after_the_training_finds_its_run_gone_and_opens_a_new_one(
    tmp_path: Path, out: Path
) -> None:
    training = Training(tmp_path, [tracked(out, LostTracker)]).train(2)
    lose(out)
    training.log(eval_loss=0.5)
    assert eventually(lambda: ("eval/loss", 2, 0.5) in stored(out))
    assert eventually(lambda: calls(out)[-1]["call"] == "close")
    assert ("train/loss", 1, 0.5) in stored(out)
    assert {*statuses(out)} == {"finished"}
    assert len(runs(out)) == 2


def test_the_replay_of_a_training_that_finished_finishes_its_new_run(
    tmp_path: Path, out: Path
) -> None:
    """The tracker had everything, and a later evaluation never reached it."""
    training = Training(tmp_path, [tracked(out, LostTracker, flush_limit=0.1)]).train(2)
    lose(out)
    [folder] = RunFolder.all(tmp_path)
    folder.write_progress("file", {**folder.read_progress("file"), "status": None})
    assert replay(tmp_path).returncode == 0
    has = [(step, value) for name, step, value in stored(out) if name == "train/loss"]
    assert statuses(out)[-1] == "finished"
    assert (has or curve(out)) == expected(1, 2)
    del training


def test_a_replay_can_always_make_a_new_run(tmp_path: Path, out: Path) -> None:
    Training(tmp_path, [tracked(out)]).train(2)
    assert replay(tmp_path, "--new-run").returncode == 0
    assert len(runs(out)) == 2
    assert curve(out) == expected(1, 2, 1, 2)
    assert statuses(out) == ["finished", "finished"]


def test_a_replay_closes_a_training_with_a_later_log_as_the_training_ended(run: Run) -> None:
    run.log(1, a=1)
    run.end()
    run.log(1, eval_a=2)
    consumer = run.consumer()
    consumer.training_ended()
    consumer.deliver()
    assert {*statuses(run.out)} == {"finished"}


def test_a_training_that_finished_and_was_killed_after_a_resume_is_closed_as_failed(
    run: Run,
) -> None:
    run.log(1, a=1)
    run.end()
    run.begin(1)
    run.log(2, a=2)
    consumer = run.consumer()
    consumer.training_ended()
    consumer.deliver()
    assert statuses(run.out) == ["finished", "failed"]


class Refusing(FileTracker):
    """Its store denies access."""

    def open(self, opening: Opening) -> str:
        self._write("open")
        raise Rejected("the key k-1 may not write to this project")


@pytest.mark.parametrize("delivery", ["thread", "inline", "process"])
def test_a_refusal_of_the_opening_is_final_and_its_cause_is_named(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture, delivery: str
) -> None:
    training = Training(tmp_path, [tracked(out, Refusing, delivery=delivery)])
    training.train(3)  # whose end does not wait for the limit
    training.log(eval_loss=0.5)
    assert len(calls(out, "open")) == 1
    assert any("k-1" in line for line in warned(caplog))
    assert str(tmp_path) in warned(caplog)[-1]
    [folder] = RunFolder.all(tmp_path)
    assert folder.is_pending()


def test_a_refusal_is_reported_while_the_training_runs(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = Training(tmp_path, [tracked(out, Refusing)])
    training.begin()
    assert eventually(lambda: any("k-1" in line for line in warned(caplog)))
    training.end()


def test_a_replay_of_a_refused_run_ends_at_once_and_says_why(tmp_path: Path, out: Path) -> None:
    Training(tmp_path, [tracked(out, Refusing)]).train(1)
    done = replay(tmp_path)
    assert done.returncode == 1
    assert "k-1" in done.stdout


@pytest.mark.parametrize(
    "warning",
    [
        ("Retrying %r: %r", 1, ConnectionRefusedError("refused by port 7")),
        ("refused by port %d", 7),
    ],
)
def test_why_a_call_that_repeats_a_request_does_not_return_is_named(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture, warning: tuple[Any, ...]
) -> None:
    """An error among the arguments says it best. What else is logged meanwhile is not the cause."""
    name = "urllib3.connectionpool"
    caplog.set_level(logging.DEBUG, name)

    class Retrying(FileTracker):
        """Repeats a request, and has urllib3 warn of it, as SDKs do."""

        def open(self, opening: Opening) -> str:
            retries = logging.getLogger(name)
            retries.warning(*warning)
            retries.debug("connecting to port 9")
            return super().open(opening)

    training = Training(tmp_path, [tracked(out, Retrying, hang="open", flush_limit=1.2)])
    training.begin()
    assert eventually(hangs(out).exists)
    logging.getLogger(name).warning("refused by port 8")
    other = Thread(target=logging.getLogger(name).warning, args=("refused by port 8",))
    other.start()
    other.join()
    training.end()
    [line] = [line for line in warned(caplog) if "port" in line]
    assert "refused by port 7" in line
    assert not any(other in line for other in ("Retrying", "port 8", "port 9"))


def test_the_address_of_a_run_is_known_and_printed_once(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = tracked(out, WithPage)
    training = Training(tmp_path, [tracker])
    assert (tracker.run_id, tracker.run_url) == (None, None)
    training.train(2)
    assert tracker.run_url == f"https://runs.example/{tracker.run_id}"
    training.log(eval_loss=0.5)
    assert eventually(lambda: len(statuses(out)) == 2)
    assert capsys.readouterr().err.count(tracker.run_url) == 1


class WithPage(FileTracker):
    """Its runs have a page."""

    def open(self, opening: Opening) -> str:
        run = super().open(opening)
        self.run_url = f"https://runs.example/{run}"
        return run


def test_the_address_of_a_run_in_another_process_is_known_and_printed_here(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = tracked(out, WithPage, delivery="process")
    Training(tmp_path, [tracker]).train(1)
    assert tracker.run_url == f"https://runs.example/{tracker.run_id}"
    assert capsys.readouterr().err.count(tracker.run_url) == 1


class Ending(FileTracker):
    """Writes when the training ended."""

    def close(self, status: Any) -> None:
        self._write("close", status=status, ended_at=self.ended_at)


@pytest.mark.parametrize("ended", [True, False])
def test_a_tracker_that_gets_a_run_later_knows_when_its_training_began_and_ended(
    run: Run, ended: bool
) -> None:
    """What is logged after the end does not count, and without an end the last record does."""
    run.log(7, a=1)
    if ended:
        run.write("end", 8, status="finished")
        run.log(9, eval_a=1)
    consumer = run.consumer(Ending)
    consumer.training_ended()
    consumer.deliver()
    assert next(call["time"] for call in calls(run.out, "open")) == 0.0
    assert {call["ended_at"] for call in calls(run.out, "close")} == {8.0 if ended else 7.0}


def test_points_of_a_lost_run_keep_their_times(run: Run) -> None:
    run.log(1, a=1)
    run.deliver(kind=LostTracker)
    lose(run.out)
    run.end()
    run.deliver(kind=LostTracker)
    times = [Point(*point).time for call in calls(run.out) for point in call["points"]]
    assert times == [1.0, 1.0]


class Named(FileTracker):
    """A setting may name its run, which its store does not have."""

    named_by = ("adopts",)

    def adopt(self) -> None:
        pass

    def open(self, opening: Opening) -> str:
        if self.adopts is not None:
            raise Rejected(f"the run {self.adopts} is not there")
        return super().open(opening)


def test_a_replay_makes_a_new_run_even_if_a_setting_names_one(tmp_path: Path, out: Path) -> None:
    Training(tmp_path, [tracked(out, Named, adopts="wrong")]).train(2)
    assert replay(tmp_path).returncode == 1
    assert replay(tmp_path, "--new-run").returncode == 0
    assert curve(out) == expected(1, 2)
    assert statuses(out) == ["finished"]
