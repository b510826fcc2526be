"""Status: the store records how a training ended."""

from __future__ import annotations

from functools import partial

from callback_contract._case import Case
from callback_contract._killed_training import (
    POINTS_BEFORE_CHECKPOINT,
    deliver_pending,
    kill_after_checkpoint,
    wait_until_stored,
)
from callback_contract._stored import (
    LOSSES,
    log_steps,
    losses,
    require_eventually,
    require_runs,
    tracker_rule,
    train,
    wait_for_store,
)
from callback_contract._training import OUT_OF_MEMORY
from callback_contract._violation import require

_status_rule = partial(tracker_rule, needs=["status"])


def _require_statuses(case: Case, *expected: str, after: str) -> None:
    require_runs(case, len(expected), after)
    statuses = [run.status for run in case.runs()]
    require(
        sorted(map(str, statuses)) == sorted(expected),
        f"after {after}, the statuses in the store are {statuses}, not {list(expected)}",
    )


@_status_rule(
    "STS-001",
    why="A run that remains active blocks the next one (huggingface/transformers#9210), or appears "
    "to run forever (huggingface/transformers#30333). A run that the user stopped counts as "
    "crashed or as complete (Lightning-AI/pytorch-lightning#12291).",
    fix="In on_exception, record whether the error is an Exception. In on_train_end, close the "
    "run as failed after an Exception, and as interrupted after other errors such as "
    "KeyboardInterrupt.",
)
def a_run_has_the_status_of_its_training(case: Case) -> None:
    """A run is `finished` after its last step, `failed` after an error, `interrupted` by Ctrl-C.

    After a `SystemExit`, it is `interrupted` or `failed`.
    """
    for error, expected in (
        (None, ("finished",)),
        (OUT_OF_MEMORY, ("failed",)),
        (KeyboardInterrupt(), ("interrupted",)),
        (SystemExit(143), ("interrupted", "failed")),
    ):
        train(case, {"loss": 0.5}, error=error)
        statuses = [run.status for run in case.runs()]
        require(
            statuses[-1:] and statuses[-1] in expected,
            f"the last training ended with {error!r}, and the statuses are {statuses}",
        )


@_status_rule(
    "STS-002",
    why="A loop that raises may not notify its callbacks: Lightning-AI/pytorch-lightning#10397.",
    fix="In on_train_begin, close a run that is still open as failed.",
)
def a_training_without_an_end_is_failed(case: Case) -> None:
    """The run of a training that never ended is `failed` once its callback begins another one."""
    callback = case.make()
    case.begin(callback).step({"loss": 0.5})
    train(case, {"loss": 0.25}, callback=callback)
    _require_statuses(case, "failed", "finished", after="one that never ended and a complete one")


@_status_rule(
    "STS-003",
    why="State that a callback keeps from one training affects the next: keras-team/keras#20256.",
    fix="In on_train_begin, reset what on_exception recorded.",
)
def a_failure_does_not_affect_the_next_training(case: Case) -> None:
    """A run is not `failed` because the previous training with the same callback failed."""
    callback = case.make()
    for error in (OUT_OF_MEMORY, None):
        train(case, {"loss": 0.5}, callback=callback, error=error)
    _require_statuses(case, "failed", "finished", after="one that failed and a complete one")


@_status_rule(
    "STS-004",
    why="A log after the end leaves the run open: huggingface/transformers#46935.",
    fix="After a log outside a training, close the run again with its previous status.",
)
def an_evaluation_after_the_end_keeps_the_status(case: Case) -> None:
    """A run keeps its status, even `failed`, when something is logged after its end."""
    for value, error, expected in ((0.375, None, "finished"), (0.625, OUT_OF_MEMORY, "failed")):
        training = train(case, *losses(0.5, 0.25), error=error)
        training.evaluate({"eval_late": value})
        require_eventually(case, "eval_late", 2, value)
        wait_for_store(case, lambda: case.runs()[-1].status == expected)  # noqa: B023
        status = case.runs()[-1].status
        require(status == expected, f"the status was {expected!r} and became {status!r}")


@_status_rule(
    "STS-005",
    why="An evaluation without a training leaves a run that appears to be active: "
    "huggingface/transformers#48875.",
    fix="If on_log opened the run itself, close it afterwards.",
)
def an_evaluation_without_a_training_is_closed(case: Case) -> None:
    """A run that was opened for an evaluation without a training does not stay open."""
    training = case.training()
    training.fire("on_init_end")
    training.evaluate({"eval_alone": 0.375})
    require_eventually(case, "eval_alone", 0, 0.375)
    closed = wait_for_store(case, lambda: all(run.status != "running" for run in case.runs()))
    require(closed, "its run is still 'running'")


@_status_rule(
    "STS-006",
    why="Users look for trainings that fail before their first step, for example for lack of "
    "memory: huggingface/transformers#30333.",
    fix="Close an open run with the status for the error, even if nothing was logged.",
)
def a_training_that_fails_at_once_is_failed(case: Case) -> None:
    """A training that fails before its first log leaves no run that is `finished` or open."""
    case.begin().end(OUT_OF_MEMORY)
    statuses = {run.status for run in case.runs()}
    require(statuses <= {"failed"}, f"the statuses in the store are {statuses}")


@_status_rule(
    "STS-007",
    why="A job that was killed counts as complete: Lightning-AI/pytorch-lightning#12291.",
    fix="Set the status to finished only in an on_train_end without an earlier error.",
)
def a_killed_training_is_not_finished(case: Case) -> None:
    """The run of a training whose process was killed is not `finished`."""
    kill_after_checkpoint(case)
    deliver_pending(case)
    statuses = [run.status for run in case.runs()]
    require("finished" not in statuses, f"after a kill, the statuses are {statuses}")


@_status_rule(
    "STS-008",
    why="A run that is finished while it is trained misleads its users. It keeps this status if "
    "its machine is lost (Lightning-AI/pytorch-lightning#12291).",
    fix="Write the final status when the run is closed, and `running` or nothing before.",
)
def a_running_training_is_not_finished(case: Case) -> None:
    """The run of a training in progress is not `finished`, if the store can be read."""
    training = case.begin()
    log_steps(training, *losses(*LOSSES[:2]))
    wait_until_stored(case, *POINTS_BEFORE_CHECKPOINT)
    statuses = [run.status for run in case.readable_runs()]
    training.end()
    require("finished" not in statuses, f"during the training, the statuses were {statuses}")
