"""What `PrinterCallback` and `ProgressCallback` print: logs, a resume, and who ended a training."""

from __future__ import annotations

import ast
import io
import math
import re
import struct
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from types import SimpleNamespace
from typing import Any

import pytest
from arguments_for_tests import Arguments
from training_for_tests import Training

from callback_core import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)
from callback_core.callbacks.printer import why_stopped

Printed = pytest.CaptureFixture[str]


@pytest.fixture(params=[PrinterCallback, ProgressCallback])
def training(request: pytest.FixtureRequest) -> Training:
    """A training of four steps, with one of the two callbacks."""
    return Training(request.param)


@contextmanager
def pipe() -> Iterator[io.BytesIO]:
    """Make standard output one that writes in ASCII, and keeps back what is not flushed."""
    written = io.BytesIO()
    with redirect_stdout(io.TextIOWrapper(written, encoding="ascii")):
        yield written


def end(training: Training, *reasons: str | None, step: int = 2) -> None:
    """Train to `step`, where the program asks for the end once for each reason; `None` is none."""
    training.fire("on_train_begin")
    training.state.global_step = step
    for reason in reasons:
        if reason is None:
            training.control.should_training_stop = True
        else:
            training.control.request_stop(reason)
    training.fire("on_train_end")


def asked(printed: str) -> tuple[str, str | None, list[str]]:
    """Return what the line of an early end says: the step, of how many, and who asked and why."""
    found = re.fullmatch(r"\D*\b(\d+)(?: of (\d+))?: (.+)\n", printed)
    assert found, printed
    return found[1], found[2], found[3].split("; ")


def reasons_in(printed: str) -> list[str]:
    """Return the reasons that the line of an early end gives."""
    return [who_and_why.partition(": ")[2] for who_and_why in asked(printed)[2]]


def test_each_log_is_a_line_with_its_names_and_values(training: Training, capsys: Printed) -> None:
    logs = [{"loss": 0.5, "grad_norm": 2.0, "epoch": 0.5}, {"loss": 0.25, "epoch": 1.0}]
    for of_a_step in logs:
        training.fire("on_log", logs=of_a_step)
    assert [ast.literal_eval(line) for line in capsys.readouterr().out.splitlines()] == logs


class Float64(float):
    """A number that shows its type, as numpy's do."""

    def __repr__(self) -> str:
        return f"np.float64({float(self)})"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1 / 3, "0.3333"),
        (0.000123456, "0.0001235"),
        (5e-05, "5e-05"),
        (1.23456e-7, "1.235e-07"),
        (-123.456, "-123.5"),
        (-999.87654, "-999.9"),
        (1000.123, "1000.1"),
        (12345.678, "12345.7"),
        (16777217.0, "16777217.0"),
        (Float64(2.0), "2.0"),
        (123456789, "123456789"),
        (True, "True"),
        (None, "None"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        ("0.123456789", "'0.123456789'"),
        ("größer", "'größer'"),
        ([1 / 3, (1, 2 / 3)], "[0.3333, (1, 0.6667)]"),
        ({"f1": {"große": 2 / 3}}, "{'f1': {'große': 0.6667}}"),
        (memoryview(struct.pack("f", 0.1)).cast("f", shape=[]), "0.1"),  # type: ignore[call-overload]
        (memoryview(array("d", [1 / 3, 2.0])), "[0.3333, 2.0]"),
        (memoryview(bytes(100)).cast("B", shape=[10, 10]), f"{[[0] * 10] * 10}"),
        (array("d", [0.25]), "array('d', [0.25])"),  # which has no shape
    ],
)
def test_a_value_is_printed_as_a_person_reads_it(
    value: Any, shown: str, training: Training, capsys: Printed
) -> None:
    training.fire("on_log", logs={"value": value})
    assert capsys.readouterr().out == f"{{'value': {shown}}}\n"


class Tensor:
    """Does not tell its numbers, as a sparse tensor of torch and one without data."""

    shape = (3, 1)

    def tolist(self) -> Any:
        raise RuntimeError("it has no data")


@pytest.mark.parametrize(
    ("value", "kind", "shape"),
    [(memoryview(bytes(101)), "memoryview", "(101,)"), (Tensor(), "Tensor", "(3, 1)")],
)
def test_an_array_that_is_large_or_does_not_tell_its_numbers_is_printed_as_kind_and_shape(
    value: Any, kind: str, shape: str, training: Training, capsys: Printed
) -> None:
    training.fire("on_log", logs={"value": value})
    assert re.fullmatch(
        rf"{{'value': '[^,']*\b{kind}\b[^,']*{re.escape(shape)}[^,']*'}}\n", capsys.readouterr().out
    )


@pytest.mark.parametrize("wrapped", ["{}", "[{}]", "{{'note': {}}}"])
def test_the_progress_callback_prints_the_length_of_a_string_that_is_too_long(
    wrapped: str, capsys: Printed
) -> None:
    long = ast.literal_eval(wrapped.format(repr("l" * 101)))
    Training(ProgressCallback).fire("on_log", logs={"text": long})
    printed = capsys.readouterr().out
    assert "101" in printed
    assert "l" * 101 not in printed


@pytest.mark.parametrize(
    ("callback", "length"),
    [(ProgressCallback(), 100), (ProgressCallback(max_str_len=300), 300), (PrinterCallback(), 999)],
)
def test_a_string_that_is_not_too_long_is_printed_in_full(
    callback: Any, length: int, capsys: Printed
) -> None:
    Training(callback).fire("on_log", logs={"text": "s" * length})
    assert capsys.readouterr().out == f"{{'text': '{'s' * length}'}}\n"


def test_the_number_of_operations_is_not_printed(training: Training, capsys: Printed) -> None:
    training.fire("on_log", logs={"loss": 0.5, "total_flos": 2.5e18})
    assert capsys.readouterr().out == "{'loss': 0.5}\n"


@pytest.mark.parametrize("callback", [PrinterCallback, ProgressCallback])
def test_the_logs_stay_as_they_are(callback: Any) -> None:
    logs = {"loss": 1 / 3, "total_flos": 1.0, "nested": {"f1": 1 / 3}}
    callback().on_log(Arguments(), TrainerState(), TrainerControl(), logs=logs)
    assert logs == {"loss": 1 / 3, "total_flos": 1.0, "nested": {"f1": 1 / 3}}


@pytest.mark.parametrize(
    ("callback", "first"),
    [(PrinterCallback, "is_local_process_zero"), (ProgressCallback, "is_world_process_zero")],
)
def test_another_process_than_the_first_prints_nothing(
    callback: Any, first: str, capsys: Printed
) -> None:
    Training(callback, **{first: False}).train(end=1, stop="enough")
    assert capsys.readouterr().out == ""


def test_the_printer_prints_on_each_machine(capsys: Printed) -> None:
    training = Training(PrinterCallback, is_world_process_zero=False)
    training.fire("on_log", logs={"loss": 0.5})
    assert capsys.readouterr().out == "{'loss': 0.5}\n"


def test_a_log_is_in_a_pipe_at_once(training: Training) -> None:
    with pipe() as written:
        training.fire("on_log", logs={"loss": 0.5})
        assert written.getvalue() == b"{'loss': 0.5}\n"


def test_an_early_end_is_in_a_pipe_at_once(training: Training) -> None:
    with pipe() as written:
        end(training, "enough")
        assert b"enough" in written.getvalue()


def test_what_the_encoding_of_a_pipe_lacks_is_escaped_in_a_log(training: Training) -> None:
    with pipe() as written:
        training.fire("on_log", logs={"größe": "\r\x1b[A 中"})
        assert written.getvalue() == rb"{'gr\xf6\xdfe': '\r\x1b[A \u4e2d'}" + b"\n"


def test_what_the_encoding_of_a_pipe_lacks_is_escaped_in_a_reason(training: Training) -> None:
    with pipe() as written:
        end(training, "中")
        assert rb"\u4e2d" in written.getvalue()


@pytest.mark.parametrize(("step", "last"), [(2, 4), (0, 1)])
def test_an_early_end_is_a_line_with_its_step_and_the_last_one(
    step: int, last: int, training: Training, capsys: Printed
) -> None:
    training.state.max_steps = last
    end(training, "enough", step=step)
    assert asked(capsys.readouterr().out)[:2] == (f"{step}", f"{last}")


@pytest.mark.parametrize("unknown", [-1, 0])
def test_an_early_end_has_no_last_step_where_that_is_unknown(
    unknown: int, training: Training, capsys: Printed
) -> None:
    training.state.max_steps = unknown
    end(training, "enough", step=1)
    assert asked(capsys.readouterr().out)[:2] == ("1", None)


def test_an_early_end_names_the_callback_that_asked_for_it(
    training: Training, capsys: Printed
) -> None:
    class Thermometer(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.request_stop("too hot")

    training.handler.add_callback(Thermometer())
    training.fire("on_train_begin")
    training.state.global_step = 1
    training.fire("on_step_end")
    training.fire("on_train_end")
    assert asked(capsys.readouterr().out) == ("1", "4", ["Thermometer: too hot"])


def test_each_reason_of_an_early_end_is_printed_once(training: Training, capsys: Printed) -> None:
    end(training, "too hot", "too late", "too hot")
    assert reasons_in(capsys.readouterr().out) == ["too hot", "too late"]


def test_an_early_end_without_a_reason_is_a_line_too(training: Training, capsys: Printed) -> None:
    end(training, None)
    (who,) = asked(capsys.readouterr().out)[2]
    assert "None" not in who


def test_what_else_was_asked_for_is_not_in_the_line_of_an_early_end(
    training: Training, capsys: Printed
) -> None:
    training.control.should_save = True
    end(training, "enough")
    assert reasons_in(capsys.readouterr().out) == ["enough"]


def test_control_characters_of_a_reason_are_escaped(training: Training, capsys: Printed) -> None:
    end(training, "no\x1b[2K better\r\nthan 中")
    assert reasons_in(capsys.readouterr().out) == [r"no\x1b[2K better\r\nthan 中"]


def test_an_early_end_is_printed_once(training: Training, capsys: Printed) -> None:
    end(training, "enough")
    capsys.readouterr()
    training.fire("on_train_end")  # what closes is called at any time
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("last", "step"), [(1, 1), (4, 4), (4, 5)])
def test_an_end_at_the_last_step_or_after_it_is_not_early(
    last: int, step: int, training: Training, capsys: Printed
) -> None:
    training.state.max_steps = last
    end(training, "enough", step=step)
    assert capsys.readouterr().out == ""


def test_the_end_that_the_default_flow_asks_for_is_not_early(
    training: Training, capsys: Printed
) -> None:
    training.state.max_steps = 0  # which nobody has said
    training.fire("on_train_begin")
    training.fire("on_step_end")
    assert training.control.should_training_stop
    training.fire("on_train_end")
    assert capsys.readouterr().out == ""


def test_only_a_request_for_the_end_is_an_early_end(training: Training, capsys: Printed) -> None:
    training.control.should_save = True
    end(training)
    assert capsys.readouterr().out == ""


def test_an_end_of_what_has_not_begun_is_not_early(training: Training, capsys: Printed) -> None:
    training.control.request_stop("enough")
    training.fire("on_train_end")
    assert capsys.readouterr().out == ""


def test_a_control_that_keeps_no_requests_explains_no_early_end() -> None:
    control = SimpleNamespace(should_training_stop=True)  # as transformers' is
    assert why_stopped(TrainerState(global_step=3, max_steps=4), control) is None


@pytest.mark.parametrize(
    ("step", "checkpoint", "numbers"),
    [(2, "run/checkpoint-2", ["2", "2", "4"]), (3, None, ["3", "4"]), (0, "x/y", ["0", "4"])],
)
def test_a_training_that_resumes_says_at_which_step_and_from_where(
    step: int,
    checkpoint: str | None,
    numbers: list[str],
    training: Training,
    capsys: Printed,
) -> None:
    training.state.global_step = step
    # A loop that does not know the checkpoint does not pass it.
    training.fire("on_train_begin", **({"checkpoint_dir": checkpoint} if checkpoint else {}))
    printed = capsys.readouterr().out
    assert re.findall(r"\d+", printed) == numbers
    assert (checkpoint or "") in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("step", "last", "nothing_left"), [(3, 4, False), (4, 4, True), (5, 4, True), (5, -1, False)]
)
def test_a_training_of_which_nothing_is_left_says_what_to_change(
    step: int, last: int, nothing_left: bool, training: Training, capsys: Printed
) -> None:
    training.state.global_step, training.state.max_steps = step, last
    training.fire("on_train_begin", checkpoint_dir=f"run/checkpoint-{step}")
    named = {"max_steps", "num_train_epochs"} & set(re.findall(r"\w+", capsys.readouterr().out))
    assert len(named) == (2 if nothing_left else 0)


def test_a_training_from_the_beginning_and_another_process_say_nothing_of_it(
    training: Training, capsys: Printed
) -> None:
    training.fire("on_train_begin", checkpoint_dir=None)
    training.fire("on_train_end")
    training.state.is_world_process_zero = training.state.is_local_process_zero = False
    training.state.global_step = 2
    training.fire("on_train_begin", checkpoint_dir="run/checkpoint-2")
    assert capsys.readouterr().out == ""
