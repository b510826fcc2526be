"""The bars of `ProgressCallback`: in a terminal, and nowhere else but in a notebook."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from threading import Event, Thread
from typing import Any
from warnings import catch_warnings

import pyte
import pytest
from arguments_for_tests import Arguments
from tqdm import tqdm
from training_for_tests import Endless, Failing, Training

from callback_core import ProgressCallback

LINES, COLUMNS = 24, 80

COUNT = re.compile(r"(\d+/\d+|\d+it) \[")

THAT_END = pytest.mark.parametrize("event", ["on_evaluate", "on_predict"])


def all_of(terminal: int) -> bytes:
    """Return all that a terminal gets until its other end is closed, and close this one."""
    written = b""
    with suppress(OSError):  # Linux's way to say that the other end is closed
        while part := os.read(terminal, 65536):
            written += part
    os.close(terminal)
    return written


@contextmanager
def terminal() -> Iterator[list[list[str]]]:
    """Make standard output and standard error a terminal.

    At the end, the list holds all screens that the terminal has shown, as lines of text.
    """
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    shown: list[list[str]] = []
    # A thread reads at once, since a terminal holds only so much that nobody has read.
    with ThreadPoolExecutor(1) as reader:
        written = reader.submit(all_of, ours)
        with (
            open(its, "w", encoding="utf-8") as output,
            open(os.dup(its), "w", encoding="utf-8") as error,
            redirect_stdout(output),
            redirect_stderr(error),
        ):
            yield shown
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    for part in written.result().replace(b"\r", b"\0\r").replace(b"\n", b"\n\0").split(b"\0"):
        stream.feed(part)
        shown.append([line.rstrip() for line in screen.display if line.strip()])


def bars(screen: list[str]) -> list[str]:
    """Return what the bars on a screen show, such as `2/4`, from top to bottom."""
    return [found[1] for line in screen if (found := COUNT.search(line))]


def steps_of_bars(shown: list[list[str]]) -> list[list[str]]:
    """Return what the bars show one after the other."""
    steps = [bars(screen) for screen in shown]
    return [step for before, step in zip([[], *steps], steps, strict=False) if step != before]


def test_a_terminal_shows_the_training_bar_below_the_logs() -> None:
    with terminal() as shown:
        Training().train()
    assert shown[-1][:4] == ["{'loss': 0.3333}"] * 4
    assert bars(shown[-1][4:]) == ["4/4"]


@pytest.mark.parametrize(("begin", "end"), [(0, 4), (0, 1), (2, 4)])
def test_the_bar_goes_from_the_step_at_which_training_begins_to_the_last(
    begin: int, end: int
) -> None:
    with terminal() as shown:
        Training(max_steps=end).train(begin, end)
    steps = steps_of_bars(shown)
    assert (steps[0], steps[-1]) == ([f"{begin}/{end}"], [f"{end}/{end}"])


def test_the_bar_counts_steps_and_not_events() -> None:
    training = Training()
    with terminal() as shown:
        training.fire("on_train_begin")
        for training.state.global_step in (1, 3):
            training.fire("on_step_end")
        training.fire("on_train_end")
    assert bars(shown[-1]) == ["3/4"]


def test_the_bar_of_a_training_that_has_ended_stays_as_it_is() -> None:
    training = Training()
    with terminal() as shown:
        training.train(end=3)
        training.state.global_step = 4
        training.fire("on_step_end")
    assert bars(shown[-1]) == ["3/4"]


@pytest.mark.parametrize("unknown", [-1, 0])
def test_the_bar_of_a_training_of_unknown_length_counts_the_steps(unknown: int) -> None:
    with terminal() as shown:
        Training(max_steps=unknown).train()
    assert bars(shown[-1]) == ["4it"]


def test_a_second_training_has_a_bar_of_its_own() -> None:
    training = Training()
    with terminal() as shown:
        training.train()
        training.train()
    assert bars(shown[-1]) == ["4/4", "4/4"]


def test_an_evaluation_in_training_has_its_bar_below_and_leaves_nothing_of_it() -> None:
    with terminal() as shown:
        Training().train(end=1, eval_dataloaders=([1, 2],))
    assert ["1/4", "0/2"] in map(bars, shown)
    assert bars(shown[-1]) == ["1/4"]
    assert shown[-1][:2] == ["{'loss': 0.3333}", "{'eval_loss': 0.5}"]


def test_each_of_several_evaluations_in_a_row_has_a_bar() -> None:
    with terminal() as shown:
        Training().train(eval_dataloaders=([1, 2], [1, 2, 3]))
    for number in "1234":
        assert [f"{number}/4", "0/2"] in map(bars, shown)
        assert [f"{number}/4", "0/3"] in map(bars, shown)
    assert bars(shown[-1]) == ["4/4"]


@THAT_END
def test_outside_of_training_an_evaluation_has_one_bar_that_stays(event: str) -> None:
    with terminal() as shown:
        Training().evaluate([0] * 30, event)
    steps = steps_of_bars(shown)
    assert (steps[0], steps[-1]) == (["0/30"], ["30/30"])


@THAT_END
def test_the_bar_of_an_evaluation_that_ended_early_is_not_continued(event: str) -> None:
    training, same = Training(), [0] * 40
    with terminal() as shown:
        training.evaluate(same, event, batches=10)
        training.evaluate(same, event, batches=1)
    assert bars(shown[-1]) == ["10/40", "1/40"]


def test_the_bar_of_an_evaluation_that_failed_is_not_continued() -> None:
    training = Training()
    with terminal() as shown:
        with suppress(OSError):
            training.evaluate(Failing(3))
        training.evaluate([1, 2])
    assert bars(shown[-1]) == ["2/3", "2/2"]


def test_the_bar_of_an_evaluation_that_failed_after_its_last_batch_is_not_continued() -> None:
    training = Training()
    training.handler.eval_dataloader = same = [1, 2]
    with terminal() as shown:
        for _ in same:
            training.fire("on_prediction_step")
        training.evaluate(same)
    assert bars(shown[-1]) == ["2/2", "2/2"]


def test_the_bar_of_a_training_is_below_that_of_an_evaluation_that_failed_before_it() -> None:
    training = Training()
    with terminal() as shown:
        with suppress(OSError):
            training.evaluate(Failing(3))
        training.train()
    assert ["2/3", "0/4"] in map(bars, shown)
    assert bars(shown[-1]) == ["2/3", "4/4"]


def test_a_training_that_an_error_ends_leaves_its_bar_where_it_was() -> None:
    with terminal() as shown, suppress(OSError):
        Training().train(eval_dataloaders=(Failing(3),))
    assert ["1/4", "0/3"] in map(bars, shown)
    assert bars(shown[-1]) == ["1/4"]


def test_a_training_after_one_without_an_end_closes_the_bars_of_that() -> None:
    progress = ProgressCallback()
    training = Training(progress)
    with terminal() as shown:
        training.fire("on_train_begin")
        training.state.global_step = 1
        training.fire("on_step_end")
        with suppress(OSError):
            training.evaluate(Failing(3))
        # Not by the handler, which refuses to begin twice; transformers' does not.
        progress.on_train_begin(Arguments(), training.state, training.control)
        training.fire("on_train_end")
    assert any("0/3" in bars(screen) for screen in shown)
    assert bars(shown[-1]) == ["1/4", "1/4"]


@pytest.mark.parametrize(
    "dataloader",
    [Endless(), Endless(NotImplementedError), iter(()), None],
    ids=["TypeError", "NotImplementedError", "an iterator", "none"],
)
def test_the_bar_of_an_evaluation_of_unknown_length_counts_the_batches(dataloader: Any) -> None:
    training = Training()
    training.handler.eval_dataloader = dataloader
    with terminal() as shown:
        for _ in range(3):
            training.fire("on_prediction_step")
        training.fire("on_evaluate", metrics={})
    assert bars(shown[-1]) == ["3it"]


def test_only_the_first_of_several_processes_shows_bars() -> None:
    with terminal() as shown:
        Training(is_world_process_zero=False).train(eval_dataloaders=([1, 2],))
    assert shown == [[]]


def test_a_pipe_gets_the_logs_as_plain_lines_and_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    Training().train(eval_dataloaders=([1, 2],))
    assert capsys.readouterr() == ("{'loss': 0.3333}\n{'eval_loss': 0.5}\n" * 4, "")


def test_a_program_that_imports_a_notebook_s_modules_is_not_taken_for_one() -> None:
    code = "import ipykernel.zmqshell, training_for_tests as t; t.Training().train()"
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout == "{'loss': 0.3333}\n" * 4


@pytest.mark.parametrize(("disable", "drawn"), [("1", []), ("", ["4/4"])])
def test_tqdm_s_own_switch_turns_the_bar_off(
    disable: str, drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQDM_DISABLE", disable)
    with terminal() as shown:
        Training().train()
    assert (bars(shown[-1]), shown[-1][:4]) == (drawn, ["{'loss': 0.3333}"] * 4)


def test_the_line_of_an_early_end_stands_below_the_bar() -> None:
    with terminal() as shown:
        Training().train(end=2, stop="enough")
    assert bars(shown[-1][-2:-1]) == ["2/4"]
    assert "enough" in shown[-1][-1]


def test_the_progress_callback_says_at_which_step_its_bar_is() -> None:
    progress = ProgressCallback()
    assert progress.current_step == 0
    Training(progress).train(begin=1, end=3)
    assert progress.current_step == 3


class Talking(ProgressCallback):
    """Prints and logs as an SDK does: from a thread, in parts, to both streams, in mid-training."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = [f"a line of the SDK, number {number}" for number in range(4)]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_step_end(args, state, control, **kwargs)
        if state.global_step == 2:
            thread = Thread(target=self.talk)
            thread.start()
            thread.join()

    def talk(self) -> None:
        print(self.lines[0])
        print(self.lines[1], file=sys.stderr)
        logging.getLogger("an.sdk").warning(self.lines[2])
        sys.stderr.write(self.lines[3][:10])
        sys.stderr.write(self.lines[3][10:] + "\n")


def test_what_others_print_and_log_stands_in_whole_lines_above_the_bar() -> None:
    talking = Talking()
    logger = logging.getLogger("an.sdk")
    with terminal() as shown:
        handler = logging.StreamHandler()
        logger.addHandler(handler)
        before = sys.stdout, sys.stderr, handler.stream
        Training(talking).train()
        assert (sys.stdout, sys.stderr, handler.stream) == before
        logger.removeHandler(handler)
    last = shown[-1]
    assert [line for line in last if "SDK" in line] == talking.lines
    bars = [index for index, line in enumerate(last) if COUNT.search(line)]
    assert len(bars) == 1
    assert bars[0] > last.index(talking.lines[-1])
    for screen in shown:
        assert all(not COUNT.search(line) or "SDK" not in line for line in screen)


class Acting(ProgressCallback):
    """Does something at the second step, while the bar is shown."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self.act = act

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_step_end(args, state, control, **kwargs)
        if state.global_step == 2:
            self.act()


def test_a_question_is_shown_before_its_line_ends() -> None:
    def ask() -> None:
        print("go on? ", end="", flush=True)
        print("(the answer)")

    with terminal() as shown:
        Training(Acting(ask)).train()
    asked = [screen for screen in shown if screen and screen[-1] == "go on?"]
    assert asked
    assert not any(map(bars, asked))
    assert "go on? (the answer)" in shown[-1]


def test_a_worker_prints_though_the_bars_were_locked_when_it_was_forked() -> None:
    locked, printed = Event(), Event()

    def draw() -> None:
        with tqdm.get_lock():
            locked.set()
            printed.wait()

    def work() -> None:
        thread = Thread(target=draw)
        thread.start()
        locked.wait()
        with catch_warnings(action="ignore", category=DeprecationWarning):
            worker = os.fork()
        if worker == 0:
            print("a line of the worker", flush=True)
            os._exit(0)
        os.waitpid(worker, 0)
        printed.set()
        thread.join()

    with terminal() as shown:
        Training(Acting(work)).train()
    assert shown[-1].count("a line of the worker") == 1
    assert bars(shown[-1]) == ["4/4"]
