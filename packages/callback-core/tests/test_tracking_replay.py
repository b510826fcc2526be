"""Delivering from the command line what trackers have not got."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tracking_for_tests import (
    FileTracker,
    Training,
    WithoutKey,
    calls,
    points,
    replay,
    statuses,
    stored,
)

from callback_core.tracking import Tracker, TrackerCallback
from callback_core.tracking.folder import RunFolder
from callback_core.tracking.journal import Journal
from callback_core.tracking.replay import main


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "tracker.jsonl"


def given_up_at_once(tracker: Tracker) -> TrackerCallback:
    """Return a callback that leaves no thread which still tries to deliver."""
    return TrackerCallback(tracker, delivery="inline", flush_limit=0)


@pytest.fixture
def up(tmp_path: Path) -> Path:
    return tmp_path / "up"


@pytest.fixture
def run(tmp_path: Path, out: Path, up: Path) -> str:
    """A run that a tracker, whose service was down, has nothing of."""
    tracker = FileTracker(str(out), fail="all", until=str(up))
    Training(tmp_path, [given_up_at_once(tracker)]).train(3)
    assert calls(out) == []
    return RunFolder.all(tmp_path)[0].run


def test_what_is_pending_is_delivered_to_the_same_tracker_once(
    tmp_path: Path, out: Path, up: Path, run: str
) -> None:
    up.touch()
    done = replay(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"{run} to file: 3 points delivered, 0 names cut or left out, 0 points failed; closed as "
        "finished.\n"
    )
    assert f"{run} to file" not in done.stderr  # a bar is for terminals
    assert [p.step for p in points(out)] == [1, 2, 3]
    again = replay(tmp_path)
    assert (again.returncode, again.stdout) == (0, f"{run} to file: has everything already.\n")
    assert statuses(out) == ["finished"]


def test_a_tracker_that_still_fails_is_said_with_its_error(tmp_path: Path, run: str) -> None:
    done = replay(tmp_path, "--patience", "2")
    assert done.returncode == 1
    assert done.stdout == (
        f"{run} to file: 0 points delivered, 0 names cut or left out, 3 points failed; closed as "
        "None.\n  failed: ConnectionError: the service is down\n"
    )
    assert "Traceback" in done.stderr


def test_a_tracker_that_is_not_configured_is_not_waited_for(tmp_path: Path, out: Path) -> None:
    Training(tmp_path, [given_up_at_once(WithoutKey(str(out)))]).train(3)
    done = replay(tmp_path, "--patience", "1e6")  # which would hang
    assert done.returncode == 1
    assert done.stdout.endswith("failed: NotConfigured: LinesCallback needs LINES_KEY\n")


def test_what_was_left_out_is_named(tmp_path: Path, out: Path) -> None:
    training = Training(tmp_path, [given_up_at_once(FileTracker(str(out), fail="open"))])
    training.begin()
    training.log(text="x", loss=1.0)
    training.fire("on_train_end")
    run = RunFolder.all(tmp_path)[0]
    settings = FileTracker(str(out)).settings()
    run.write_tracker("file", "tracking_for_tests:FileTracker", settings)
    done = replay(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "1 points delivered, 1 names cut or left out, 0 points failed" in done.stdout
    assert "  text: it is text\n" in done.stdout


def test_a_training_that_died_is_closed_as_failed(tmp_path: Path, out: Path, run: str) -> None:
    folder = RunFolder.all(tmp_path)[0]
    lines = folder.journal.read_bytes().splitlines(keepends=True)
    folder.journal.write_bytes(b"".join(lines[:-1]) + b'{"kind":"lo')
    (tmp_path / "up").touch()
    done = replay(tmp_path)
    assert "closed as failed" in done.stdout
    assert (len(points(out)), statuses(out)) == (3, ["failed"])


def test_a_training_that_goes_on_delivers_by_itself(tmp_path: Path, run: str) -> None:
    journal = Journal(RunFolder.all(tmp_path)[0].journal)
    done = replay(tmp_path)
    journal.close()
    assert done.returncode == 1
    assert "its training is still running, and delivers by itself" in done.stdout


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
        "class Else(FileTracker):\n"
        "    name = 'else'\n"
        "class ElseCallback(TrackerCallback):\n"
        "    def __init__(self):\n"
        "        if 'ELSE' not in os.environ:\n"
        "            raise NotConfigured('Set ELSE.')\n"
        "        super().__init__(Else(os.environ['ELSE']))\n"
    )


def test_all_of_a_run_goes_to_another_tracker_that_is_installed(
    tmp_path: Path, run: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("ELSE", str(tmp_path / "else.jsonl"))
    assert main([str(tmp_path), "--to", "else"]) == 0
    assert "to else: 3 points delivered" in capsys.readouterr().out
    assert [(n, s) for n, s, _ in stored(tmp_path / "else.jsonl")] == [
        ("train/loss", step) for step in (1, 2, 3)
    ]
    assert main([str(tmp_path), "--to", "else"]) == 0
    assert "has everything already" in capsys.readouterr().out
    assert main([str(tmp_path), "--to", "bare"]) == 1
    assert "bare takes no replay: it is no TrackerCallback" in capsys.readouterr().out


def test_a_package_that_is_not_configured_is_named(
    tmp_path: Path, run: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delenv("ELSE", raising=False)
    assert main(["--to", "else", str(tmp_path)]) == 1
    assert f"{run} to else: cannot be delivered: Set ELSE.\n" in capsys.readouterr().out


def test_several_runs_are_delivered_and_one_can_be_chosen(
    tmp_path: Path, out: Path, up: Path, run: str
) -> None:
    tracker = FileTracker(str(out), fail="all", until=str(up))
    Training(tmp_path, [given_up_at_once(tracker)]).train(2)
    up.touch()
    assert replay(tmp_path, "--run", run).stdout.count("points delivered") == 1
    done = replay(tmp_path)
    assert "3 points" not in done.stdout
    assert "2 points delivered" in done.stdout
    assert len(points(out)) == 5


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--run", "nothing"], 2, "There is no run 'nothing' in"),
        (["--to", "nowhere"], 1, "report_to names 'nowhere', which is not installed"),
    ],
)
def test_a_wrong_command_line_says_so(
    tmp_path: Path, run: str, arguments: list[Any], code: int, text: str
) -> None:
    done = replay(tmp_path, *arguments)
    assert done.returncode == code
    assert text in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_without_runs_says_so(tmp_path: Path) -> None:
    done = replay(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "There is no run in" in done.stderr


def test_a_tracker_that_was_bound_to_its_process_is_not_made_anew(tmp_path: Path, run: str) -> None:
    folder = RunFolder.all(tmp_path)[0]
    folder.write_tracker("file", "gone_module:Gone", {})
    done = replay(tmp_path)
    assert done.returncode == 1
    assert "gone_module:Gone is not to be found here" in done.stdout
    folder.write_tracker("file", "m:C", None)
    assert replay(tmp_path).returncode == 1


def test_a_run_that_knows_no_tracker_says_what_to_do(tmp_path: Path, run: str) -> None:
    [file] = RunFolder.all(tmp_path)[0].path.glob("*.tracker.json")
    file.unlink()
    done = replay(tmp_path)
    assert done.returncode == 1
    assert "say with --to which it is for" in done.stdout
