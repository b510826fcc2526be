"""Failure: a callback hides no error, and an unreachable service costs the training nothing."""

from __future__ import annotations

from typing import Any

from callback_contract._case import Case
from callback_contract._network import no_network
from callback_contract._registry import rule
from callback_contract._training import OUT_OF_MEMORY, Training
from callback_contract._violation import require
from callback_contract._watching import HandledTraining


@rule(
    "FLT-001",
    why="An invalid value is noticed only at the first error, hours later, if at all. An unknown "
    "COMET_MODE only logs a warning and disables Comet (transformers 5.x).",
    fix="Set on_error to 'raise' or 'isolate', or leave the default.",
)
def has_a_valid_error_policy(case: Case) -> None:
    """`on_error`, if it is set, is `raise`, `isolate` or a function."""
    policy = getattr(case.make(), "on_error", "raise")
    require(callable(policy) or policy in ("raise", "isolate"), f"on_error is {policy!r}")


@rule(
    "FLT-002",
    why="fastai formats `e.args[0]` of the error that ended the training, so a bare assert became "
    "an IndexError (fastai 2.8). Ctrl-C and SIGTERM also end trainings.",
    fix="In on_exception, use only `repr(exception)` and `isinstance(exception, Exception)`.",
)
def accepts_any_exception(case: Case) -> None:
    """`on_exception` accepts any exception: one without arguments, an interrupt, an exit."""
    for error in (ValueError("no"), AssertionError(), KeyboardInterrupt(), SystemExit(143)):
        _one_step(case).end(error)


@rule(
    "FLT-003",
    why="Users need to see the error that ended the training. A hook that fails or changes the "
    "error masks it (pytorch/ignite#1234).",
    fix="Read the exception without changing it, and raise nothing from it.",
)
def leaves_the_error_unchanged(case: Case) -> None:
    """`on_exception` and `on_train_end` do not change the error that ended the training."""
    training = _one_step(case)
    error = _raised(ValueError("the loss is not finite", 4))
    before = _content(error)
    training.end(error)
    require(_content(error) == before, f"the error became {error!r}")


@rule(
    "FLT-004",
    why="A bare except swallows Ctrl-C and SIGTERM (NVIDIA/CleanUNet#11). A training that users "
    "cannot stop gets killed, and loses everything since its last checkpoint.",
    fix="Catch Exception. Never catch BaseException, and never use a bare except.",
)
def propagates_interrupts(case: Case) -> None:
    """A callback catches no KeyboardInterrupt while it reads logs or metrics, or runs the model."""
    for event, keyword in (("on_log", "logs"), ("on_evaluate", "metrics")):
        training = _one_step(case)
        values = _Interrupting({"loss": 0.5, "eval_loss": 0.5})
        propagated = False
        try:
            keywords = {**training.common(), keyword: values}
            training.call(training.callbacks[0], event, keywords)
        except KeyboardInterrupt:
            propagated = True
        was_read, values.was_read = values.was_read, True  # later reads are not interrupted
        training.end(KeyboardInterrupt())
        require(propagated or not was_read, f"{event} swallowed a KeyboardInterrupt")
    case.exercise(kind=_InterruptedModel)


@rule(
    "FLT-005",
    why="A webhook without a timeout blocked a training for hours because its server did not "
    "answer, and one that was refused ended another training (huggingface/transformers#9210, "
    "radixark/miles#2571).",
    fix="Give each call a timeout, catch its errors and log a warning, or call in a thread.",
)
def an_unreachable_service_costs_nothing(case: Case) -> None:
    """Without a network, no event fails or pauses the training, and each connection has a timeout.

    The rule watches only the training's thread, because other threads do not delay it.
    """
    callback = case.make()
    with no_network() as network:
        case.training(callback, kind=HandledTraining).live()
        case.begin(callback, kind=HandledTraining).end(OUT_OF_MEMORY)
    endless, paused = sorted(network.endless), network.paused
    require(not endless, f"it connects without a timeout to {', '.join(endless)}")
    allowed = 1.0 + case.subject.flush_limit if case.subject_is_a_tracker else 1.0
    require(
        not network.refused or paused <= allowed,
        f"it paused the training for {paused:g} s in total",
    )


@rule(
    "FLT-006",
    needs=("unreachable",),
    why="Outages of trackers ended trainings after hours (Lightning-AI/pytorch-lightning#6641, "
    "huggingface/transformers#8849, wandb/wandb#5873). In one case, eight GPUs lost 15 hours "
    "(radixark/miles#2571).",
    fix="Set `on_error = 'isolate'` on the class, or catch the errors of the service.",
)
def an_outage_does_not_end_a_training(case: Case) -> None:
    """A training completes although its callback cannot reach its service."""
    case.training(case.subject.make_unreachable(case.output_dir), kind=HandledTraining).live()


class _InterruptedModel(Training):
    """A training in which Ctrl-C is pressed whenever a callback runs the model."""

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        interrupts: list[bool] = []

        def interrupt(*_: Any) -> None:
            interrupts.append(True)
            raise KeyboardInterrupt

        hook = getattr(self.model, "register_forward_pre_hook", None)
        handle = hook(interrupt) if hook is not None else None
        try:
            return super().call(callback, event, keywords)
        except KeyboardInterrupt:
            interrupts.clear()
        finally:
            if handle is not None:
                handle.remove()
            name = f"{type(callback).__name__}.{event}"
            require(not interrupts, f"{name} swallowed a KeyboardInterrupt of the model")


class _Interrupting(dict[str, Any]):
    """Values whose first read is interrupted by Ctrl-C."""

    was_read = False

    def interrupt_once(self) -> None:
        """Raise `KeyboardInterrupt` the first time."""
        if not self.was_read:
            self.was_read = True
            raise KeyboardInterrupt


def _interrupted(name: str) -> Any:
    method = getattr(dict, name)

    def read(self: _Interrupting, *arguments: Any) -> Any:
        self.interrupt_once()
        return method(self, *arguments)

    return read


for _name in ("__getitem__", "__iter__", "__contains__", "get", "items", "keys", "values", "copy"):
    setattr(_Interrupting, _name, _interrupted(_name))


def _one_step(case: Case) -> Training:
    """Return a training after its first step."""
    training = case.begin()
    training.fire("on_epoch_begin")
    training.step({"loss": 0.5})
    return training


def _raised(error: Exception) -> Exception:
    """Return `error` with a traceback and a cause."""
    try:
        raise error from OSError("the disk is full")
    except Exception as caught:
        return caught


def _content(error: BaseException) -> tuple[Any, ...]:
    parts = (type(error), error.args, error.__traceback__, error.__cause__, error.__context__)
    return (*parts, {**vars(error)})
