"""Bars: where a training is, and each of its evaluations, for somebody who looks at a terminal."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any, Final

from callback_contract._case import Case, Training
from callback_contract._rule import require, rule
from callback_contract._terminal import counts, screen, watched
from callback_contract._watching import elsewhere
from callback_core import TrainerState

_MEND: Final = "tqdm(total=state.max_steps, initial=state.global_step), and update() at each step."


def _steps(training: Training, number: int, at_once: int = 1) -> None:
    for _ in range(number):
        training.state.global_step += at_once - 1
        training.step()


@rule(
    "BAR-001",
    since=(1, 1),
    needs=["bars"],
    why="How long a training still takes is what a bar is looked at for; one that ends short of "
    "its end says that something is missing (transformers 5.23.0, ProgressCallback).",
    mend=_MEND,
)
def the_bar_of_training_goes_to_its_end(case: Case) -> None:
    """In a terminal, a bar goes from 0 to `max_steps`, and stands there when training has ended."""
    with watched() as (_, error):
        training = case.training()
        training.begin()
        first = counts(error.getvalue())
        _steps(training, 2)
        _steps(training, 1, at_once=2)
        training.end()
        training.fire("on_step_end")
    drawn = counts(error.getvalue())
    require(first[:1] == [(0, 4)], f"when training began, the bar was at {first}")
    require(drawn[-1:] == [(4, 4)], f"when it had ended, the bar had been at {drawn}")
    require(error.getvalue().endswith("\n"), "the bar of training is not left to be read")
    with watched() as (_, error):
        training = case.training()
        training.state.max_steps = 1
        training.begin()
        _steps(training, 1)
        training.end()
    drawn = counts(error.getvalue())
    require(drawn[-1:] == [(1, 1)], f"of a training of one step it drew {error.getvalue()!r}")


@rule(
    "BAR-002",
    since=(1, 1),
    needs=["bars"],
    why="A bar that begins at 0 when a training is resumed says that all is done anew, and takes "
    "the steps before for speed (transformers 5.23.0, ProgressCallback).",
    mend=_MEND,
)
def the_bar_of_a_resumed_training_begins_where_it_does(case: Case) -> None:
    """The bar of a resumed training begins at its step, and moves by the steps that are done."""
    with watched() as (_, error):
        state = TrainerState(global_step=50, epoch=1.0, max_steps=52, num_train_epochs=2)
        training = case.training(state=state)
        training.begin()
        _steps(training, 2)
        training.end()
    drawn = counts(error.getvalue())
    require(drawn[:1] == [(50, 52)] and drawn[-1] == (52, 52), f"the bar was at {drawn}")


@rule(
    "BAR-003",
    since=(1, 1),
    needs=["bars"],
    why="A training whose length is not known, over a stream of data, has no end to be drawn "
    "(transformers 5.23.0, max_steps).",
    mend="Give the bar no total where max_steps is not above 0.",
)
def a_training_without_an_end_is_counted(case: Case) -> None:
    """Where `max_steps` is not known, the bar counts the steps and shows no end."""
    for unknown in (-1, 0):
        with watched() as (_, error):
            training = case.training()
            training.state.max_steps = unknown
            training.begin()
            _steps(training, 3)
            training.end()
        text = error.getvalue()
        require(not counts(text) and "3it" in text, f"with max_steps={unknown} it drew {text!r}")


def _evaluates(training: Training, batches: int, loader: Any, event: str = "on_evaluate") -> None:
    training.extra["eval_dataloader"] = loader
    for _ in range(batches):
        training.fire("on_prediction_step")
    if event:
        training.fire(event, metrics={"eval_loss": 1.0})


@rule(
    "BAR-004",
    since=(1, 1),
    needs=["bars"],
    why="An evaluation that takes as long as an epoch looks as if the training hung "
    "(transformers 5.23.0, ProgressCallback).",
    mend="Open a bar at the first on_prediction_step, and close it in on_evaluate and on_predict.",
)
def an_evaluation_has_a_bar_of_its_own(case: Case) -> None:
    """An evaluation and a prediction have a bar from the first batch to the last, each from 0."""
    for event in ("on_evaluate", "on_predict"):
        with watched() as (_, error):
            training = case.training()
            _evaluates(training, 10, stopped := [0] * 40, event)  # before its loader is at its end
            before = len(error.getvalue())
            _evaluates(training, 1, stopped, event)
            again = counts(error.getvalue()[before:])
            require(again[:1] == [(0, 40)], f"after one that was cut short, it began at {again}")
        with watched() as (_, error):
            training = case.training()
            _evaluates(training, 3, loader := [0] * 30, "")
            drawn = counts(error.getvalue())
            require(drawn[:1] == [(0, 30)], f"the bar of an evaluation began at {drawn}")
            _evaluates(training, 27, loader, event)
            before = len(error.getvalue())
            begun = counts(error.getvalue()).count((0, 30))
            require(begun == 1, f"30 batches of one evaluation have {begun} bars")
            _evaluates(training, 1, loader, "")
            again = counts(error.getvalue()[before:])
            training.fire(event, metrics={})
        require((30, 30) in drawn or (30, 30) in counts(error.getvalue()), "it never was full")
        require(again[:1] == [(0, 30)], f"the next evaluation's bar began at {again}")


@rule(
    "BAR-005",
    since=(1, 1),
    needs=["bars"],
    why="An evaluation that fails outside of a training ends without an event; the next one went "
    "on with its bar, beyond the end (transformers 5.23.0, ProgressCallback).",
    mend="Begin a new bar where the data loader is another one, or where the bar is full.",
)
def an_evaluation_after_one_that_failed_has_a_bar_of_its_own(case: Case) -> None:
    """An evaluation that follows one that has broken off begins its bar at 0.

    The next training, and the end of its own, take what is left of it from the screen.
    """
    with watched() as (_, error):
        training = case.training()
        _evaluates(training, 2, [0] * 30, "")
        before = len(error.getvalue())
        _evaluates(training, 1, other := [0] * 20, "")
        drawn = counts(error.getvalue()[before:])
        require((0, 20) in drawn, f"after one that broke off, the bar was at {drawn}")
        _evaluates(training, 19, other, "")
        before = len(error.getvalue())
        _evaluates(training, 1, other, "")
        drawn = counts(error.getvalue()[before:])
        require((0, 20) in drawn, f"after one without an event, the bar was at {drawn}")
        training.fire("on_evaluate", metrics={})
        before = len(error.getvalue())
        training.begin()
        training.step()
        training.begin()
        training.end()
    drawn = counts(error.getvalue()[before:])
    require(drawn.count((1, 4)) >= 3, f"after a training without an end, the bar was at {drawn}")
    for goes_on in ("on_train_begin", "on_train_end"):
        with watched() as (_, error):
            training = case.training()
            training.begin()
            training.step()
            _evaluates(training, 2, [0] * 30, "")
            seen = screen(error.getvalue())
            training.fire(goes_on)
            left = [line for line in screen(error.getvalue()) if "/30" in line]
            training.end()
        require(any("/30" in line for line in seen), f"an evaluation is not seen in {seen}")
        require(not left, f"of an evaluation that broke off, {goes_on} leaves {left}")


class _Endless:
    """A data loader that does not know how many batches it has, as torch's over a stream."""

    def __len__(self) -> int:
        raise TypeError("no length")


@rule(
    "BAR-006",
    since=(1, 1),
    needs=["bars"],
    why="len() of a loader over a stream raises, which ended evaluations (transformers 5.23.0, "
    "ProgressCallback).",
    mend="Give the bar no total where the loader has no length.",
)
def an_evaluation_of_a_stream_is_counted(case: Case) -> None:
    """Where the data loader has no length, the bar of an evaluation counts the batches."""
    for loader in (_Endless(), iter(()), None):
        with watched() as (_, error):
            _evaluates(case.training(), 2, loader)
        text = error.getvalue()
        require(not counts(text) and "it" in text, f"of a stream it drew {text!r}")


@rule(
    "BAR-007",
    since=(1, 1),
    needs=["bars"],
    why="With a bar of each of eight processes, nobody can read any "
    "(huggingface/transformers#28373).",
    mend="Open bars where state.is_world_process_zero, and nowhere else.",
)
def another_process_draws_nothing(case: Case) -> None:
    """A process that is not the main one draws no bar, of a training or of an evaluation."""
    with watched() as (output, error):
        training = case.training(state=elsewhere())
        training.live()
    drawn = output.getvalue() + error.getvalue()
    require(not drawn, f"another process drew {drawn!r}")


@rule(
    "BAR-008",
    since=(1, 1),
    needs=["bars"],
    why="A bar that is drawn anew a thousand times fills log files (tqdm/tqdm#750), and tqdm's own "
    "switch has no effect where a callback says otherwise.",
    mend="Pass disable=None, and ask for TQDM_DISABLE.",
)
def no_bar_where_nobody_looks(case: Case) -> None:
    """In a pipe, and where `TQDM_DISABLE` is set, there is no bar, and the logs are there."""
    for terminal in (False, True):
        with watched(terminal) as (output, error):
            if terminal:
                os.environ["TQDM_DISABLE"] = "1"
            try:
                case.training().run()
            finally:
                os.environ.pop("TQDM_DISABLE", None)
        where = "with TQDM_DISABLE" if terminal else "in a pipe"
        drawn = output.getvalue() + error.getvalue()
        require(not counts(drawn) and "it/s" not in drawn, f"{where} it drew {drawn!r}")
        require("'loss': 0.5" in output.getvalue(), f"{where} there were no logs")


@rule(
    "BAR-009",
    since=(1, 1),
    needs=["bars"],
    why="A bar for each evaluation that stays pushes the training's off the screen "
    "(transformers 5.23.0, ProgressCallback).",
    mend="Pass leave=False for the bar of an evaluation in a training.",
)
def the_bar_of_an_evaluation_in_a_training_goes_away(case: Case) -> None:
    """The bar of an evaluation within a training is taken away, and that of training stays."""
    with watched() as (_, error):
        training = case.training()
        training.begin()
        _steps(training, 4)
        before = len(error.getvalue())
        _evaluates(training, 30, [0] * 30)
        drawn = error.getvalue()[before:]
        training.end()
    last = [part for part in re.split(r"[\r\n]|\x1b\[A", drawn) if part][-1]
    require(not last.strip(), f"the bar of an evaluation was left as {last!r}")
    require((0, 30) in counts(drawn), f"within a training, an evaluation drew {drawn!r}")
    with watched() as (_, error):
        _evaluates(case.training(), 30, [0] * 30)
    require((30, 30) in counts(error.getvalue()), "the bar of an evaluation alone is not left")


@rule(
    "BAR-010",
    since=(1, 1),
    needs=["bars"],
    why="A generated sample of many pages in the logs pushes all else off the screen "
    "(transformers 5.23.0, max_str_len).",
    mend="Write how long a string is in place of one that is longer than max_str_len.",
)
def long_strings_are_not_written_out(case: Case) -> None:
    """A logged string of more than 100 characters is a note of its length; one of 100 is not."""
    with watched() as (output, _):
        training = case.training()
        training.begin()
        training.step({"short": "s" * 100, "long": "l" * 101, "inside": {"in": "i" * 300}})
        training.end()
    text = output.getvalue()
    require("s" * 100 in text, "a string of 100 characters is not written out")
    require("l" * 101 not in text and "101" in text, f"one of 101 is, or has no note: {text!r}")
    require("i" * 300 not in text and "300" in text, f"one within a dict is: {text!r}")


@contextmanager
def _in_a_notebook() -> Iterator[None]:
    """Have a program look like a notebook's kernel: as far as can be told from its modules."""
    notebook: Any = ModuleType("IPython")
    notebook.get_ipython = lambda: SimpleNamespace(kernel=object(), config={})
    was = sys.modules.get("IPython")
    sys.modules["IPython"] = notebook
    try:
        yield
    finally:
        del sys.modules["IPython"]
        if was is not None:
            sys.modules["IPython"] = was


@rule(
    "BAR-011",
    since=(1, 1),
    needs=["bars"],
    why="A notebook shows standard error in red and apart from what is printed, and cannot go up "
    "a line: a second bar of text goes down the page (tqdm/tqdm#750).",
    mend="In a kernel, draw on standard output, and no bar below another that is text.",
)
def a_notebook_has_one_bar_of_text(case: Case) -> None:
    """In a notebook without widgets, the bar of training is on standard output, and it alone."""
    with _in_a_notebook(), watched(terminal=False) as (output, error):
        training = case.training()
        training.begin()
        _steps(training, 4)
        _evaluates(training, 30, [0] * 30)
        training.end()
        ended = output.getvalue()
        _evaluates(case.training(), 3, [0] * 40)
    require(not error.getvalue(), f"on standard error there is {error.getvalue()!r}")
    drawn = counts(ended)
    require((0, 4) in drawn and (4, 4) in drawn, f"on standard output there is {ended!r}")
    require((0, 30) not in drawn, f"there is a bar below that of training: {ended!r}")
    require((0, 40) in counts(output.getvalue()), "an evaluation alone has no bar")
