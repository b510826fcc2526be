"""Delivering from the command line what trackers have not got."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_for_tests import Run
from tracking_for_tests import (
    PATIENCE,
    FileTracker,
    calls,
    curve,
    environment,
    eventually,
    hangs,
    names_of_calls,
    points,
    replay,
    runs,
    statuses,
)

from callback_core.tracking.replay import main
from callback_core.tracking.run_folder import RunFolder

Command = Callable[..., tuple[int, str]]

LOSSES = [(step, step / 8) for step in (1, 2, 3)]


@pytest.fixture
def command(run: Run, capsys: pytest.CaptureFixture[str]) -> Command:
    """Call the command for the directory of `run`; return its exit code and what it printed."""

    def call(*arguments: str) -> tuple[int, str]:
        code = main([str(run.folder.output_dir), *arguments])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call


def made_by(run: Run, name: str = "file", **options: Any) -> None:
    """Have it noted how the command makes a tracker."""
    settings = FileTracker(str(run.out), **options).settings()
    run.folder.write_tracker(
        name, {"made_by": "tracking_for_tests:FileTracker", "settings": settings}
    )


@pytest.fixture
def pending(run: Run) -> Run:
    """A run that its tracker has nothing of, and could have."""
    for step, loss in LOSSES:
        run.log(step, loss=loss)
    run.end()
    made_by(run)
    return run


def test_what_is_pending_is_delivered_once_and_counted(pending: Run) -> None:
    """As a user calls it, with no terminal, so that there is no bar."""
    done = replay(pending.folder.output_dir)
    assert (done.returncode, done.stderr) == (0, "")
    [line] = done.stdout.splitlines()
    assert all(fact in line for fact in ("run", "file", "3 points", "finished"))
    assert curve(pending.out) == LOSSES
    assert statuses(pending.out) == ["finished"]


def test_called_once_more_it_calls_no_tracker(pending: Run, command: Command) -> None:
    command()
    before = calls(pending.out)
    code, text = command()
    assert (code, calls(pending.out)) == (0, before)
    assert len(text.splitlines()) == 1


def test_a_service_that_is_still_away_is_named_and_all_stays_pending(
    pending: Run, command: Command
) -> None:
    made_by(pending, fail="open", until=str(pending.up))
    code, text = command("--patience", "0.5")
    assert code == 1
    assert "ConnectionError: open fails" in text
    assert "3 points" in text
    pending.up.touch()
    assert command()[0] == 0
    assert curve(pending.out) == LOSSES


def test_a_call_that_hangs_is_given_up_after_the_patience_and_named(
    pending: Run, command: Command
) -> None:
    made_by(pending, hang="log_metrics")
    code, text = command("--patience", "0.5")
    assert code == 1
    assert "log_metrics" in text


def test_a_slow_delivery_is_waited_for_as_long_as_it_comes_on(
    pending: Run, command: Command
) -> None:
    made_by(pending, delay=0.1, limits={"batch_size": 1})
    assert command()[0] == 0
    assert curve(pending.out) == LOSSES


def test_a_tracker_that_is_not_configured_is_not_waited_for(pending: Run, command: Command) -> None:
    made_by(pending, fail="open", error="NotConfigured")
    code, text = command("--patience", "1e6")  # which would hang
    assert code == 1
    assert "NotConfigured: open fails" in text


def test_what_is_cut_or_left_out_is_listed_and_counts_as_delivered(
    run: Run, command: Command
) -> None:
    run.begin(0, long="123456789")
    run.log(1, text="x", loss=1.0)
    run.end()
    made_by(run, limits={"parameter_length": 4})
    code, text = command()
    first, *listed = text.splitlines()
    assert code == 0
    assert "2 names" in first
    assert sorted(line.split(":")[0].strip() for line in listed) == ["long", "text"]


def test_a_training_that_was_killed_is_delivered_and_closed_as_failed(
    run: Run, command: Command
) -> None:
    run.log(1, loss=0.5)
    made_by(run)
    with run.folder.journal.open("ab") as file:
        file.write(b'{"kind":"lo')
    assert command()[0] == 0
    assert curve(run.out) == [(1, 0.5)]
    assert statuses(run.out) == ["failed"]
    before = calls(run.out)
    assert (command()[0], calls(run.out)) == (0, before)


@pytest.mark.parametrize("fail", [None, "log_files"])
def test_a_run_of_which_all_was_sent_but_a_checkpoint_and_the_end_goes_on_and_is_closed(
    run: Run, command: Command, fail: str | None
) -> None:
    run.log(1, loss=0.5)
    run.save(1, "file")
    try:
        run.deliver(fail=fail, checkpoints=True)
    except ConnectionError:
        assert fail is not None
    made_by(run, checkpoints=True)
    assert command()[0] == 0
    assert curve(run.out) == [(1, 0.5)]
    assert len(calls(run.out, "log_files")) == 1
    assert len(runs(run.out)) == 1
    assert statuses(run.out) == ["failed"]


def test_a_run_of_which_only_the_end_was_not_sent_is_closed_as_it_ended(
    pending: Run, command: Command
) -> None:
    with pytest.raises(ConnectionError):
        pending.deliver(fail="close")
    made_by(pending)
    assert command()[0] == 0
    assert curve(pending.out) == LOSSES
    assert statuses(pending.out) == ["finished"]


def test_a_run_is_pending_until_a_tracker_has_also_what_was_logged_after_its_end(run: Run) -> None:
    run.log(1, loss=0.5)
    run.end()
    run.deliver()
    assert not run.folder.is_pending()
    run.log(1, eval_loss=0.25)
    assert run.folder.is_pending()
    consumer = run.consumer()
    consumer.training_ended()
    consumer.deliver()
    assert not run.folder.is_pending()


def test_a_training_that_goes_on_delivers_by_itself(pending: Run, command: Command) -> None:
    with pending.recorded():
        code, text = command()
    assert code == 1
    assert "run" in text
    assert calls(pending.out) == []


def test_a_delivery_that_breaks_off_goes_on_where_it_came_to(
    pending: Run, command: Command
) -> None:
    pending.log(4, stuck=1)
    pending.end()
    made_by(pending, fail="log_metrics", point="train/stuck", limits={"batch_size": 1})
    code, _ = command("--patience", "0.5")
    assert code == 1
    assert len(points(pending.out)) == 3
    made_by(pending)
    assert command()[0] == 0
    assert curve(pending.out) == LOSSES
    assert curve(pending.out, "train/stuck") == [(4, 1)]
    assert len(runs(pending.out)) == 1
    assert names_of_calls(pending.out).count("log_parameters") == 1


def test_interrupted_by_hand_it_ends_with_130_and_can_be_called_again(
    pending: Run, command: Command
) -> None:
    made_by(pending, hang="log_metrics")
    by_hand = (
        "import runpy, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which jobs ignore
        "runpy.run_module('callback_core.tracking.replay', run_name='__main__')\n"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", by_hand, str(pending.folder.output_dir)],
        env=environment(),
        stderr=subprocess.DEVNULL,
    )
    try:
        assert eventually(hangs(pending.out).exists)
        running.send_signal(signal.SIGINT)
        assert running.wait(PATIENCE) == 130
    finally:
        running.kill()
        running.wait()
    made_by(pending)
    assert command()[0] == 0
    assert curve(pending.out) == LOSSES


def another_run(run: Run, name: str) -> Run:
    """Return another run in the same directory, that is pending for a tracker of this name."""
    other = object.__new__(Run)
    other.folder = RunFolder.of(run.folder.output_dir, name)
    other.folder.path.mkdir()
    other.out = run.out.with_name(f"{name}.jsonl")
    other.begin()
    other.log(1, loss=0.5)
    other.end()
    made_by(other, name)
    return other


def test_all_runs_are_delivered_or_the_one_that_is_chosen(pending: Run, command: Command) -> None:
    other = another_run(pending, "another")
    assert command("--run", "run")[0] == 0
    assert curve(pending.out) == LOSSES
    assert calls(other.out) == []
    assert command()[0] == 0
    assert curve(other.out) == [(1, 0.5)]


def test_a_run_that_cannot_be_delivered_keeps_none_of_the_others_but_is_in_the_exit_code(
    pending: Run, command: Command
) -> None:
    other = another_run(pending, "another")  # which comes first
    made_by(other, "another", fail="open", error="NotConfigured")
    assert command()[0] == 1
    assert curve(pending.out) == LOSSES


def test_of_several_trackers_one_can_be_chosen(pending: Run, command: Command) -> None:
    other = another_run(pending, "another")
    made_by(other, "file")
    assert command("--run", "another", "--to", "another")[0] == 0
    assert len(runs(other.out)) == 1
    assert calls(pending.out) == []


def installed(path: Path) -> None:
    """Make another tracker findable by its entry point, as an installed package is."""
    info = path / "callback_else-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: callback-else\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[callback_core.integrations]\nelse = callback_else:ElseCallback\nbare = builtins:object\n"
    )
    (path / "callback_else.py").write_text(
        "import os\n"
        "from callback_core import NotConfigured\n"
        "from callback_core.tracking import TrackerCallback\n"
        "from tracking_for_tests import FileTracker\n"
        "class ElseCallback(TrackerCallback):\n"
        "    def __init__(self):\n"
        "        if 'ELSE' not in os.environ:\n"
        "            raise NotConfigured('Set ELSE.')\n"
        "        super().__init__(FileTracker(os.environ['ELSE'], name='else'))\n"
    )


def test_all_of_a_run_goes_to_another_tracker_that_is_installed_and_configured(
    pending: Run, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(pending.out.with_name("site"))
    monkeypatch.syspath_prepend(str(pending.out.with_name("site")))
    monkeypatch.delenv("ELSE", raising=False)
    code, text = command("--to", "else")
    assert (code, "Set ELSE" in text) == (1, True)
    command()  # so that its own tracker has all
    other = pending.out.with_name("else.jsonl")
    monkeypatch.setenv("ELSE", str(other))
    for _ in range(2):
        assert command("--to", "else")[0] == 0
        assert curve(other) == LOSSES
    code, text = command("--to", "bare")
    assert (code, "bare" in text) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [(["--run", "nothing"], 2, "'nothing'"), (["--to", "nowhere"], 1, "'nowhere'")],
)
def test_a_wrong_run_or_tracker_is_named(
    pending: Run, command: Command, arguments: list[str], code: int, named: str
) -> None:
    found, text = command(*arguments)
    assert found == code
    assert named in text


def test_a_directory_without_runs_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert (printed.out, str(tmp_path) in printed.err) == ("", True)


@pytest.mark.parametrize("settings", [{}, None])
def test_a_tracker_that_cannot_be_made_again_is_named_and_others_are_delivered_to(
    pending: Run, command: Command, settings: dict[str, Any] | None
) -> None:
    pending.folder.write_tracker("else", {"made_by": "gone_module:Gone", "settings": settings})
    code, text = command()
    assert code == 1
    assert ("else" if settings is None else "gone_module:Gone") in text
    assert curve(pending.out) == LOSSES


def test_a_run_that_knows_no_tracker_is_named(run: Run, command: Command) -> None:
    code, text = command()
    assert code == 1
    assert run.folder.run in text
    assert "--to" in text


class Terminal(io.StringIO):
    """A terminal, wide enough for all that is written to it."""

    def isatty(self) -> bool:
        return True


def test_in_a_terminal_a_bar_goes_from_no_point_to_all(
    pending: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert main([str(pending.folder.output_dir)]) == 0
    drawn = [(int(n), int(total)) for n, total in re.findall(r"(\d+)/(\d+)", terminal.getvalue())]
    assert (drawn[0], drawn[-1]) == ((0, 3), (3, 3))
    assert drawn == sorted(drawn)
