"""A service that is away: that costs the training nothing, and no point."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import Any, Final

from callback_contract._case import Case
from callback_contract._faulty_tracker import make_faulty
from callback_contract._stored import (
    Stored,
    comes_true,
    log_steps,
    losses,
    tracker_rule,
    warned,
)
from callback_contract._training import DIED, Training
from callback_contract._violation import ContractViolation, require
from callback_core import CallbackHandler

LONGEST_EVENT: Final = 5.0
"""Seconds that an event may take, on a machine that is busy with other things."""

VALUES: Final = tuple(1 / number for number in range(3, 23))
"""What is logged as the loss while the service is away."""


class Handled(Training):
    """A training that calls its callbacks through the handler, which honours `on_error`.

    Attributes:
        took: Seconds that each event took.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        with warned():  # that there is no DefaultFlowCallback
            self._handler = CallbackHandler(self.callbacks, self.model, None, None, None)
        self.took: list[tuple[str, float]] = []

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> None:
        """Call `event` of the only callback, and note how long it takes."""
        begun = monotonic()
        try:
            method = getattr(self._handler, event)
            self.control = method(self.args, self.state, self.control, **keywords)
        except Exception as error:
            name = f"{type(callback).__name__}.{event}"
            raise ContractViolation(
                f"{name} raised {error!r} at step {self.state.global_step}, which ends the "
                'training; it neither handles the error nor has on_error = "isolate"',
                cause=f"{name} raised {type(error).__name__}: {error}",
            ) from error
        finally:
            self.took.append((event, monotonic() - begun))


def _train(
    case: Case, callback: Any, error: BaseException | None = None, **more: Any
) -> tuple[Handled, list[str]]:
    """Train to the end through a handler; return the training, and the warnings."""
    training = case.training(callback, kind=Handled, **more)
    assert isinstance(training, Handled)
    with warned() as lines:
        training.begin()
        log_steps(training, *losses(*VALUES))
        training.end(error)
    return training, lines


def _without_service(case: Case, error: BaseException | None = None) -> tuple[Handled, list[str]]:
    return _train(case, case.subject.make_unreachable(case.output_dir), error)


@tracker_rule(
    "AWY-001",
    needs=["unreachable"],
    why="15 hours of eight GPUs were lost to a tracker's timeout (radixark/miles#2571); the end "
    "hangs for minutes in an SDK that tries again (Lightning-AI/pytorch-lightning#12834).",
    mend="Hand what is logged to a thread or a file, and talk to the service from there; wait in "
    "on_train_end up to a limit.",
)
def a_service_that_is_away_costs_no_time(case: Case) -> None:
    """With its service away, no event takes five seconds, and 20 logs together take less than ten.

    `on_train_end` returns within five seconds after `flush_limit`.
    """
    training, _ = _without_service(case)
    event, longest = max(training.took[:-1], key=lambda took: took[1])
    require(longest < LONGEST_EVENT, f"{event} took {longest:.1f} s")
    logs = [seconds for event, seconds in training.took if event == "on_log"]
    require(sum(logs) < 2 * LONGEST_EVENT, f"{len(logs)} x on_log took {sum(logs):.1f} s")
    (_, took), limit = training.took[-1], case.subject.flush_limit
    require(took < limit + LONGEST_EVENT, f"the end took {took:.1f} s; its limit is {limit:g} s")


@tracker_rule(
    "AWY-002",
    needs=["unreachable"],
    why="A run that had lost its server showed as ended (comet-ml/issue-tracking#539); a line for "
    "each value that failed buries the loss (Lightning-AI/pytorch-lightning#21294).",
    mend="Warn at the first failure and at the end: name the tracker, what it has not got, and "
    "what to do.",
)
def warns_that_the_service_is_away(case: Case) -> None:
    """With its service away, there is a warning by the end, and not one for each second log."""
    _, lines = _without_service(case)
    logs = len(VALUES)
    require(lines, f"{logs} losses were logged, none was delivered, and nothing warned")
    require(len(lines) < logs / 2, f"{logs} logs made {len(lines)} warnings: {lines[:2]} …")


@tracker_rule(
    "AWY-003",
    needs=["unreachable"],
    why="What was logged without a connection is lost completely: comet-ml/issue-tracking#463.",
    mend="Write what is logged to a file first, and deliver from the file, now or later.",
)
def delivers_later_what_is_missing(case: Case) -> None:
    """What its service has not got is delivered once it is back: each point once, in order.

    There is one run, with the arguments and how the training ended, as far as the store has them.
    """
    _without_service(case, DIED)
    try:
        case.subject.deliver_later(case.output_dir)
    except Exception as error:
        raise ContractViolation(f"deliver_later raised {error!r}") from error
    comes_true(case, lambda: Stored(case).has("loss", len(VALUES), VALUES[-1]))
    stored = Stored(case)
    stored.require_losses(*VALUES)
    stored.require_once("loss")
    steps = [step for step, _ in stored.points("loss")]
    require(steps == sorted(steps), f"the steps were delivered in the order {steps}")
    comes_true(case, lambda: case.runs()[-1].status in (None, "failed"))
    _require_a_whole_run(case, "failed")


@tracker_rule(
    "AWY-004",
    why="A connection that breaks for a second is the rule in a run of days "
    "(Lightning-AI/pytorch-lightning#6641), and whether a call was done before is not known then "
    "(ray-project/ray#29916).",
    mend="Let calls raise; take what the store has already once more: add it again, or know it by "
    "its name, step and time.",
)
def a_call_that_fails_may_be_made_again(case: Case) -> None:
    """A tracker takes a call again that has failed, done or not: no point is lost, one run has all.

    The first call of each method fails, and the second of `log_metrics`, before the tracker has
    done it; then once it has, as if the answer were lost. In the first case no point is double.
    """
    for method, number in (*((name, 1) for name in _METHODS), ("log_metrics", 2)):
        for after in (False, True):
            part = Case(case.subject, Path(case.folder, f"{method}-{number}-{after}"))
            try:
                _train_with_a_failing_call(case, part, method, number, after)
            except ContractViolation as broken:
                which = f"call {number} of {method}"
                failed = f"the answer to {which} was lost" if after else f"{which} failed"
                told = f"{failed}, and it was made again; {broken}"
                raise ContractViolation(told, broken.cause) from None


@tracker_rule(
    "AWY-005",
    why="A directory that cannot be written to, on a full or a read-only disk, is found at the "
    "first checkpoint; until then a training need not end for a tracker "
    "(Lightning-AI/pytorch-lightning#6641).",
    mend='Catch what opening a file raises, or set on_error = "isolate" on the class.',
)
def an_output_directory_that_cannot_be_written_costs_nothing(case: Case) -> None:
    """With an `output_dir` that cannot be made, a training with the tracker runs to its end."""
    file = case.folder / "a-file"
    file.write_text("in place of a directory")
    training, _ = _train(case, case.make(), args=case.arguments(output_dir=str(file / "output")))
    require(training.state.global_step == len(VALUES), "the training did not come to its end")


_METHODS: Final = ("open", "log_parameters", "log_metrics", "close")


def _train_with_a_failing_call(
    case: Case, part: Case, method: str, number: int, after: bool
) -> None:
    """Train in a directory of its own with a tracker, one call of which fails, and look."""
    callback = part.make_tracker()
    make_faulty(callback, {method: [number]}, after=after)
    closed_already = after and method == "close"  # and may refuse to be closed once more
    callback.options.flush_limit = 1.0 if closed_already else 30.0
    training = part.training(callback)
    case.trainings.append(training)
    with warned():
        training.begin()
        log_steps(training, *losses(*VALUES[:5]))
        training.end()
    stored = Stored(part)
    filled = [run.id for run in stored.runs if stored.of(run, "loss")]
    require(len(filled) == 1, f"the losses are in the runs {filled}")
    stored.require_losses(*VALUES[:5])
    if not after:
        stored.require_once("loss")
        _require_a_whole_run(part, "finished")


def _require_a_whole_run(case: Case, status: str) -> None:
    runs = case.runs()
    require(len(runs) == 1, f"the store holds {len(runs)} runs of one training")
    if case.claims("status"):
        require(runs[0].status == status, f"its status is {runs[0].status!r}, not {status!r}")
    if case.claims("parameters"):
        found = Stored(case).parameter("seed")
        require(found == "42", f"the argument seed=42 is stored as {found!r}")
