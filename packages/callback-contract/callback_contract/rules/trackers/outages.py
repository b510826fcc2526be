"""Outages: an unreachable service delays no training and loses no point."""

from __future__ import annotations

from pathlib import Path
from time import sleep
from typing import Any, Final

from callback_contract._case import Case
from callback_contract._faulty_tracker import make_faulty
from callback_contract._isolation import collected_warnings
from callback_contract._killed_training import wait_until_stored
from callback_contract._network import Network, watched_network
from callback_contract._stored import (
    Stored,
    log_steps,
    losses,
    require_runs,
    tracker_rule,
    wait_for,
    wait_for_store,
)
from callback_contract._training import OUT_OF_MEMORY
from callback_contract._violation import ContractViolation, DoesNotApply, require
from callback_contract._watching import HandledTraining

LONGEST_EVENT: Final = 5.0
"""Seconds that an event may take, on a busy machine."""

LOGGED: Final = tuple(1 / number for number in range(3, 23))
"""The losses that a training logs during an outage."""


def _train(
    case: Case, callback: Any, error: BaseException | None = None, **more: Any
) -> tuple[HandledTraining, list[str]]:
    """Train to the end as a loop does, and return the training and the warnings."""
    training = case.training(callback, kind=HandledTraining, **more)
    assert isinstance(training, HandledTraining)
    with collected_warnings() as lines:
        training.begin()
        log_steps(training, *losses(*LOGGED))
        training.end(error)
    return training, lines


def _train_in_outage(
    case: Case, error: BaseException | None = None
) -> tuple[HandledTraining, list[str]]:
    return _train(case, case.subject.make_unreachable(case.output_dir), error)


@tracker_rule(
    "AWY-001",
    needs=["unreachable"],
    why="A tracker's timeout cost 15 hours of eight GPUs (radixark/miles#2571). An SDK that "
    "retries blocked the end of a training for minutes (Lightning-AI/pytorch-lightning#12834).",
    fix="Pass logs to a thread or a file, and contact the service from there. In on_train_end, "
    "wait for a limited time.",
)
def an_outage_does_not_delay_the_training(case: Case) -> None:
    """In an outage, an event takes less than 5 seconds, and 20 logs together less than 10.

    `on_train_end` returns within 5 seconds after `flush_limit`.
    """
    training, _ = _train_in_outage(case)
    event, longest = max(training.durations[:-1], key=lambda duration: duration[1])
    require(longest < LONGEST_EVENT, f"{event} took {longest:.1f} s")
    logs = [seconds for event, seconds in training.durations if event == "on_log"]
    require(sum(logs) < 2 * LONGEST_EVENT, f"{len(logs)} x on_log took {sum(logs):.1f} s")
    (_, took), limit = training.durations[-1], case.subject.flush_limit
    require(took < limit + LONGEST_EVENT, f"the end took {took:.1f} s; its limit is {limit:g} s")


@tracker_rule(
    "AWY-002",
    needs=["unreachable"],
    why="A run that had lost its server looked finished (comet-ml/issue-tracking#539). A warning "
    "for each failed value hides the loss (Lightning-AI/pytorch-lightning#21294).",
    fix="Warn at the first failure and at the end. Name the tracker, what it lacks, and what to "
    "do.",
)
def warns_of_an_outage(case: Case) -> None:
    """In an outage, there is a warning by the end, and at most one for every two logs."""
    _, lines = _train_in_outage(case)
    logs = len(LOGGED)
    require(lines, f"{logs} losses were logged and none was delivered, without a warning")
    require(len(lines) < logs / 2, f"{logs} logs made {len(lines)} warnings: {lines[:2]} …")


@tracker_rule(
    "AWY-003",
    needs=["unreachable"],
    why="Everything that was logged without a connection is lost: comet-ml/issue-tracking#463.",
    fix="If points are missing, write logs to a file first, and deliver from the file, now or "
    "later. If the run is another one or incomplete, open it with the id that `open` gets, and "
    "deliver its arguments and its status, too.",
)
def delivers_after_an_outage(case: Case) -> None:
    """After an outage, everything that is missing is delivered once and in order.

    The store has one run, with the arguments and the status if it stores them.
    """
    _train_in_outage(case, OUT_OF_MEMORY)
    try:
        case.subject.deliver_later(case.output_dir)
    except Exception as error:
        raise ContractViolation(f"deliver_later raised {error!r}") from error
    wait_for_store(case, lambda: Stored(case).has("loss", len(LOGGED), LOGGED[-1]))
    stored = Stored(case)
    stored.require_losses(*LOGGED)
    stored.require_once("loss")
    stored.require_ordered("loss")
    wait_for_store(case, lambda: case.runs()[-1].status in (None, "failed"))
    _require_complete_run(case, "failed")


@tracker_rule(
    "AWY-004",
    why="In runs of days, connections usually break now and then "
    "(Lightning-AI/pytorch-lightning#6641). The client then cannot know whether the server "
    "processed the call (ray-project/ray#29916).",
    fix="Let calls raise. Accept points that the store already has: add them again, or recognise "
    "them by name, step and time.",
)
def a_failed_call_can_be_repeated(case: Case) -> None:
    """A failed call can be repeated, whether or not it took effect.

    In each training of this rule, one call fails: the first of a method, or the second of
    `log_metrics`. It fails before the tracker processes it, or after, as if the answer were lost.
    No point is lost, and all are in one run. If the tracker has not processed the call, no point
    is stored twice.
    """
    methods = ("open", "log_parameters", "log_metrics", "close")
    for method, number in (*((name, 1) for name in methods), ("log_metrics", 2)):
        for after in (False, True):
            part = Case(case.subject, Path(case.folder, f"{method}-{number}-{after}"))
            try:
                _train_with_a_failing_call(case, part, method, number, after)
            except ContractViolation as violation:
                failed = "lost its answer" if after else "failed"
                raise ContractViolation(
                    f"call {number} of {method} {failed} and was repeated; {violation}",
                    violation.cause,
                    violation.fix,
                ) from None


@tracker_rule(
    "AWY-005",
    why="If the output directory cannot be written, such as on a full or a read-only disk, the "
    "first checkpoint fails. A tracker must not end the training earlier "
    "(Lightning-AI/pytorch-lightning#6641).",
    fix='Catch the errors of opening files, or set on_error = "isolate" on the class.',
)
def an_unwritable_output_directory_costs_nothing(case: Case) -> None:
    """A training completes although its `output_dir` cannot be created."""
    file = case.folder / "a-file"
    file.write_text("a file in place of the parent directory")
    training, _ = _train(case, case.make(), args=case.arguments(output_dir=str(file / "output")))
    require(training.state.global_step == len(LOGGED), "the training did not complete")


@tracker_rule(
    "AWY-006",
    needs=["unreachable"],
    why="If a tracker logs the errors of its service and continues, everything that was logged in "
    "an outage counts as delivered, and is lost (comet-ml/issue-tracking#463).",
    fix="Let the errors of the service leave `log_metrics` and the other methods. The points are "
    "then delivered again.",
)
def an_outage_within_a_training_loses_nothing(case: Case) -> None:
    """If connections are refused for a while within a training, each point is stored once.

    The rule applies to trackers of a `TrackerCallback` that connect meanwhile.
    """
    callback = case.make_tracker()
    make_faulty(callback, {})  # no call fails, but delivery is in this process and soon
    network = Network(with_new_threads=True)
    with watched_network(network), collected_warnings():
        training = case.begin(callback)
        log_steps(training, *losses(*LOGGED[:5]))
        wait_until_stored(case, ("loss", 5, LOGGED[4]))
        if network.tried:  # a store without a network needs no outage
            network.is_down = True
            log_steps(training, *losses(*LOGGED[5:10]))
            _outlast_attempts(network)
            network.is_down = False
            log_steps(training, *losses(*LOGGED[10:15]))
        training.end()
    if not network.refused:
        raise DoesNotApply("it opens no connection within a training")
    stored = Stored(case)
    stored.require_losses(*LOGGED[:15])
    stored.require_once("loss")


def _outlast_attempts(network: Network) -> None:
    """Wait for the first refused connection, and until the tracker has stopped trying again."""
    wait_for(lambda: network.refused, 5.0)
    for _ in range(6):
        before = network.refusals
        sleep(1.0)
        if network.refusals == before:
            return


def _train_with_a_failing_call(
    case: Case, part: Case, method: str, number: int, after: bool
) -> None:
    """Train in a directory of its own with a tracker that fails one call, and check the store."""
    callback = part.make_tracker()
    make_faulty(callback, {method: [number]}, after=after)
    may_refuse = after and method == "close"  # the run is closed, so closing it again may fail
    callback.options.flush_limit = 1.0 if may_refuse else 30.0
    training = part.training(callback)
    case.trainings.append(training)
    with collected_warnings():
        training.begin()
        log_steps(training, *losses(*LOGGED[:5]))
        training.end()
    stored = Stored(part)
    filled = [run.id for run in stored.runs if stored.points_of(run, "loss")]
    require(len(filled) == 1, f"the losses are in the runs {filled}")
    stored.require_losses(*LOGGED[:5])
    if not after:
        stored.require_once("loss")
        _require_complete_run(part, "finished")


def _require_complete_run(case: Case, status: str) -> None:
    require_runs(case, 1, "one training")
    stored = Stored(case)
    if case.claims("status"):
        found = stored.runs[0].status
        require(found == status, f"its status is {found!r}, not {status!r}")
    if case.claims("parameters"):
        seed = stored.parameter("seed")
        require(seed == "42", f"the argument seed=42 is stored as {seed!r}")
