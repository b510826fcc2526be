"""A rank that hangs, fails or dies: all ranks end, with an error that names it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import hang_cases
import pytest
import torch.distributed as dist
from launching import Launch
from small import trainer

from callback_core import TrainerCallback
from trainer_torch.ranks.rank_notes import Progress, RankNote
from trainer_torch.ranks.rank_watch import RankWatch
from trainer_torch.ranks.watchdog import Watchdog, interval_of, with_margin

named = pytest.mark.skipif(
    not hasattr(dist.ProcessGroup, "get_group_store"), reason="this torch has no watchdog"
)
HAS_STACK = "The stacks of rank {}"
CASES = (
    *("holds the interpreter", "main sleeps", "lock", "workers", "save"),
    *("killed", "main killed", "slow", "fails"),
)


class Ended(NamedTuple):
    """How two ranks ended: the exit status, standard error, and the error of each rank.

    `seconds` are those between the hang and the error of each rank.
    """

    status: int
    stderr: str
    errors: list[str | None]
    closed: list[bool]
    seconds: list[float]


Run = Callable[[str], Ended]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Return how a case has ended.

    Most of their time, the cases wait for a limit. So they do that together: each is launched when
    the one before hangs.
    """
    launches: dict[str, Launch] = {}
    directories: dict[str, Path] = {}

    def ended(case: str) -> Ended:
        done, out = launches[case].wait(), directories[case]
        errors = [out / f"exception{rank}" for rank in range(2)]
        begun = out / hang_cases.BEGUN
        return Ended(
            done.returncode,
            done.stderr,
            [path.read_text() if path.exists() else None for path in errors],
            [(out / f"ended{rank}").exists() for rank in range(2)],
            [
                path.stat().st_mtime - begun.stat().st_mtime
                for path in errors
                if path.exists() and begun.exists()
            ],
        )

    with ExitStack() as left:
        for case in CASES:
            out = directories[case] = tmp_path_factory.mktemp("case")
            launches[case] = left.enter_context(Launch(hang_cases.__file__, case, out))
            while not (out / hang_cases.BEGUN).exists() and not launches[case].has_ended():
                time.sleep(0.01)
        yield ended


@named
@pytest.mark.slow
@pytest.mark.parametrize(("case", "late"), [("main sleeps", 0), ("lock", 1)])
def test_a_rank_that_hangs_is_named_and_ended_and_its_callbacks_are_closed(
    run: Run, case: str, late: int
) -> None:
    ended = run(case)
    assert ended.status != 0
    for rank in range(2):
        assert HAS_STACK.format(rank) in ended.stderr
        assert f"rank {late} (" in str(ended.errors[rank]).partition(". The first")[0]
    assert ended.closed == [True, True]


@named
@pytest.mark.slow
def test_the_worker_in_which_the_data_hangs_prints_its_stack(run: Run) -> None:
    ended = run("workers")
    assert ended.status != 0
    assert "in __getitem__" in ended.stderr.split("Root Cause")[0]
    assert "_worker_loop" in ended.stderr
    assert ended.closed == [True, True]


@named
@pytest.mark.slow
def test_a_rank_that_holds_the_interpreter_is_named_and_ended(run: Run) -> None:
    ended = run("holds the interpreter")
    assert ended.status != 0
    assert "holds_the_interpreter" in ended.stderr
    assert "rank 1 (" in str(ended.errors[0])
    assert ended.closed == [True, False]


@named
@pytest.mark.slow
def test_a_rank_that_hangs_while_it_writes_its_shards_is_named_in_time(run: Run) -> None:
    ended = run("save")
    assert ended.status != 0
    for error in ended.errors:
        assert "rank 1 (" in str(error).partition(". Of the others")[0]
    assert ended.closed == [True, True]
    assert max(ended.seconds) < 2 * hang_cases.LIMIT


@named
@pytest.mark.slow
@pytest.mark.parametrize(("case", "lost"), [("killed", 1), ("main killed", 0)])
def test_the_others_say_which_rank_was_killed(run: Run, case: str, lost: int) -> None:
    ended = run(case)
    assert ended.status != 0
    assert f"rank {lost} (" in str(ended.errors[1 - lost]) + ended.stderr
    assert ended.closed[1 - lost]
    assert HAS_STACK.format(1 - lost) not in ended.stderr  # it does not hang


@named
@pytest.mark.slow
def test_the_others_say_by_which_error_a_rank_has_ended(run: Run) -> None:
    ended = run("fails")
    assert ended.status != 0
    assert ended.errors[1] == "ValueError('broken on purpose')"
    assert "broken on purpose" in str(ended.errors[0])


@named
@pytest.mark.slow
def test_waiting_within_the_limit_is_no_alarm(run: Run) -> None:
    ended = run("slow")
    assert ended.status == 0, ended.stderr
    assert "stacks" not in ended.stderr
    assert ended.errors == [None, None]


class Recording:
    """A store that notes which threads call it."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.threads: set[str] = set()
        self.was_set = threading.Event()

    def set(self, key: str, value: str) -> None:
        self.threads.add(threading.current_thread().name)
        self.values[key] = value
        self.was_set.set()

    def check(self, keys: list[str]) -> bool:
        self.threads.add(threading.current_thread().name)
        return all(key in self.values for key in keys)


def test_the_training_thread_never_calls_the_store(tmp_path: Path) -> None:
    store: Any = Recording()
    progress = Progress()
    with Watchdog(store, 0, 2, 10.0, progress, call=1):
        for step in range(100):
            progress.note("on_step_end", step)
            progress.turn()
        store.was_set.clear()
        assert store.was_set.wait(60)
        written = RankNote.from_json(store.values["rank/0"])
    assert (written.turns, written.step) == (100, 99)
    assert store.threads == {"watchdog"}


class Group:
    """A process group of a single process."""

    def get_group_store(self) -> Group:
        return self

    def clone(self) -> Any:
        return dist.HashStore()


def test_a_thread_that_saves_does_not_touch_the_progress_of_the_training() -> None:
    watch = RankWatch(Group(), 0, 1, 10.0)
    turns = []

    def save() -> None:
        with watch.waiting(), watch.collective_operation():
            turns.append(watch.progress.turns)
        with suppress(RuntimeError), watch.collective_operation():
            raise RuntimeError

    with watch.watching():
        thread = threading.Thread(target=save)
        thread.start()
        thread.join()
        turns.append(watch.progress.turns)
        save()
    assert turns == [0, 0, 2]


def test_a_rank_that_writes_within_a_save_waits_for_nobody() -> None:
    watch = RankWatch(Group(), 0, 1, 10.0)
    waits = []
    with watch.watching():
        for _ in range(2):
            with suppress(OSError), watch.waiting():
                waits.append(watch.progress.turns % 2 == 1)
                with watch.waiting():
                    waits.append(watch.progress.turns % 2 == 1)
                    raise OSError
            waits.append(watch.progress.turns % 2 == 1)
    assert waits == [True, False, False] * 2


def test_a_process_alone_has_no_watchdog(tmp_path: Path) -> None:
    class Notes(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            names.update(thread.name for thread in threading.enumerate())

    names: set[str] = set()
    trainer(tmp_path, Notes, max_steps=1).train()
    assert names
    assert "watchdog" not in names


@pytest.mark.parametrize("limit", [1, 5, 1800, 10**6])
def test_the_watchdog_looks_several_times_within_the_limit_and_comes_first(limit: int) -> None:
    interval: Any = interval_of(limit)
    assert 0 < interval <= limit / 10
    assert with_margin(limit).total_seconds() >= limit + 2 * interval
