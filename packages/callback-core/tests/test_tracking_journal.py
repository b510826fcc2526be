"""The journal: whole records only, whatever happens to the process and the disk."""

from __future__ import annotations

import json
import logging
import os
import stat
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from run_for_tests import Run
from tracking_for_tests import points, script

from callback_core.tracking.delivery_progress import DeliveryProgress
from callback_core.tracking.history import History
from callback_core.tracking.journal import DAMAGED, Journal, has_ended, read, saved_at, whole_size
from callback_core.tracking.lock import FileLock, Held
from callback_core.tracking.run_folder import RunFolder


def logs(step: int, **values: Any) -> dict[str, Any]:
    return {"kind": "logs", "step": step, "time": float(step), "logs": values}


def begin(step: int = 0) -> dict[str, Any]:
    return {
        "kind": "begin",
        "step": step,
        "time": float(step),
        "resumed": step > 0,
        "arguments": {},
        "model_config": {},
    }


def saved(step: int) -> dict[str, Any]:
    return {"kind": "saved", "step": step, "time": float(step)}


def whole(record: dict[str, Any]) -> bytes:
    """Return the line that a record is."""
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def history(path: Path, offset: int, *, rewinds: bool, opened: bool) -> History:
    progress = DeliveryProgress(offset=offset, run_id="run" if opened else None)
    return History(path, progress, rewinds)


def superseded(path: Path) -> list[tuple[int, int]]:
    return history(path, 0, rewinds=False, opened=False).superseded


def written(path: Path, *records: dict[str, Any]) -> Path:
    journal = Journal(path)
    for record in records:
        journal.append(record)
    journal.close()
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def test_records_are_read_as_they_were_written_with_their_place_in_the_file(path: Path) -> None:
    written(path, begin(), logs(1, loss=0.5, näme="ü\n"), saved(1))
    records = list(read(path))
    assert [record.content for record in records] == [
        begin(),
        logs(1, loss=0.5, näme="ü\n"),
        saved(1),
    ]
    assert [record.start for record in records[1:]] == [record.end for record in records[:-1]]
    assert records[-1].end == path.stat().st_size == whole_size(path)
    assert [record.kind for record in read(path, records[0].end)] == ["logs", "saved"]


def test_a_journal_that_is_not_there_has_no_records(path: Path) -> None:
    assert list(read(path)) == []


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_record_does_not_count_and_the_next_takes_its_place(
    path: Path, cut: int
) -> None:
    whole = written(path, begin(), logs(1, loss=1.0), logs(2, loss=2.0)).read_bytes()
    path.write_bytes(whole[:-cut])
    assert [record.step for record in read(path)] == [0, 1]
    written(path, logs(3, loss=3.0))
    assert [record.step for record in read(path)] == [0, 1, 3]
    assert DAMAGED not in [record.kind for record in read(path)]


def test_a_torn_record_longer_than_a_block_is_found(path: Path) -> None:
    size = written(path, begin()).stat().st_size
    with path.open("ab") as file:
        file.write(b"x" * 200_000)
    assert size == whole_size(path)
    path.write_bytes(b"x" * 200_000)
    assert whole_size(path) == 0


@pytest.mark.parametrize(
    "line",
    [
        b"\x00\xff\x00",
        b"[1]",
        b"{}",
        b'{"kind":"logs","step":"x"}',
        b'{"kind":"logs","step":3}',
        b'{"kind":["logs"],"step":1}',
        b'{"kind":"end","step":2}',
        b'{"kind":"begin","step":2}',
        b'{"kind":"upload","step":2}',
    ],
)
def test_a_damaged_line_costs_no_more_than_itself(path: Path, line: bytes) -> None:
    first = written(path, begin(), logs(1, loss=1.0)).read_bytes()
    path.write_bytes(first + line + b"\n")
    written(path, logs(2, loss=2.0))
    assert [record.kind for record in read(path)] == ["begin", "logs", DAMAGED, "logs"]
    assert superseded(path) == []
    written(path, begin(1))
    assert superseded(path) == [(len(first), len(path.read_bytes()) - len(whole(begin(1))))]


def test_a_disk_that_takes_no_more_is_said_and_loses_nothing_before_it(tmp_path: Path) -> None:
    done = script(
        "import resource\n"
        "from callback_core.tracking.journal import Journal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (250, resource.RLIM_INFINITY))\n"
        "for n in range(10): journal.append({'kind': 'saved', 'step': n, 'time': 0.5})\n"
        "journal.close()\n",
        tmp_path / "full",
    )
    assert done.returncode == 0, done.stderr
    assert [record.step for record in read(tmp_path / "full")] == list(range(6))
    first, last = done.stderr.splitlines()
    assert str(tmp_path / "full") in first
    assert "4 records" in last


def test_what_waits_for_a_disk_is_written_in_order_once_it_can_be(tmp_path: Path) -> None:
    done = script(
        "import resource\n"
        "from callback_core.tracking.journal import Journal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "unlimited = resource.RLIM_INFINITY\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (250, unlimited))\n"
        "for n in range(10): journal.append({'kind': 'saved', 'step': n, 'time': 0.5})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))\n"
        "journal.append({'kind': 'saved', 'step': 10, 'time': 0.5})\n"
        "journal.close()\n",
        tmp_path / "full",
    )
    assert done.returncode == 0, done.stderr
    assert [record.step for record in read(tmp_path / "full")] == list(range(11))
    assert len(done.stderr.splitlines()) == 1


def test_one_process_and_one_owner_in_it_write_a_journal(path: Path) -> None:
    journal = Journal(path)
    with pytest.raises(BlockingIOError):
        Journal(path)
    done = script(
        "from callback_core.tracking.journal import Journal\nJournal(Path(sys.argv[1]))\n", path
    )
    assert "lock.Held" in done.stderr
    journal.close()
    Journal(path).close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_neither_holds_nor_gives_back_the_lock(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    child = os.fork()
    if child == 0:
        try:
            FileLock(tmp_path / "lock")
        except BlockingIOError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    done = script(
        "from callback_core.tracking.lock import FileLock\nFileLock(Path(sys.argv[1]))\n",
        tmp_path / "lock",
    )
    assert "lock.Held" in done.stderr
    lock.release()


@pytest.mark.parametrize("moment", ["open", "close"])
def test_a_lock_has_one_owner_where_two_threads_want_it_at_once(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[FileLock] = []

    def take() -> None:
        with suppress(Held):
            got.append(FileLock(tmp_path / "lock"))

    def call_while_another_takes_it(*arguments: Any) -> Any:
        monkeypatch.undo()
        second = Thread(target=take)
        second.start()
        second.join()
        return call(*arguments)

    before = FileLock(tmp_path / "lock")
    call = getattr(os, moment)
    monkeypatch.setattr(os, moment, call_while_another_takes_it)
    before.release()
    take()
    assert len(got) == 1
    done = script(
        "from callback_core.tracking.lock import FileLock\nFileLock(Path(sys.argv[1]))\n",
        tmp_path / "lock",
    )
    assert "lock.Held" in done.stderr
    got.pop().release()


def test_syncing_does_not_wait_and_leaves_the_file_open(path: Path) -> None:
    journal = Journal(path)
    journal.append(begin())
    journal.sync()
    journal.append(saved(1))
    journal.close()
    assert [record.kind for record in read(path)] == ["begin", "saved"]


def test_the_umask_decides_who_reads_a_journal_and_nobody_executes_it(path: Path) -> None:
    before = os.umask(0o026)
    try:
        written(path, begin())
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o640}


def test_a_journal_that_ends_with_a_damaged_line_does_not_tell_how_far_its_training_got(
    path: Path,
) -> None:
    written(path, begin(), logs(2))
    assert saved_at(path, 1)
    with path.open("ab") as file:
        file.write(b"{}\n")
    assert not saved_at(path, 0)


def test_a_journal_has_ended_while_its_last_record_is_an_end(path: Path) -> None:
    end = {"kind": "end", "step": 1, "time": 1.0, "status": "finished"}
    found = []
    for record in (begin(), logs(1), saved(1), upload(1, "a"), end, begin(1), end, {}):
        written(path, record)
        found.append(has_ended(path))
    assert found == [False, False, False, False, True, False, True, False]


@pytest.mark.parametrize("length", [10, 200_000])
def test_a_torn_record_does_not_hide_how_far_the_training_got(path: Path, length: int) -> None:
    written(path, begin(), logs(1, note="x" * length), logs(2))
    with path.open("ab") as file:
        file.write(b'{"kind":"lo')
    assert saved_at(path, 2)
    assert not saved_at(path, 3)


def steps_that_count(path: Path) -> list[int]:
    gone = superseded(path)
    return [
        record.step
        for record in read(path)
        if record.kind == "logs" and not any(a <= record.start < b for a, b in gone)
    ]


def test_where_a_training_was_resumed_there_is_a_checkpoint_even_if_its_record_is_cut_off(
    path: Path,
) -> None:
    begins = {**begin(step=2), "resumed": True}
    written(path, begin(), logs(1, loss=0.5), logs(2, loss=0.4), begins, logs(2, eval_loss=0.3))
    Journal(path).close()
    written(path, begins)
    [evaluated] = [record for record in read(path) if "eval_loss" in str(record.content)]
    assert [start for start, end in superseded(path) if start <= evaluated.start < end]


def test_what_follows_the_save_that_is_resumed_from_is_superseded(path: Path) -> None:
    written(path, begin(), logs(1), logs(2), saved(2), logs(2), logs(3))
    assert superseded(path) == []
    written(path, begin(2), logs(2), logs(3), logs(4))
    assert steps_that_count(path) == [1, 2, 2, 3, 4]


def upload(step: int, tracker: str) -> dict[str, Any]:
    about = {"for": tracker, "path": "p", "name": "n"}
    return {"kind": "upload", "step": step, "time": float(step), **about}


def test_the_uploads_of_the_checkpoint_that_is_resumed_from_count(path: Path) -> None:
    written(path, begin(), logs(2), saved(2), upload(2, "a"), upload(2, "b"), logs(2), logs(3))
    written(path, begin(2), logs(3))
    [(cut, _)] = superseded(path)
    assert [r.kind for r in read(path) if r.start < cut][-2:] == ["upload", "upload"]
    assert steps_that_count(path) == [2, 3]


def test_an_upload_that_is_none_of_the_checkpoint_does_not_keep_what_was_logged_before_it(
    path: Path,
) -> None:
    written(path, begin(), logs(2), saved(2), logs(2), upload(2, "final model"), begin(2))
    assert steps_that_count(path) == [2]


def test_without_a_record_of_the_save_all_up_to_its_step_counts(path: Path) -> None:
    written(path, begin(), logs(1), logs(2), logs(3), begin(2), logs(3))
    assert steps_that_count(path) == [1, 2, 3]


def test_stretches_of_several_resumes_lie_in_each_other(path: Path) -> None:
    written(path, begin(), logs(1), saved(1), logs(2), saved(2), logs(3))
    written(path, begin(2), logs(3), saved(3), logs(4))
    written(path, begin(1), logs(2), logs(3))
    assert steps_that_count(path) == [1, 2, 3]
    written(path, begin(5))  # from a step that is not here: nothing is repeated
    assert steps_that_count(path) == [1, 2, 3]


def test_a_tracker_that_rewinds_forgets_from_the_first_doubtful_step_on(path: Path) -> None:
    written(path, begin(), logs(1, a=1), saved(1), logs(2, a=2), logs(3, a=3))
    offset = [record.end for record in read(path)][3]  # a=2 is delivered, a=3 may be
    written(path, begin(1), logs(2, a=2))
    past = history(path, offset, rewinds=True, opened=True)
    assert past.rewind_to == 2
    counted = [(r.kind, r.step) for r in read(path, past.start) if past.counts(r)]
    assert counted == [("begin", 1), ("logs", 2)]


def test_a_damaged_line_is_named_by_its_place_and_what_follows_is_sent(run: Run) -> None:
    at = run.folder.journal.stat().st_size
    with run.folder.journal.open("ab") as file:
        file.write(b"\x00\x00\n")
    run.log(1, a=1)
    run.end()
    consumer = run.deliver()
    assert consumer.done
    assert [point.name for point in points(run.out)] == ["train/a"]
    [place] = consumer.run.progress.left_out
    assert str(at) in place


def test_the_journal_is_not_touched_by_delivering_it(run: Run) -> None:
    run.log(1, a=1)
    run.end()
    before = run.folder.journal.read_bytes()
    run.deliver()
    assert run.folder.journal.read_bytes() == before


def test_a_value_that_comes_out_as_before_is_no_news(path: Path) -> None:
    nan = {"__float__": "NaN"}
    values = {"a": 1, "b": 2, "eval_runtime": 1.0, "nan": nan}
    written(path, begin(), saved(0), logs(1, **values), logs(2, a=5))
    offset = [record.end for record in read(path)][2]
    written(path, begin(0) | {"resumed": True}, logs(1, a=1))
    past = history(path, offset, rewinds=False, opened=True)
    assert past.value_to_send("a", 1, 1, 9.0) is None
    assert past.value_to_send("b", 3, 1, 9.0) == (3, 9.0)
    assert past.value_to_send("eval_runtime", 7.0, 1, 9.0) is None
    assert past.value_to_send("nan", float("nan"), 1, 9.0) is None
    assert past.value_to_send("a", 5, 2, 9.0) == (
        5,
        2.0,
    )  # may be there: keep its time
    assert past.value_to_send("a", 5, 3, 9.0) == (5, 9.0)


def test_what_was_never_sent_is_all_news(path: Path) -> None:
    written(path, begin(), logs(1, a=1), begin(0) | {"resumed": True})
    past = history(path, 0, rewinds=False, opened=False)
    assert past.value_to_send("a", 1, 1, 9.0) == (1, 9.0)


def test_what_a_tracker_s_file_says_is_the_old_or_the_new(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = RunFolder.of(tmp_path, "run")
    folder.path.mkdir(parents=True)
    folder.write_progress("a/b", {"offset": 3})
    assert folder.read_progress("a/b") == {"offset": 3}
    [file] = folder.path.iterdir()
    file.write_text("{", "utf-8")
    assert folder.read_progress("a/b") == {}
    folder.write_tracker("x", {"made_by": "m:c"})
    assert folder.trackers() == ["x"]
    assert json.loads((folder.path / "x.tracker.json").read_text("utf-8"))["made_by"] == "m:c"
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
