"""Failure: what an error costs is what the user chose, and it is never hidden by another one."""

from __future__ import annotations

from typing import Any

from callback_contract._case import Case
from callback_contract._rule import ContractViolation, require, rule
from callback_contract._watching import log_messages
from callback_core import EVENTS, CallbackHandler, DefaultFlowCallback

_POLICIES = ("raise", "isolate")


@rule(
    "FLT-001",
    why="A value that does not exist is found when the first error comes, hours in, if at all: "
    "an unknown COMET_MODE switches Comet off with no more than a warning (transformers "
    "5.x).",
    mend="Set on_error to 'raise' or to 'isolate', or leave it as it is.",
)
def has_a_policy_that_exists(case: Case) -> None:
    """`on_error`, where there is one, is `raise` or `isolate`."""
    chosen = getattr(case.make(), "on_error", "raise")
    require(callable(chosen) or chosen in _POLICIES, f"on_error is {chosen!r}")


@rule(
    "FLT-002",
    why="A tracker's outage ended trainings after hours (Lightning-AI/pytorch-lightning#6641, "
    "huggingface/transformers#8849, wandb/wandb#5873), 15 hours of eight GPUs in one case "
    "(radixark/miles#2571).",
    mend="Set `on_error = 'isolate'` on the class, as TrackerCallback does.",
    of_trackers=True,
)
def a_tracker_is_isolated(case: Case) -> None:
    """An error of a tracker does not end a training unless the user asks for that."""
    require(getattr(case.make(), "on_error", "raise") == "isolate", "on_error is not 'isolate'")


@rule(
    "FLT-003",
    why="fastai formats `e.args[0]` of whatever ended the training, so that a bare assert "
    "became an IndexError (fastai 2.8). Ctrl-C and SIGTERM end trainings too.",
    mend="In on_exception, use `repr(exception)` and `isinstance(exception, Exception)` only.",
)
def is_told_of_any_error(case: Case) -> None:
    """`on_exception` takes any exception: one without arguments, an interrupt, an exit."""
    for error in (ValueError("no"), AssertionError(), KeyboardInterrupt(), SystemExit(143)):
        training = case.training()
        training.begin()
        training.fire("on_epoch_begin")
        training.step({"loss": 0.5})
        training.end(error)


@rule(
    "FLT-004",
    why="The error that ended a training is what its user has to see; a hook that fails or "
    "meddles masks it (pytorch/ignite#1234, Lightning's call.py:_interrupt).",
    mend="Look at the exception and leave it; raise nothing from it, and add nothing to it.",
)
def leaves_the_error_as_it_is(case: Case) -> None:
    """The error that ended the training is unchanged after `on_exception` and `on_train_end`."""
    training = case.training()
    training.begin()
    training.fire("on_epoch_begin")
    training.step({"loss": 0.5})
    error = _raised(ValueError("the loss is not finite", 4))
    before = _content(error)
    training.end(error)
    require(_content(error) == before, f"the error became {error!r}")


@rule(
    "FLT-005",
    why="Whether a failing callback may end a training is for the user to say: who reports to "
    "an auditor wants it to, who draws curves does not "
    "(Lightning-AI/pytorch-lightning#12834, huggingface/transformers#9210).",
    mend="Let on_error be a plain attribute, and do not catch errors of your own events.",
)
def a_failure_costs_what_the_user_chose(case: Case) -> None:
    """An error in any event costs what the user's choice of `on_error` says.

    With `raise` it reaches the caller as it is; with `isolate` it does not.
    """
    for policy in _POLICIES:
        callback = case.make()
        callback.on_error = policy
        for event in EVENTS:
            planted = RuntimeError(f"planted in {event}")
            got = _failing(case, callback, event, planted)
            expected = planted if policy == "raise" and EVENTS[event].raises else None
            require(got is expected, f"an error in {event} under {policy!r} became {got!r}")


@rule(
    "FLT-006",
    why="A bare except swallows Ctrl-C and SIGTERM (NVIDIA/CleanUNet#11), and a training that "
    "cannot be stopped is killed, with all that is not saved.",
    mend="Catch Exception, never BaseException, and never with a bare except.",
)
def lets_interrupts_through(case: Case) -> None:
    """A KeyboardInterrupt while the callback reads the logs reaches the caller."""
    training = case.training()
    training.begin()
    training.fire("on_epoch_begin")
    logs = _Interrupting(loss=0.5)
    came = False
    try:
        callback = training.callbacks[0]
        on_log = getattr(callback, "on_log", None)
        if on_log is not None:
            on_log(training.args, training.state, training.control, logs=logs, model=training.model)
    except KeyboardInterrupt:
        came = True
    training.end()
    require(came or not logs.interrupted, "it swallowed a KeyboardInterrupt")


class _Interrupting(dict[str, Any]):
    """Logs that are being read when Ctrl-C is pressed."""

    interrupted = False

    def _interrupt(self, *args: Any) -> Any:
        self.interrupted = True
        raise KeyboardInterrupt

    items = keys = values = get = copy = _interrupt
    __iter__ = __getitem__ = __contains__ = __repr__ = _interrupt


def _failing(case: Case, callback: Any, event: str, planted: Exception) -> BaseException | None:
    """Return what reaches the loop when `event` of the callback raises `planted`."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise planted

    try:
        setattr(callback, event, fail)
    except Exception as error:
        raise ContractViolation(f"{event} cannot be replaced on it: {error!r}") from error
    training = case.training(callback)
    passed: dict[str, Any] = dict.fromkeys(EVENTS[event].passes)
    passed.update({name: {"eval_loss": 0.5} for name in ("logs", "metrics") if name in passed})
    try:
        with log_messages():
            handler = CallbackHandler([DefaultFlowCallback(), callback], None, None, None, None)
            handler.call_event(event, training.args, training.state, training.control, **passed)
    except Exception as error:
        return error
    finally:
        delattr(callback, event)
    return None


def _raised(error: Exception) -> Exception:
    """Return `error` with a traceback and a cause."""
    try:
        raise error from OSError("the disk is full")
    except Exception as caught:
        return caught


def _content(error: BaseException) -> tuple[Any, ...]:
    told = (type(error), error.args, error.__traceback__, error.__cause__, error.__context__)
    return (*told, {**vars(error)})
