"""`Watchdog`: notices that a rank hangs, says which one is late, and ends the training."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from datetime import timedelta
from types import FrameType

from torch.distributed import Store  # type: ignore[attr-defined]

from trainer_torch.ranks.hang_error import HangError
from trainer_torch.ranks.rank_notes import Progress, RankNote, explanation
from trainer_torch.ranks.signals import STACKS
from trainer_torch.ranks.stacks import STANDARD_ERROR, current_code, print_stacks, say


def interval_of(limit: float) -> float:
    """Return the seconds between two checks of the watchdog."""
    return min(2.0, limit / 10)


def with_margin(limit: float) -> timedelta:
    """Return the timeout of collective operations, which is longer than that of the watchdog."""
    return timedelta(seconds=limit + 5 * interval_of(limit))


class Watchdog:
    """A context that watches the training's thread of this rank from a thread beside it.

    Every few seconds, it writes to the store of the process group where this rank is. If a rank
    waits longer than the limit, its watchdog raises an alarm there. Every rank then prints its
    stacks, says which ranks are late, and ends. If a call into a library holds the GIL, this thread
    cannot run. A timer of `faulthandler` then ends the process.

    The training's thread never waits for the store, unless an error ends it.

    Args:
        store: A connection to the store, for this object alone.
        rank: The number of this rank.
        size: The number of ranks.
        limit: The seconds that a rank may wait for others.
        progress: The progress that the training's thread notes.
        call: The number of the call of `train`, `evaluate` or `predict`, from 1.
    """

    def __init__(
        self, store: Store, rank: int, size: int, limit: float, progress: Progress, call: int
    ) -> None:
        self._store, self._rank, self._size, self._limit = store, rank, size, limit
        self._progress, self._call = progress, call
        self._interval = interval_of(limit)
        self._host, self._pid = socket.gethostname(), os.getpid()
        self._watched = threading.current_thread()
        self._place, self._moved_at = (-1, -1), time.monotonic()
        self._failure: str | None = None
        self._answers = self._asked = self._is_ending = self._has_left = False
        self._stacks_printed = self._can_interrupt = self._interrupted = False
        self._ends_at: float | None = None
        self._explanation = ""
        self._explained, self._wake = threading.Event(), threading.Event()
        self._timer = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        """Begin to watch the thread that enters the context."""
        if (
            STACKS is not None
            and self._watched is threading.main_thread()
            and signal.getsignal(STACKS) == signal.SIG_DFL
        ):
            signal.signal(STACKS, self._interrupt)
            self._can_interrupt = True
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop watching, and wait for the thread, but not for long if the store is lost.

        If the interpreter exits while a thread calls into torch, the process is aborted.
        """
        with self._timer:
            self._has_left = True
            faulthandler.cancel_dump_traceback_later()
        self._wake.set()
        self._thread.join(5.0)
        if self._can_interrupt:
            signal.signal(STACKS, signal.SIG_DFL)  # type: ignore[arg-type]

    def explain(self, failure: str | None = None) -> str:
        """Return a text that says which ranks are late or lost, or have failed, as far as is known.

        The training's thread calls this after an error, and waits for the answers of the others.

        Args:
            failure: The error that ends this rank; `None` if it only lost the others.
        """
        if self._still() >= self._limit:
            self._print_stacks()  # first, because the store may not answer
        self._failure, self._asked, self._is_ending = failure, True, True
        self._wake.set()
        if not self._explained.wait(10 * self._interval):
            self._explanation = self._without_store()
        return self._explanation

    def stand_back(self) -> None:
        """Do not end this rank, because an error ends it already."""
        self._is_ending = True

    def _run(self) -> None:
        try:
            while not self._has_left:
                self._set_timer()
                self._look_if_possible()
                if self._ends_at and not self._is_ending and time.monotonic() > self._ends_at:
                    say(
                        self._rank,
                        "The training did not end after the hang, so its process ends now.",
                    )
                    os._exit(1)
                self._wake.wait(self._interval)
                self._wake.clear()
            with suppress(RuntimeError):
                self._write()
        finally:  # without this thread, the timer would end a training that does not hang
            faulthandler.cancel_dump_traceback_later()

    def _look_if_possible(self) -> None:
        """Check all ranks. If the store does not answer while this rank waits, end this rank."""
        try:
            self._look()
        except RuntimeError:
            if self._asked or (self._note().waits and self._still() >= self._limit):
                self._end(self._without_store())

    def _set_timer(self) -> None:
        """Let faulthandler end the process, unless this thread sets the timer again in time."""
        with self._timer:
            if not self._has_left:
                seconds = self._limit + 20 * self._interval
                faulthandler.dump_traceback_later(seconds, exit=True, file=STANDARD_ERROR)

    def _look(self) -> None:
        """Write where this rank is, and respond to an alarm."""
        self._write()
        if self._explained.is_set():
            return
        alarm = f"alarm/{self._call}"
        if not self._store.check([alarm]):
            is_hang = self._waits_in_vain()
            if not (is_hang or self._asked):
                return
            self._store.compare_set(alarm, "", json.dumps([self._rank, is_hang]))
        by, is_hang = json.loads(self._store.get(alarm))
        if is_hang:
            self._print_stacks()
        self._answers = True
        self._write()
        verdict = f"verdict/{self._call}"
        if by == self._rank or not self._appears(verdict):
            found = explanation(self._answered(), self._size, self._limit if is_hang else None)
            self._store.set(verdict, found)
        self._explanation = self._store.get(verdict).decode()
        if is_hang:
            self._end(self._explanation)
        self._explained.set()

    def _waits_in_vain(self) -> bool:
        """Return whether this rank, or another one, waits longer than the limit.

        Another rank may wait where no watchdog sees it, such as in a backward pass. It does if two
        ranks have stayed at different places for longer than the limit. Ranks 0 and 1 check this:
        not all, because each check reads the notes of all ranks; and two, because one may be lost.
        """
        if self._is_ending or self._still() < self._limit:
            return False
        own = self._note()
        if own.waits or self._rank > 1:
            return own.waits
        return any(
            note.still >= self._limit and note.place != own.place for note in self._notes().values()
        )

    def _note(self) -> RankNote:
        progress, still = self._progress, self._still()
        return RankNote(
            rank=self._rank,
            host=self._host,
            pid=self._pid,
            turns=progress.turns,
            events=progress.events,
            step=progress.step,
            event=progress.event,
            code=current_code(self._watched) if still >= self._interval else "",
            still=still,
            has_left=self._has_left,
            failure=self._failure,
            answers=self._answers,
        )

    def _still(self) -> float:
        """Return for how many seconds the training's thread has not moved on."""
        place = self._progress.turns, self._progress.events
        if place != self._place:
            self._place, self._moved_at = place, time.monotonic()
        return time.monotonic() - self._moved_at

    def _write(self) -> None:
        self._store.set(f"rank/{self._rank}", self._note().to_json())

    def _notes(self) -> dict[int, RankNote]:
        """Return the last note of each rank that has written one."""
        keys = {rank: f"rank/{rank}" for rank in range(self._size)}
        return {
            rank: RankNote.from_json(self._store.get(key))
            for rank, key in keys.items()
            if self._store.check([key])
        }

    def _answered(self) -> dict[int, RankNote]:
        """Return the notes of the ranks, once all have answered or the time for that is over."""
        until = time.monotonic() + 3 * self._interval + 1
        while True:
            notes = self._notes()
            answers = sum(note.answers or note.has_left for note in notes.values())
            if answers == self._size or self._has_left or time.monotonic() > until:
                return notes
            time.sleep(self._interval / 4)

    def _appears(self, key: str) -> bool:
        """Return whether another rank writes `key` in time."""
        until = time.monotonic() + 6 * self._interval + 2
        while not (found := self._store.check([key])):
            if self._has_left or time.monotonic() > until:
                break
            time.sleep(self._interval / 4)
        return found

    def _without_store(self) -> str:
        where = os.environ.get("MASTER_ADDR", "the machine of rank 0")
        return (
            f"The store of the process group, on {where}, does not answer {self._host}. Either "
            "that machine or its process that hosts the store is down, or the network between "
            "them is."
        )

    def _end(self, reason: str) -> None:
        """Say why, and raise an error in the training's thread. Set a time to end the process."""
        if self._ends_at is not None:
            return
        self._explanation = reason
        self._print_stacks()
        say(self._rank, reason)
        self._explained.set()
        self._ends_at = time.monotonic() + 15 * self._interval
        if self._can_interrupt and not self._is_ending and not self._has_left:
            signal.pthread_kill(self._watched.ident or 0, STACKS)  # type: ignore[arg-type]

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Raise an error in the training's thread, wherever it is in Python code."""
        is_due = self._ends_at is not None and not self._is_ending and not self._interrupted
        if is_due and os.getpid() == self._pid:
            self._interrupted = True
            raise HangError(self._explanation)

    def _print_stacks(self) -> None:
        if not self._stacks_printed:
            self._stacks_printed = True
            title = f"The stacks of rank {self._rank} ({self._host}, process {self._pid}):"
            print_stacks(self._rank, title)
