"""Delivery, where the service is not there: that costs the training nothing, and no point."""

from __future__ import annotations

from time import monotonic
from typing import Final

from callback_contract._case import Case, Training
from callback_contract._rule import require, rule
from callback_contract._stored import Stored, said

LONGEST_EVENT: Final = 5.0
"""Seconds that an event may take, on a machine that is busy with other things."""

LOGS: Final = 20


def _training(case: Case) -> Training:
    """Return a training whose tracker's service is not there."""
    return case.training(case.subject.make_unreachable(case.output_dir))


def _train(training: Training) -> float:
    """Train up to the end, and return how many seconds the longest event took."""
    longest, before = 0.0, monotonic()
    training.begin()
    training.fire("on_epoch_begin")
    for number in range(1, LOGS + 1):
        longest, before = max(longest, monotonic() - before), monotonic()
        training.step({"loss": number / 8})
    return max(longest, monotonic() - before)


@rule(
    "DEL-015",
    of_trackers=True,
    needs=["unreachable"],
    why="15 hours of eight GPUs were lost to a tracker's timeout: radixark/miles#2571.",
    mend="Hand what is logged to a thread or a file, and talk to the service from there.",
)
def events_do_not_wait_for_the_service(case: Case) -> None:
    """Where the service is not there, no event before the end takes five seconds."""
    training = _training(case)
    longest = _train(training)
    training.end()
    require(longest < LONGEST_EVENT, f"an event took {longest:.1f} s while there was no service")


@rule(
    "DEL-016",
    of_trackers=True,
    needs=["unreachable"],
    why="The end of training hangs for minutes in an SDK that tries again: "
    "Lightning-AI/pytorch-lightning#12834.",
    mend="Wait in on_train_end up to a limit, then leave the SDK alone; a thread can be.",
)
def the_end_waits_no_longer_than_the_limit(case: Case) -> None:
    """Where the service is not there, `on_train_end` returns soon after its limit."""
    training = _training(case)
    _train(training)
    before = monotonic()
    training.end()
    took, limit = monotonic() - before, case.subject.flush_limit
    require(
        took < limit + LONGEST_EVENT, f"the end took {took:.1f} s where its limit is {limit:g} s"
    )


@rule(
    "DEL-017",
    of_trackers=True,
    needs=["unreachable"],
    why="A run that had lost its server showed as ended: comet-ml/issue-tracking#539.",
    mend="Log a warning that names the tracker, what it has not got, and what to do.",
)
def says_that_the_service_has_not_got_all(case: Case) -> None:
    """Where the service is not there, a warning says so by the end of training."""
    training = _training(case)
    with said() as lines:
        _train(training)
        training.end()
    require(lines, "nothing was said, though the service was not there all the time")


@rule(
    "DEL-018",
    of_trackers=True,
    needs=["unreachable"],
    why="A line for each value that failed buries the loss: Lightning-AI/pytorch-lightning#21294.",
    mend="Say it at the first failure and at the end, and count in between.",
)
def does_not_repeat_that_the_service_is_not_there(case: Case) -> None:
    """Where the service is not there, this is said now and then, but not with each log."""
    training = _training(case)
    with said() as lines:
        _train(training)
        training.end()
    require(len(lines) < LOGS / 2, f"{LOGS} logs made {len(lines)} warnings: {lines[:2]} …")


@rule(
    "DEL-019",
    of_trackers=True,
    needs=["unreachable"],
    why="What was logged without a connection is lost completely: comet-ml/issue-tracking#463.",
    mend="Write what is logged to a file first, and deliver from the file, now or later.",
)
def what_was_not_delivered_is_delivered_later(case: Case) -> None:
    """What the service has not got is kept, and delivered once it is there: every point."""
    training = _training(case)
    _train(training)
    training.end()
    case.subject.deliver_later(case.output_dir)
    found = Stored(case).points("loss")
    expected = [(step, step / 8) for step in range(1, LOGS + 1)]
    require(sorted(set(found)) == expected, f"of {LOGS} points, this was delivered later: {found}")
