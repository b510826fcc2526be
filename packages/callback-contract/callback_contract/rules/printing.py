"""Printing: logs as a person reads them, a line each, and who ended a training early."""

from __future__ import annotations

import contextlib
import io
import re
from array import array
from collections.abc import Mapping
from typing import Any, Final

from callback_contract._case import Case, Training
from callback_contract._rule import require, rule
from callback_contract._watching import elsewhere, silence

_STOPPED: Final = re.compile(r"(?i)stop")


def _printed(case: Case, *logs: Mapping[str, Any], training: Training | None = None) -> str:
    """Return what is printed of a training that logs these, a step each."""
    training = training or case.training()
    training.state.max_steps = len(logs)
    with silence() as (output, error):
        training.begin()
        for values in logs:
            training.step(values)
        training.end()
    return output.getvalue() + error.getvalue()


@rule(
    "PRN-001",
    since=(1, 1),
    needs=["prints_logs"],
    why="A loss that is printed and scrolls away is all that many trainings leave; one in the "
    "middle of a bar cannot be searched for (transformers 5.23.0, PrinterCallback).",
    mend="Print each log on a line of its own, names and values.",
)
def prints_a_line_for_each_log(case: Case) -> None:
    """Each log is a line of its own, with the names and the values."""
    lines = _printed(case, {"loss": 0.5, "grad_norm": 2.0}, {"loss": 0.25}).splitlines()
    for number, (loss, epoch) in enumerate(((0.5, 0.5), (0.25, 1.0))):
        whole = [ln for ln in lines if f"'loss': {loss}" in ln and f"'epoch': {epoch}" in ln]
        require(len(whole) == 1, f"log {number + 1} is {len(whole)} of the lines {lines}")
    require("'grad_norm': 2.0" in lines[0], f"the first line has no grad_norm: {lines[0]!r}")


_NUMBERS: Final = {
    "small": (0.000123456, "0.0001235"),
    "usual": (0.123456789, "0.1235"),
    "below": (-999.87654, "-999.9"),
    "large": (12345.6789, "12345.7"),
    "whole": (16777217.0, "16777217.0"),
    "count": (123456789, "123456789"),
    "right": (True, "True"),
    "empty": (None, "None"),
    "not_a": (float("nan"), "nan"),
    "above": (1000.123, "1000.1"),
    "words": ("0.123456789", "'0.123456789'"),
}


@rule(
    "PRN-002",
    since=(1, 1),
    needs=["prints_logs"],
    why="A loss of 17 digits, or of numpy's `np.float64(…)`, cannot be read; one of three digits "
    "hides what it is about (transformers 5.23.0, PrinterCallback).",
    mend="Round to four digits, but to none before the point; write plain numbers.",
)
def prints_numbers_to_four_digits(case: Case) -> None:
    """Numbers have four digits, and all of those before the point; whole ones have all.

    So have those in lists, tuples and dicts.
    """
    nested = {"list": [0.123456789], "pair": (0.123456789, "a"), "dict": {"in": 0.123456789}}
    values = {name: value for name, (value, _) in _NUMBERS.items()}
    printed = _printed(case, {**values, **nested})
    for name, (_, shown) in _NUMBERS.items():
        require(f"'{name}': {shown}," in printed, f"{name!r} is not {shown!r} in {printed!r}")
    for shown in ("'list': [0.1235]", "'pair': (0.1235, 'a')", "'dict': {'in': 0.1235}"):
        require(shown in printed, f"{shown} is not in {printed!r}")


class _Array:
    """An array as numpy, torch and jax have them."""

    def __init__(self, shape: tuple[int, ...], values: Any) -> None:
        self.shape, self.values = shape, values

    def tolist(self) -> Any:
        """Return the values, or refuse."""
        if isinstance(self.values, Exception):
            raise self.values
        return self.values


class _SparseTensor(_Array):
    """One whose values cannot be had."""


@rule(
    "PRN-003",
    since=(1, 1),
    needs=["prints_logs"],
    why="A confusion matrix in the logs fills the screen, and a tensor on a device that has "
    "failed ends the training (transformers 5.23.0).",
    mend="Write out an array of up to 100 elements, and the shape of others.",
)
def prints_small_arrays_and_the_shape_of_large_ones(case: Case) -> None:
    """An array of up to 100 elements is written out; of a larger one, the shape, and of another.

    That is one whose values cannot be had.
    """
    logs = {
        "scalar": _Array((), 0.123456789),
        "most": _Array((10, 10), [[0.5] * 10] * 10),
        "more": _Array((101,), [0.75] * 101),
        "sparse": _SparseTensor((2, 3), RuntimeError("no values")),
        "plain": array("d", [0.25]),  # which has no shape
    }
    printed = _printed(case, logs)
    require("'scalar': 0.1235" in printed, f"a scalar is not written out: {printed!r}")
    require(printed.count("0.5, ") >= 90, "an array of 100 elements is not written out")
    require("0.75" not in printed and "(101,)" in printed, "an array of 101 is not its shape")
    whole = "_SparseTensor" in printed and "(2, 3)" in printed
    require(whole, f"an array without values is neither its kind nor its shape: {printed!r}")
    require("array('d', [0.25])" in printed, f"Python's own array is not itself: {printed!r}")


@rule(
    "PRN-004",
    since=(1, 1),
    needs=["prints_logs"],
    why="total_flos is a number of 20 digits that is of no use in a line to be read "
    "(transformers 5.23.0, PrinterCallback).",
    mend="Leave total_flos out of a copy of the logs.",
)
def leaves_out_the_operations(case: Case) -> None:
    """`total_flos` is not printed, and what is logged beside it is."""
    printed = _printed(case, {"total_flos": 2.5e18, "loss": 0.5})
    require("total_flos" not in printed and "'loss': 0.5" in printed, f"it printed {printed!r}")


def _stopped(
    case: Case, reason: str | None, at: int = 2, of: int = 4, *, begins: bool = True, **more: Any
) -> list[str]:
    """Return the lines about a training that is asked to end, and ends."""
    training = case.training(**more)
    training.state.max_steps = of
    with silence() as (output, error):
        if begins:
            training.begin()
        training.state.global_step = at
        if reason is None:
            training.control.should_training_stop = True
        else:
            training.control.request_stop(reason)
            training.control.request_stop(reason)
        training.control.should_save = True
        training.end()
        training.end()
    lines = (output.getvalue() + error.getvalue()).splitlines()
    return [line for line in lines if _STOPPED.search(line)]


@rule(
    "PRN-005",
    since=(1, 1),
    needs=["prints_logs"],
    why="A training that ends early without a word looks as if it were done, or had failed "
    "(scverse/scvi-tools#978, keras-team/keras#12052).",
    mend="In on_train_end, print state.global_step and what control.requests have as reasons.",
)
def prints_who_ended_a_training_early(case: Case) -> None:
    """Where a training was asked to end early, a line says at which step of how many, and why.

    It says each reason once.
    """
    lines = _stopped(case, "no better for 3 evaluations")
    require(len(lines) == 1, f"it printed the lines {lines}")
    require(lines[0].count("no better for 3 evaluations") == 1, f"it says {lines[0]!r}")
    require("step 2 of 4" in lines[0] and "save" not in lines[0], f"it says {lines[0]!r}")
    lines = _stopped(case, None)
    require(len(lines) == 1 and "the program" in lines[0], f"without a reason it says {lines}")
    for unknown in (-1, 0):
        lines = _stopped(case, "enough", at=1, of=unknown)
        whole = len(lines) == 1 and "step 1:" in lines[0] and "of" not in lines[0]
        require(whole, f"where max_steps is {unknown}, which is not known, it says {lines}")


@rule(
    "PRN-006",
    since=(1, 1),
    needs=["prints_logs"],
    why="Each training ends by a request for its end; a line about that one is one too many "
    "(transformers 5.23.0, DefaultFlowCallback).",
    mend="Print nothing where all steps are done, or where no training has begun.",
)
def prints_nothing_about_an_end_that_was_due(case: Case) -> None:
    """Where all steps are done, where no training has begun, and elsewhere, there is no such line.

    Nor is there where only the default flow asked.
    """
    require(not _stopped(case, "due", at=4), "it says who asked for the end at the last step")
    require(not _stopped(case, "before", begins=False), "it says so where none has begun")
    require(not _stopped(case, "there", state=elsewhere()), "another process says so too")
    training = case.training()
    training.control.requests = [
        {"flag": "should_training_stop", "by": "DefaultFlowCallback", "step": 2}
    ]
    with silence() as (output, _):
        training.state.global_step = 2
        training.fire("on_step_end")
        control, training.control = training.control, training.control
        for callback in training.callbacks:
            callback.on_train_begin(training.args, training.state, control)
            callback.on_train_end(training.args, training.state, control)
    require(not _STOPPED.search(output.getvalue()), f"it says {output.getvalue()!r}")


@rule(
    "PRN-007",
    since=(1, 1),
    needs=["prints_logs"],
    why="A reason comes from anywhere, as from a file's name; one with control characters moves "
    "the cursor, or hides what stands before it (tqdm/tqdm#750).",
    mend="Write what is not printable as an escape.",
)
def escapes_control_characters_of_reasons(case: Case) -> None:
    """Control characters in the reason for the end are escapes in the line."""
    lines = _stopped(case, "no\x1b[2K better\r\nStopped too")
    require(len(lines) == 1 and lines[0].isprintable(), f"it printed {lines}")
    require(r"\x1b" in lines[0] and r"\n" in lines[0], f"it printed {lines}")


@rule(
    "PRN-008",
    since=(1, 1),
    needs=["prints_logs"],
    why="What is printed to a pipe stays in a buffer of 8 KB, so that `tail -f` of an hour-old "
    "training shows nothing (tqdm/tqdm#750).",
    mend="print(…, flush=True).",
)
def what_is_printed_is_there_at_once(case: Case) -> None:
    """A log that goes to a file or a pipe is there when `on_log` returns, and so is the end."""
    raw = io.BytesIO()
    output = io.TextIOWrapper(io.BufferedWriter(_Raw(raw)), encoding="ascii")
    with contextlib.redirect_stdout(output):
        training = case.training()
        training.begin()
        training.step({"loss": 0.5, "größe": "≤"})
        logged = raw.getvalue().decode("ascii")
        training.control.request_stop("enough")
        training.end()
        ended = raw.getvalue().decode("ascii")
        output.flush()
    require("'loss': 0.5" in logged, f"when on_log had returned, there was {logged!r}")
    require(r"\u2264" in logged, f"a character that cannot be written is no escape: {logged!r}")
    require("enough" in ended, f"when the training had ended, there was {ended!r}")


class _Raw(io.RawIOBase):
    """A file that keeps in memory what has come to it."""

    def __init__(self, into: io.BytesIO) -> None:
        self._into = into

    def writable(self) -> bool:
        """Return that it can be written."""
        return True

    def write(self, content: Any) -> int:
        """Keep `content`."""
        return self._into.write(bytes(content))
