"""What a person sees: the logs, and bars where there is a terminal."""

from __future__ import annotations

import fcntl
import math
import os
import pty
import struct
import subprocess
import sys
import termios
from typing import Any

import pytest
from arguments_for_tests import Arguments

from callback_core import PrinterCallback, TrainerControl, TrainerState
from callback_core.printer import readable_logs

TRAINING = """
from arguments_for_tests import Arguments
from callback_core import *

args, control = Arguments(), TrainerControl()
state = TrainerState(max_steps=4, global_step=BEGIN)
handler = CallbackHandler([DefaultFlowCallback, ProgressCallback], None, None, None, None)
handler.on_train_begin(args, state, control)
for state.global_step in range(BEGIN + 1, 5):
    handler.on_step_end(args, state, control)
    handler.on_log(args, state, control, logs={"loss": 1 / 3, "total_flos": 1.0})
handler.eval_dataloader = [1, 2]
for batch in handler.eval_dataloader:
    handler.on_prediction_step(args, state, control)
handler.on_evaluate(args, state, control, metrics={})
handler.on_train_end(args, state, control)
"""


def program(begin: int = 0) -> dict[str, Any]:
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    return {
        "args": [sys.executable, "-c", TRAINING.replace("BEGIN", str(begin))],
        "env": {**os.environ, "PYTHONPATH": path, "COLUMNS": "80"},
    }


def in_a_terminal(begin: int = 0) -> str:
    """Return all that the training writes to a terminal of 24 lines and 80 columns."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(**program(begin), stdout=its, stderr=its, stdin=its)
    os.close(its)
    written = b""
    try:
        while part := os.read(ours, 65536):
            written += part
    except OSError:  # Linux's way to say that the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    return written.decode()


def test_floats_are_read_with_four_digits_and_long_strings_by_their_length() -> None:
    logs = {
        "loss": 1 / 3,
        "lr": 5e-05,
        "nan": math.nan,
        "step": 3,
        "note": "x" * 11,
        "total_flos": 1e20,
    }
    assert str(readable_logs(logs, max_str_len=10)) == (
        "{'loss': 0.3333, 'lr': 5e-05, 'nan': nan, 'step': 3, 'note': '[11 characters, more than "
        "max_str_len=10]'}"
    )


def test_the_printer_prints_a_line_and_leaves_the_logs_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs = {"loss": 1 / 3, "total_flos": 1.0}
    PrinterCallback().on_log(Arguments(), TrainerState(), TrainerControl(), logs=logs)
    assert capsys.readouterr().out == "{'loss': 0.3333}\n"
    assert logs == {"loss": 1 / 3, "total_flos": 1.0}


def test_the_printer_is_silent_but_in_the_main_process(capsys: pytest.CaptureFixture[str]) -> None:
    state = TrainerState(is_local_process_zero=False)
    PrinterCallback().on_log(Arguments(), state, TrainerControl(), logs={"loss": 1.0})
    assert capsys.readouterr().out == ""


def test_a_terminal_shows_the_training_bar_the_prediction_bar_and_the_logs() -> None:
    shown = in_a_terminal()
    assert "0/4" in shown
    assert "4/4" in shown
    assert "0/2" in shown
    assert shown.count("{'loss': 0.3333}") == 4


def test_the_bar_of_a_resumed_training_begins_where_training_does() -> None:
    shown = in_a_terminal(begin=2)
    assert "2/4" in shown
    assert "0/4" not in shown


def test_a_pipe_gets_the_logs_as_plain_lines_and_no_bar() -> None:
    done = subprocess.run(**program(), capture_output=True, text=True, check=True)
    assert done.stdout == "{'loss': 0.3333}\n" * 4
    assert done.stderr == ""
