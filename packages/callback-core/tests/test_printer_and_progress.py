"""What a person sees: the logs, bars where there is a terminal, and why training has stopped."""

from __future__ import annotations

import array
import fcntl
import math
import os
import pty
import struct
import subprocess
import sys
import termios
from types import SimpleNamespace
from typing import Any

import pyte
import pytest
from arguments_for_tests import Arguments
from training_for_tests import Training

from callback_core import PrinterCallback, ProgressCallback, TrainerControl, TrainerState
from callback_core.printer import readable_logs, why_stopped

LINES, COLUMNS = 24, 80


def program(code: str, **environment: str) -> dict[str, Any]:
    """Return how to run `code` with a `Training` at hand, which goes on after an `OSError`."""
    begin = "import contextlib\nfrom training_for_tests import *\ntraining = Training()\n"
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    return {
        "args": [sys.executable, "-c", f"{begin}with contextlib.suppress(OSError): {code}"],
        "env": {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", **environment},
    }


def in_a_terminal(code: str, **environment: str) -> list[list[str]]:
    """Return all that a terminal shows one after the other while `code` runs, as lines of text."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    process = subprocess.Popen(**program(code, **environment), stdout=its, stderr=its, stdin=its)
    os.close(its)
    written = b""
    try:
        while part := os.read(ours, 65536):
            written += part
    except OSError:  # Linux's way to say that the other end is closed
        pass
    os.close(ours)
    screen = pyte.Screen(COLUMNS, LINES)
    stream, shown = pyte.ByteStream(screen), []
    for part in written.replace(b"\r", b"\0\r").replace(b"\n", b"\n\0").split(b"\0"):
        stream.feed(part)
        shown.append([line.rstrip() for line in screen.display if line.strip()])
    assert process.wait() == 0, "\n".join(shown[-1])
    return shown


def in_a_pipe(code: str, **environment: str) -> str:
    """Return what `code` writes to a pipe, which is all it writes."""
    done = subprocess.run(**program(code, **environment), capture_output=True, check=True)
    assert done.stderr == b""
    return done.stdout.decode()


def bars(screen: list[str]) -> list[str]:
    """Return what the bars on a screen show, such as `2/4`, from top to bottom."""
    return [line.split("| ")[-1].split(" [")[0] for line in screen if "it/s]" in line]


def steps_of_bars(shown: list[list[str]]) -> list[list[str]]:
    """Return what the bars show one after the other."""
    steps = [bars(screen) for screen in shown]
    return [step for before, step in zip([[], *steps], steps, strict=False) if step != before]


def test_a_terminal_shows_the_training_bar_below_the_logs() -> None:
    shown = in_a_terminal("training.train()")
    assert shown[-1][:4] == ["{'loss': 0.3333}"] * 4
    assert bars(shown[-1]) == ["4/4"]
    assert ["0/4"] in map(bars, shown)


def test_an_evaluation_in_training_has_its_bar_below_and_leaves_nothing_of_it() -> None:
    shown = in_a_terminal("training.train(end=1, eval_dataloaders=([1, 2],))")
    assert ["1/4", "0/2"] in map(bars, shown)
    assert bars(shown[-1]) == ["1/4"]
    assert shown[-1][:2] == ["{'loss': 0.3333}", "{'eval_loss': 0.5}"]


def test_each_of_several_evaluations_in_a_row_has_a_bar() -> None:
    shown = in_a_terminal("training.train(eval_dataloaders=([1, 2], [1, 2, 3]))")
    for number in "1234":
        assert [f"{number}/4", "0/2"] in map(bars, shown)
        assert [f"{number}/4", "0/3"] in map(bars, shown)
    assert bars(shown[-1]) == ["4/4"]


def test_the_bar_of_an_evaluation_outside_of_training_stays() -> None:
    shown = in_a_terminal("training.evaluate(); training.train(); training.evaluate([1, 2, 3])")
    assert bars(shown[-1]) == ["2/2", "4/4", "3/3"]


def test_the_bar_of_an_evaluation_that_failed_is_not_continued() -> None:
    fail = "\nwith contextlib.suppress(OSError): training.evaluate(Failing(3))\n"
    assert bars(in_a_terminal(f"pass{fail}training.evaluate()")[-1]) == ["2/3", "2/2"]
    assert bars(in_a_terminal(f"pass{fail}training.train()")[-1]) == ["2/3", "4/4"]


def test_the_bar_of_an_evaluation_that_failed_after_its_last_batch_is_not_continued() -> None:
    same = "batches = [1, 2]\ntraining.handler.eval_dataloader = batches\n"
    predict = "for _ in batches: training.fire('on_prediction_step')\n"
    assert bars(in_a_terminal(f"pass\n{same}{predict}training.evaluate(batches)")[-1]) == [
        "2/2",
        "2/2",
    ]


def test_the_bar_of_a_resumed_training_begins_where_training_does() -> None:
    steps = steps_of_bars(in_a_terminal("training.train(begin=2)"))
    assert (steps[0], steps[-1]) == (["2/4"], ["4/4"])


def test_a_second_training_has_a_bar_of_its_own() -> None:
    assert bars(in_a_terminal("training.train(); training.train()")[-1]) == ["4/4", "4/4"]


def test_a_training_that_an_error_ends_leaves_its_bar_where_it_was() -> None:
    shown = in_a_terminal("training.train(eval_dataloaders=(Failing(3),))")
    assert ["1/4", "0/3"] in map(bars, shown)
    assert bars(shown[-1]) == ["1/4"]


def test_a_length_that_is_not_known_is_not_shown() -> None:
    shown = in_a_terminal(
        "training.state.max_steps = 0; training.train(); training.evaluate(Endless())"
    )
    assert [line.split(" [")[0] for line in shown[-1] if "it/s]" in line] == ["4it", "3it"]


def test_only_the_first_of_several_processes_shows_something() -> None:
    code = "training.state.is_world_process_zero = False; training.train(2, 3, ([1],), 'enough')"
    assert in_a_terminal(code)[-1] == []


def test_a_pipe_gets_the_logs_as_plain_lines_and_no_bar() -> None:
    assert in_a_pipe("training.train(eval_dataloaders=([1, 2],))") == (
        "{'loss': 0.3333}\n{'eval_loss': 0.5}\n" * 4
    )


def test_a_pipe_gets_each_log_at_once() -> None:
    code = "training.fire('on_log', logs={'loss': 1}); input()"
    process = subprocess.Popen(
        **program(code), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "{'loss': 1}\n"  # while the program waits
    process.communicate("\n")
    assert process.returncode == 0


def test_a_program_that_imports_a_notebook_s_modules_is_not_taken_for_one() -> None:
    assert in_a_pipe("import ipykernel.zmqshell; training.train()") == "{'loss': 0.3333}\n" * 4


def test_what_a_pipe_s_encoding_lacks_is_escaped() -> None:
    written = in_a_pipe(
        "training.fire('on_log', logs={'note': 'über \\r\\x1b[A 中'})", PYTHONIOENCODING="ascii"
    )
    assert written == "{'note': '\\xfcber \\r\\x1b[A \\u4e2d'}\n"
    assert written.strip().isprintable()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1 / 3, "0.3333"),
        (5e-05, "5e-05"),
        (1.23456e-7, "1.235e-07"),
        (-123.456, "-123.5"),
        (1234.56, "1234.6"),
        (12345.678, "12345.7"),
        (24100.0, "24100.0"),
        (123456789, "123456789"),
        (True, "True"),
        (None, "None"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        ("größer", "'größer'"),
        ({"f1": {"große": 2 / 3}, "each": [1 / 3, (1, 2 / 3)]}, None),
        (memoryview(struct.pack("f", 0.1)).cast("f", shape=[]), "0.1"),  # type: ignore[call-overload]
        (memoryview(array.array("d", [1 / 3, 2.0])), "[0.3333, 2.0]"),
        (memoryview(array.array("d", range(200))), "'[memoryview of shape (200,)]'"),
    ],
)
def test_a_value_is_shown_as_a_person_reads_it(value: Any, shown: str | None) -> None:
    nested = "{'f1': {'große': 0.6667}, 'each': [0.3333, (1, 0.6667)]}"
    assert str(readable_logs({"value": value})) == f"{{'value': {shown or nested}}}"


def test_long_strings_are_shown_by_their_length_also_inside_of_others() -> None:
    note = "[11 characters, more than max_str_len=10]"
    logs = {"note": "x" * 11, "notes": ["x" * 11, "x" * 10]}
    assert readable_logs(logs, max_str_len=10) == {"note": note, "notes": [note, "x" * 10]}


def test_the_printer_prints_a_line_and_leaves_the_logs_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs = {"loss": 1 / 3, "total_flos": 1.0, "nested": {"f1": 1 / 3}}
    PrinterCallback().on_log(Arguments(), TrainerState(), TrainerControl(), logs=logs)
    assert capsys.readouterr().out == "{'loss': 0.3333, 'nested': {'f1': 0.3333}}\n"
    assert logs == {"loss": 1 / 3, "total_flos": 1.0, "nested": {"f1": 1 / 3}}


def test_the_printer_is_silent_but_in_the_main_process(capsys: pytest.CaptureFixture[str]) -> None:
    state, control = TrainerState(is_local_process_zero=False), TrainerControl()
    control.request_stop("enough")
    printer = PrinterCallback()
    printer.on_train_begin(Arguments(), state, control)
    printer.on_log(Arguments(), state, control, logs={"loss": 1.0})
    printer.on_train_end(Arguments(), state, control)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("callback", [PrinterCallback, ProgressCallback])
def test_both_printers_say_once_who_asked_for_an_early_end(
    callback: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    training = Training(global_step=3)
    training.handler.callbacks = [callback()]
    training.fire("on_train_begin")
    training.control.request_stop("en\x1b[31mou\ngh \u4e2d")
    training.fire("on_train_end")
    line = "Stopped at step 3 of 4: the program: en\\x1b[31mou\\ngh \u4e2d\n"
    assert capsys.readouterr().out == line
    training.fire("on_train_end")  # what closes is called at any time
    assert capsys.readouterr().out == ""


def test_the_end_that_the_default_flow_asks_for_is_not_early() -> None:
    training = Training(max_steps=0)  # which nobody has said
    training.fire("on_train_begin")
    training.fire("on_step_end")
    assert training.control.should_training_stop
    assert why_stopped(training.state, training.control) is None


def test_the_line_of_an_early_end_stands_below_the_bar() -> None:
    last = in_a_terminal("training.train(end=2, stop='enough')")[-1]
    assert bars(last[-2:-1]) == ["2/4"]
    assert last[-1] == "Stopped at step 2 of 4: the program: enough"


def test_all_who_asked_for_an_early_end_are_named_once() -> None:
    control = TrainerControl(should_save=True)
    for reason in ("too hot", "too late", "too hot"):
        control.request_stop(reason)
    control.should_training_stop = True
    assert why_stopped(TrainerState(global_step=2, max_steps=4), control) == (
        "Stopped at step 2 of 4: the program: too hot; the program: too late; the program"
    )
    assert why_stopped(TrainerState(global_step=2), control) == (
        "Stopped at step 2: the program: too hot; the program: too late; the program"
    )


def test_an_end_after_all_steps_or_asked_for_by_nobody_known_is_not_explained() -> None:
    control = TrainerControl(should_training_stop=True)
    assert why_stopped(TrainerState(global_step=4, max_steps=4), control) is None
    early = TrainerState(global_step=3, max_steps=4)
    assert why_stopped(early, TrainerControl(should_save=True)) is None
    # transformers' control
    assert why_stopped(early, SimpleNamespace(should_training_stop=True)) is None


@pytest.mark.parametrize(("disable", "drawn"), [("1", []), ("", ["4/4"])])
def test_tqdm_s_own_switch_turns_the_bar_off(disable: str, drawn: list[str]) -> None:
    last = in_a_terminal("training.train()", TQDM_DISABLE=disable)[-1]
    assert (bars(last), last[:4]) == (drawn, ["{'loss': 0.3333}"] * 4)


def test_the_progress_callback_says_at_which_step_its_bar_is() -> None:
    training = Training()
    progress = training.handler.callbacks[1]
    assert progress.current_step == 0
    training.train(begin=1, end=3)
    assert progress.current_step == 3


class Tensor:
    """Does not tell its numbers, as a sparse tensor of torch and one without data."""

    shape = (3, 1)

    def tolist(self) -> Any:
        raise RuntimeError("it has no data")


def test_an_array_that_does_not_tell_its_numbers_is_shown_by_its_shape() -> None:
    assert readable_logs({"value": Tensor()}) == {"value": "[Tensor of shape (3, 1)]"}
