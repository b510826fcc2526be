"""Status: the store says how a training ended."""

from __future__ import annotations

from callback_contract._case import Case
from callback_contract._rule import require, rule
from callback_contract._stored import Stored, comes_true
from callback_core import TrainerState


def _status_after(case: Case, error: BaseException | None) -> str | None:
    """Train a step, end by `error`, and return the status of the run."""
    training = case.training()
    training.begin()
    training.step({"loss": 0.5})
    training.end(error)
    return case.runs()[-1].status if case.runs() else None


@rule(
    "STS-001",
    of_trackers=True,
    needs=["status"],
    why="A run that is left active blocks the next one: huggingface/transformers#9210.",
    mend="Close the run in on_train_end.",
)
def a_training_that_ends_is_finished(case: Case) -> None:
    """A training that came to its end is finished."""
    status = _status_after(case, None)
    require(status == "finished", f"it is {status!r}")


@rule(
    "STS-002",
    of_trackers=True,
    needs=["status"],
    why="A job dies and its run shows as running for ever: huggingface/transformers#30333.",
    mend="Note the error in on_exception, and close the run as failed in on_train_end.",
)
def a_training_with_an_error_is_failed(case: Case) -> None:
    """A training that ended by an error is failed."""
    status = _status_after(case, RuntimeError("CUDA out of memory"))
    require(status == "failed", f"after an error it is {status!r}")


@rule(
    "STS-003",
    of_trackers=True,
    needs=["status"],
    why="A run that somebody stopped counts as crashed, or as complete: "
    "Lightning-AI/pytorch-lightning#12291.",
    mend="Tell an exception that is no Exception, such as KeyboardInterrupt, from an error.",
)
def a_training_that_a_person_stops_is_interrupted(case: Case) -> None:
    """A training that ended by Ctrl-C is interrupted."""
    status = _status_after(case, KeyboardInterrupt())
    require(status == "interrupted", f"after a KeyboardInterrupt it is {status!r}")


@rule(
    "STS-004",
    of_trackers=True,
    needs=["status"],
    why="A preempted job counts as one that is complete: Lightning-AI/pytorch-lightning#12291.",
    mend="Close the run in on_train_end by what on_exception was given, SystemExit too.",
)
def a_training_that_the_system_stops_is_not_finished(case: Case) -> None:
    """A training that ended by a `SystemExit`, as after a signal, is interrupted or failed."""
    status = _status_after(case, SystemExit(143))
    require(status in ("interrupted", "failed"), f"after a SystemExit it is {status!r}")


@rule(
    "STS-005",
    of_trackers=True,
    needs=["status"],
    why="A loop that raises does not always tell its callbacks: "
    "Lightning-AI/pytorch-lightning#10397.",
    mend="Where a run is still open in on_train_begin, close it as failed first.",
)
def a_training_that_was_not_ended_is_failed(case: Case) -> None:
    """A training that was begun and not ended is failed when the next one begins."""
    callback = case.make()
    first = case.training(callback)
    first.begin()
    first.step({"loss": 0.5})
    second = case.training(callback)
    second.begin()
    second.step({"loss": 0.25})
    second.end()
    statuses = [run.status for run in case.runs()]
    require("failed" in statuses, f"of two trainings, the first without an end, it is {statuses}")


@rule(
    "STS-006",
    of_trackers=True,
    needs=["status"],
    why="What a callback keeps of one training leaks into the next: keras-team/keras#20256.",
    mend="Set back in on_train_begin what on_exception has noted.",
)
def a_failure_is_not_that_of_the_next_training(case: Case) -> None:
    """A training is not failed because the one before it with the same callback was."""
    callback = case.make()
    for error in (RuntimeError("CUDA out of memory"), None):
        training = case.training(callback)
        training.begin()
        training.step({"loss": 0.5})
        training.end(error)
    statuses = [run.status for run in case.runs()]
    require(
        statuses[-1:] != ["failed"], f"of two trainings, the second without an error: {statuses}"
    )


@rule(
    "STS-007",
    of_trackers=True,
    needs=["status"],
    why="Logging after the end leaves the run open: huggingface/transformers#46935.",
    mend="Close the run again after what was logged while no training goes on.",
)
def an_evaluation_after_the_end_leaves_the_status(case: Case) -> None:
    """A run has the status that it had before something was logged after its end."""
    training = case.training()
    training.begin()
    training.step({"loss": 0.5})
    training.end()
    before = [run.status for run in case.runs()]
    training.evaluate({"eval_late": 0.375})
    comes_true(case, lambda: Stored(case).has("eval_late", 1, 0.375))
    comes_true(case, lambda: [run.status for run in case.runs()][:1] == before)
    after = [run.status for run in case.runs()]
    require(after[:1] == before, f"it was {before}, and after an evaluation it is {after}")


@rule(
    "STS-008",
    of_trackers=True,
    needs=["status"],
    why="An evaluation alone leaves a run that shows as running: huggingface/transformers#48875.",
    mend="Where on_log has opened a run by itself, close it after that.",
)
def an_evaluation_without_a_training_is_closed(case: Case) -> None:
    """A run that was opened for an evaluation without a training is not left open."""
    training = case.training(state=TrainerState(epoch=0.0))
    training.evaluate({"eval_alone": 0.375})
    comes_true(case, lambda: Stored(case).has("eval_alone", 0, 0.375))
    closed = comes_true(case, lambda: "running" not in [run.status for run in case.runs()])
    require(closed, "the run of an evaluation without a training is left open")
