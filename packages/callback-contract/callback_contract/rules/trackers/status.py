"""Status: the store says how a training ended."""

from __future__ import annotations

from contextlib import suppress

from callback_contract._case import Case
from callback_contract._killed import (
    BEFORE_THE_CHECKPOINT,
    deliver_the_rest,
    killed_after_a_checkpoint,
    wait_until_stored,
)
from callback_contract._stored import (
    LOSSES,
    comes_true,
    log_steps,
    losses,
    require_in_time,
    tracker_rule,
    trained,
)
from callback_contract._training import DIED
from callback_contract._violation import require


def _require_statuses(case: Case, *expected: str, after: str) -> None:
    statuses = [run.status for run in case.runs()]
    require(
        sorted(map(str, statuses)) == sorted(expected),
        f"after {after}, the statuses in the store are {statuses}, not {list(expected)}",
    )


@tracker_rule(
    "STS-001",
    needs=["status"],
    why="A run that is left active blocks the next one (huggingface/transformers#9210), or shows "
    "as running for ever (huggingface/transformers#30333); one that somebody stopped counts as "
    "crashed, or as complete (Lightning-AI/pytorch-lightning#12291).",
    mend="Note in on_exception what ends the training, and close the run in on_train_end: failed "
    "after an Exception, interrupted after anything else, such as KeyboardInterrupt.",
)
def a_run_says_how_its_training_ended(case: Case) -> None:
    """A run is `finished` after its last step, `failed` after an error, `interrupted` by Ctrl-C.

    After a `SystemExit` it is `interrupted` or `failed`.
    """
    interrupted = ("interrupted",)
    ends: list[tuple[BaseException | None, tuple[str, ...]]] = [(None, ("finished",))]
    ends += [(DIED, ("failed",)), (KeyboardInterrupt(), interrupted)]
    for error, expected in [*ends, (SystemExit(143), (*interrupted, "failed"))]:
        trained(case, {"loss": 0.5}, error=error)
        statuses = [run.status for run in case.runs()]
        require(
            statuses[-1:] and statuses[-1] in expected,
            f"the last training ended by {error!r}, and the statuses are {statuses}",
        )


@tracker_rule(
    "STS-002",
    needs=["status"],
    why="A loop that raises does not always say so to its callbacks: "
    "Lightning-AI/pytorch-lightning#10397.",
    mend="Where a run is still open in on_train_begin, close it as failed first.",
)
def a_training_that_was_not_ended_is_failed(case: Case) -> None:
    """The run of a training that never ended is `failed` once its callback begins another."""
    callback = case.make()
    first = case.training(callback)
    first.begin()
    first.step({"loss": 0.5})
    trained(case, {"loss": 0.25}, callback=callback)
    _require_statuses(case, "failed", "finished", after="one that never ended and a whole one")


@tracker_rule(
    "STS-003",
    needs=["status"],
    why="What a callback keeps of one training leaks into the next: keras-team/keras#20256.",
    mend="In on_train_begin, forget what on_exception has noted.",
)
def a_failure_is_not_that_of_the_next_training(case: Case) -> None:
    """A run is not `failed` because the training before it, with the same callback, failed."""
    callback = case.make()
    for error in (DIED, None):
        trained(case, {"loss": 0.5}, callback=callback, error=error)
    _require_statuses(case, "failed", "finished", after="one that failed and a whole one")


@tracker_rule(
    "STS-004",
    needs=["status"],
    why="Logging after the end leaves the run open: huggingface/transformers#46935.",
    mend="Close the run again, as it was, after what was logged when no training was running.",
)
def an_evaluation_after_the_end_leaves_the_status(case: Case) -> None:
    """A run keeps its status when something is logged after its end, also `failed`."""
    for value, error, expected in ((0.375, None, "finished"), (0.625, DIED, "failed")):
        training = trained(case, *losses(0.5, 0.25), error=error)
        training.evaluate({"eval_late": value})
        require_in_time(case, "eval_late", 2, value)
        comes_true(case, lambda: case.runs()[-1].status == expected)  # noqa: B023
        status = case.runs()[-1].status
        require(status == expected, f"a run that was {expected!r} is {status!r} after that")


@tracker_rule(
    "STS-005",
    needs=["status"],
    why="An evaluation alone leaves a run that shows as running: huggingface/transformers#48875.",
    mend="Where on_log has opened a run by itself, close it after that.",
)
def an_evaluation_without_a_training_is_closed(case: Case) -> None:
    """A run that was opened for an evaluation without a training is not left open."""
    training = case.training()
    training.fire("on_init_end")
    training.evaluate({"eval_alone": 0.375})
    require_in_time(case, "eval_alone", 0, 0.375)
    closed = comes_true(case, lambda: all(run.status != "running" for run in case.runs()))
    require(closed, "its run is still 'running'")


@tracker_rule(
    "STS-006",
    needs=["status"],
    why="What fails before the first step, for want of memory, is what somebody looks for: "
    "huggingface/transformers#30333.",
    mend="Close a run that is open by what on_exception was given, also without a single log.",
)
def a_training_that_fails_at_once_is_failed(case: Case) -> None:
    """A training that fails before its first log leaves no run that is `finished` or open."""
    training = case.training()
    training.begin()
    training.end(DIED)
    statuses = {run.status for run in case.runs()}
    require(statuses <= {"failed"}, f"the statuses in the store are {statuses}")


@tracker_rule(
    "STS-007",
    needs=["status"],
    why="A job that was killed counts as complete: Lightning-AI/pytorch-lightning#12291.",
    mend="Let a run be finished only by an on_train_end without an error before it.",
)
def a_training_that_is_killed_is_not_finished(case: Case) -> None:
    """The run of a training whose process was killed is not `finished`."""
    killed_after_a_checkpoint(case)
    deliver_the_rest(case)
    statuses = [run.status for run in case.runs()]
    require("finished" not in statuses, f"after a kill, the statuses are {statuses}")


@tracker_rule(
    "STS-008",
    needs=["status"],
    why="A run that shows as finished while it is trained is taken for what it is not, and stays "
    "so where its machine is lost (Lightning-AI/pytorch-lightning#12291).",
    mend="Write the status when the run is closed, and `running` before that, if anything.",
)
def a_training_under_way_is_not_finished(case: Case) -> None:
    """The run of a training that is under way is not `finished`, as far as it can be read then."""
    training = case.training()
    training.begin()
    log_steps(training, *losses(*LOSSES[:2]))
    wait_until_stored(case, *BEFORE_THE_CHECKPOINT)
    statuses: list[str | None] = []
    with suppress(Exception):  # a store that cannot be read while it is written
        statuses = [run.status for run in case.runs()]
    training.end()
    require("finished" not in statuses, f"during the training, the statuses were {statuses}")
