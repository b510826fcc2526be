"""Flow: what the strategies of the arguments say is due is asked for, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from callback_contract._case import Case
from callback_contract._rule import require, rule

_MEND: Final = "Ask for it where the argument says so: `step % state.{0}_steps == 0`."
_LAST: Final = 6


def _asked(case: Case, flag: str, event: str = "on_step_end", **arguments: Any) -> list[int]:
    """Return after which of six steps, two to an epoch, `event` asks for `flag`."""
    steps = {n: arguments.pop(n) for n in ("logging_steps", "eval_steps", "save_steps")}
    training = case.training(args=case.arguments(**arguments, **steps))
    training.state.max_steps, training.state.num_train_epochs = _LAST, _LAST // 2
    vars(training.state).update(steps)
    training.begin()
    asked = []
    for step in range(1, _LAST + 1):
        training.fire("on_step_begin")
        training.state.global_step, training.state.epoch = step, step / 2
        for then in ("on_step_end", "on_epoch_end")[: 2 - step % 2]:
            training.control.should_epoch_stop = getattr(training.control, flag)
            setattr(training.control, flag, False)
            training.fire(then)
            if then == event and getattr(training.control, flag):
                asked.append(step)
    training.end()
    return asked


def _require_asked(
    case: Case, flag: str, expected: Iterable[int], event: str = "on_step_end", **arguments: Any
) -> None:
    usual: dict[str, Any] = {"logging_steps": 100, "eval_steps": 100, "save_steps": 100}
    usual |= {"logging_strategy": "no", "eval_strategy": "no", "save_strategy": "no"}
    found, expected = _asked(case, flag, event, **{**usual, **arguments}), [*expected]
    with_these = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    require(
        found == expected,
        f"with {with_these}, {event} asks for {flag} after the steps {found} and not {expected}",
    )


@rule(
    "FLW-001",
    since=(1, 1),
    needs=["flow"],
    why="The steps of a log are counted from the beginning of training, so that a run that is "
    "resumed logs at the same ones (transformers 5.23.0, DefaultFlowCallback).",
    mend=_MEND.format("logging"),
)
def logs_every_so_many_steps(case: Case) -> None:
    """With `logging_strategy="steps"`, a log is asked for every `logging_steps` steps."""
    _require_asked(case, "should_log", (2, 4, 6), logging_strategy="steps", logging_steps=2)
    _require_asked(case, "should_log", (4,), logging_strategy="steps", logging_steps=4)


@rule(
    "FLW-002",
    since=(1, 1),
    needs=["flow"],
    why="The loss before anything is learned is what the others are compared with "
    "(transformers 5.23.0, logging_first_step).",
    mend="Ask for a log at step 1 where args.logging_first_step is set, and only there.",
)
def logs_the_first_step_where_that_is_asked(case: Case) -> None:
    """With `logging_first_step`, a log is asked for after the first step, whatever is due."""
    _require_asked(case, "should_log", (1,), logging_first_step=True)
    _require_asked(
        case, "should_log", (1, 4), logging_strategy="steps", logging_steps=4,
        logging_first_step=True,
    )  # fmt: skip


@rule(
    "FLW-003",
    since=(1, 1),
    needs=["flow"],
    why="A training whose last step is no multiple of eval_steps ended without an evaluation of "
    "what it had come to (transformers 5.23.0, DefaultFlowCallback).",
    mend=_MEND.format("eval") + " And at the last step.",
)
def evaluates_every_so_many_steps_and_at_the_last(case: Case) -> None:
    """With `eval_strategy="steps"`, every `eval_steps` steps and the last one are evaluated."""
    _require_asked(case, "should_evaluate", (4, 6), eval_strategy="steps", eval_steps=4)
    _require_asked(case, "should_evaluate", (3, 6), eval_strategy="steps", eval_steps=3)


@rule(
    "FLW-004",
    since=(1, 1),
    needs=["flow"],
    why="The first evaluations of a long training cost hours and tell nothing, which is what "
    "eval_delay is for (transformers 5.23.0).",
    mend="Compare args.eval_delay with the step, or with the epoch where epochs are evaluated.",
)
def evaluates_nothing_before_the_delay(case: Case) -> None:
    """Before `eval_delay` steps, or epochs, nothing is evaluated; at it, and after it, it is."""
    for delay, expected in ((3, (3, 6)), (4, (6,))):
        _require_asked(
            case, "should_evaluate", expected, eval_strategy="steps", eval_steps=3,
            eval_delay=delay,
        )  # fmt: skip
    _require_asked(
        case, "should_evaluate", (4, 6), "on_epoch_end", eval_strategy="epoch", eval_delay=2
    )


@rule(
    "FLW-005",
    since=(1, 1),
    needs=["flow"],
    why="A training whose last step is no multiple of save_steps ended without a checkpoint of "
    "what it had come to (transformers 5.23.0, DefaultFlowCallback).",
    mend=_MEND.format("save") + " And at the last step; with 0, at the last step only.",
)
def saves_every_so_many_steps_and_at_the_last(case: Case) -> None:
    """With `save_strategy="steps"`, every `save_steps` steps and the last one are saved."""
    _require_asked(case, "should_save", (4, 6), save_strategy="steps", save_steps=4)
    _require_asked(case, "should_save", range(1, 7), save_strategy="steps", save_steps=1)
    _require_asked(case, "should_save", (6,), save_strategy="steps", save_steps=0)


@rule(
    "FLW-006",
    since=(1, 1),
    needs=["flow"],
    why="Loops end when the control says so: without it, an epoch that has more batches than "
    "max_steps goes on (transformers 5.23.0, DefaultFlowCallback).",
    mend="Set should_training_stop where state.global_step >= state.max_steps.",
)
def asks_for_the_end_at_the_last_step(case: Case) -> None:
    """The end of training is asked for at the last step, and at none before."""
    _require_asked(case, "should_training_stop", (6,), logging_strategy="epoch")


@rule(
    "FLW-007",
    since=(1, 1),
    needs=["flow"],
    why="With epochs as the strategy, steps that count too would save a checkpoint at each "
    "(transformers 5.23.0, DefaultFlowCallback).",
    mend="Look at the strategies in on_epoch_end too, at each for its own flag.",
)
def epochs_are_logged_evaluated_and_saved(case: Case) -> None:
    """With `"epoch"` as a strategy, what it is about is asked for at an epoch's end, and only then.

    What the other strategies are about is not.
    """
    flags = {"logging": "should_log", "eval": "should_evaluate", "save": "should_save"}
    for name, flag in flags.items():
        for of, other in flags.items():
            due = (2, 4, 6) if other == flag else ()
            strategy = {f"{name}_strategy": "epoch"}
            _require_asked(case, other, due, "on_epoch_end", **strategy)
            _require_asked(case, other, (), "on_step_end", **strategy, **{f"{of}_steps": 1})


@rule(
    "FLW-008",
    since=(1, 1),
    needs=["flow"],
    why="An epoch without a known end has epoch=None, and a loop that counts steps only evaluates "
    "all the same (unslothai/unsloth-zoo#821).",
    mend="Read state.epoch as `state.epoch or 0`.",
)
def an_epoch_without_a_number_is_before_the_delay(case: Case) -> None:
    """Where `state.epoch` is None, an epoch that ends is evaluated if there is no delay."""
    for delay in (0, 1):
        args = case.arguments(eval_strategy="epoch", eval_delay=delay, logging_strategy="no")
        training = case.training(args=args)
        training.begin()
        training.state.global_step, training.state.epoch = 1, None
        training.fire("on_epoch_end")
        asked = training.control.should_evaluate
        require(asked == (delay == 0), f"with eval_delay={delay}, should_evaluate is {asked}")
