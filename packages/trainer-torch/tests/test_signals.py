"""Signals: the step is finished, every callback is closed, and the process ends."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small import data, logged, trainer, warned
from torch.utils.data import DataLoader

from callback_core import TrainerCallback
from trainer_torch.ranks.signals import Signals
from trainer_torch.storage.checkpoint import find_fault, list_checkpoints


@pytest.fixture(autouse=True)
def no_signal_is_ignored() -> Iterator[None]:
    """Handle signals as Python does, though a shell or `nohup` may have told it to ignore some."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class SendsAt(TrainerCallback):
    """Sends this process a signal, once or more, in the middle of a step."""

    def __init__(self, number: signal.Signals, step: int = 3, times: int = 1) -> None:
        self.number, self.step, self.times = number, step, times
        self.told: list[Any] = []
        self.steps: list[int] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step - 1:
            for _ in range(self.times):
                signal.raise_signal(self.number)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps.append(state.global_step)

    def on_exception(
        self, args: Any, state: Any, control: Any, exception: Any = None, **kwargs: Any
    ) -> None:
        self.told += [type(exception), control.requests[-1].reason if control.requests else None]

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self.told.append("end")


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_ends_the_training_after_its_step_and_the_callbacks_are_told_why(
    tmp_path: Path, number: signal.Signals, raised: type[BaseException]
) -> None:
    sends = SendsAt(number)
    with pytest.raises(raised):
        trainer(tmp_path, sends).train()
    assert sends.steps == [1, 2, 3]
    assert sends.told[::2] == [raised, "end"]
    assert number.name in sends.told[1]
    assert list_checkpoints(tmp_path) == []


def test_an_interrupt_while_the_callbacks_are_told_leaves_none_unclosed(tmp_path: Path) -> None:
    class Impatient(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            raise ValueError("broken")

        def on_exception(self, *args: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

    sends = SendsAt(signal.SIGINT, step=99)
    training = trainer(tmp_path, Impatient(), sends)
    with pytest.raises(KeyboardInterrupt):
        training.train()
    assert sends.told[-1] == "end"
    training.remove_callback(Impatient)
    training.train()


def test_a_second_signal_ends_the_training_at_once(tmp_path: Path) -> None:
    sends = SendsAt(signal.SIGINT, times=2)
    training = trainer(tmp_path, sends)
    training.run.signals = Signals(clock=iter([0.0, 5.0]).__next__)
    with pytest.raises(KeyboardInterrupt):
        training.train()
    assert sends.steps == [1, 2]
    assert sends.told == [KeyboardInterrupt, None, "end"]


def test_the_next_signal_of_a_cluster_does_not_cut_the_step_that_the_first_one_ends(
    tmp_path: Path,
) -> None:
    callbacks = SendsAt(signal.SIGUSR1), SendsAt(signal.SIGTERM)
    training = trainer(tmp_path, *callbacks, enable_jit_checkpoint=True)
    training.run.signals = Signals(clock=iter([0.0, 5.0]).__next__)
    with pytest.raises(SystemExit) as ended:
        training.train()
    assert ended.value.code == 128 + signal.SIGUSR1
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-3"]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_a_launcher_delivers_twice_is_one(tmp_path: Path, second: Any) -> None:
    sends, also = SendsAt(signal.SIGTERM), SendsAt(second)
    with pytest.raises(SystemExit):
        trainer(tmp_path, sends, also, enable_jit_checkpoint=True).train()
    assert sends.steps == [1, 2, 3]
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-3"]


class SendsWhileSaving(SendsAt):
    """Sends it again when its state is saved."""

    def state_dict(self) -> dict[str, Any]:
        signal.raise_signal(self.number)
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


@pytest.mark.parametrize(("number", "saved"), [(signal.SIGTERM, 1), (signal.SIGINT, 0)])
def test_only_ctrl_c_ends_the_saving_of_the_last_checkpoint(
    tmp_path: Path, number: signal.Signals, saved: int
) -> None:
    training = trainer(tmp_path, SendsWhileSaving(number), enable_jit_checkpoint=True)
    training.run.signals = Signals(clock=iter([0.0, 5.0]).__next__)
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        training.train()
    assert len(list_checkpoints(tmp_path)) == saved


class SendsInEvaluation(SendsAt):
    """Sends it in the evaluation at a step."""

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        pass

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step and self.times:
            self.times -= 1
            signal.raise_signal(self.number)


@pytest.mark.parametrize(
    ("step", "strategy"), [(5, "epoch"), (10, "epoch"), (3, "steps"), (10, "steps")]
)
@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_in_an_evaluation_ends_the_training_there(
    tmp_path: Path, step: int, strategy: str, number: signal.Signals, raised: type[BaseException]
) -> None:
    usual = {"eval_strategy": strategy, "eval_steps": 1}
    sends = SendsInEvaluation(number, step)
    with pytest.raises(raised):
        trainer(tmp_path, sends, enable_jit_checkpoint=True, **usual).train()
    assert sends.steps == list(range(1, step + 1))
    assert sends.told[0] is raised
    assert [path.name for path in list_checkpoints(tmp_path)] == [f"checkpoint-{step}"]
    whole, resumed = trainer(tmp_path / "whole", **usual), trainer(tmp_path, **usual)
    whole.train()
    resumed.train(resume_from_checkpoint=True)
    for name in ("loss", "eval_loss"):
        assert logged(resumed, name) == logged(whole, name)


def test_a_signal_in_an_evaluation_before_the_first_step_ends_the_training_there(
    tmp_path: Path,
) -> None:
    sends = SendsInEvaluation(signal.SIGINT, step=0)
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, sends, eval_on_start=True).train()
    assert sends.steps == []


class SavesSlowly(TrainerCallback):
    """Gets a signal while a checkpoint is saved, or when the last epoch has ended."""

    def __init__(self, event: str, step: int) -> None:
        self.step = step
        setattr(self, event, self._send)

    def _send(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("event", "step"), [("on_save", 4), ("on_save", 10), ("on_epoch_end", 10), ("on_log", 10)]
)
def test_a_signal_is_never_lost(tmp_path: Path, event: str, step: int) -> None:
    training = trainer(tmp_path, SavesSlowly(event, step), save_strategy="steps", save_steps=2)
    with pytest.raises(SystemExit):
        training.train()
    assert training.state.global_step == step


def test_a_signal_after_the_loop_has_looked_for_the_last_time_is_raised() -> None:
    for number, raised in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)):
        with pytest.raises(raised), Signals():
            signal.raise_signal(number)


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_a_signal_that_clusters_send_before_they_kill_ends_the_training(
    tmp_path: Path, name: str
) -> None:
    number = getattr(signal, name)
    sends = SendsAt(number)
    with pytest.raises(SystemExit) as ended:
        trainer(tmp_path, sends, enable_jit_checkpoint=True).train()
    assert ended.value.code == 128 + number
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-3"]
    assert signal.getsignal(number) == signal.SIG_DFL


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """Let the program handle SIGUSR1 and SIGTERM, and ignore SIGHUP and SIGINT."""
    seen: list[int] = []
    before = {
        number: signal.signal(number, handler)
        for number, handler in (
            (signal.SIGUSR1, lambda number, frame: seen.append(number)),
            (signal.SIGTERM, lambda number, frame: seen.append(number)),
            (signal.SIGHUP, signal.SIG_IGN),
            (signal.SIGINT, signal.SIG_IGN),
        )
    }
    yield seen
    for number, handler in before.items():
        signal.signal(number, handler)


def test_signals_that_the_program_handles_or_ignores_stay_the_program_s(
    tmp_path: Path, handled: list[int]
) -> None:
    callbacks = [SendsAt(number) for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)]
    assert trainer(tmp_path, *callbacks).train().global_step == 10
    assert handled == [signal.SIGUSR1]


def test_the_program_s_own_handler_of_sigterm_is_called_too(
    tmp_path: Path, handled: list[int]
) -> None:
    with pytest.raises(SystemExit):
        trainer(tmp_path, SendsAt(signal.SIGTERM)).train()
    assert handled == [signal.SIGTERM]


def test_a_handler_of_the_program_that_exits_does_so_after_the_step_and_the_checkpoint(
    tmp_path: Path,
) -> None:
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
    sends = SendsAt(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            trainer(tmp_path, sends, enable_jit_checkpoint=True).train()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 7
    assert sends.told[::2] == [SystemExit, "end"]
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-3"]


def test_a_handler_that_python_does_not_know_of_stays(tmp_path: Path) -> None:
    with (tmp_path / "stacks").open("w+") as stacks:
        faulthandler.register(signal.SIGUSR1, file=stacks)
        try:
            for step in (2, 4):
                assert trainer(tmp_path, SendsAt(signal.SIGUSR1, step)).train().global_step == 10
        finally:
            faulthandler.unregister(signal.SIGUSR1)
        assert stacks.seek(0, 2) > 0


class SavesOnSignal(TrainerCallback):
    """Saves a checkpoint when the program gets SIGUSR1, and trains on."""

    def __init__(self) -> None:
        self.is_asked = False

    def ask(self, *args: Any) -> None:
        self.is_asked = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_save |= self.is_asked
        self.is_asked = False


def test_a_program_may_save_at_a_signal_and_train_on(tmp_path: Path) -> None:
    saves = SavesOnSignal()
    before = signal.signal(signal.SIGUSR1, saves.ask)
    try:
        trained = trainer(tmp_path, saves, SendsAt(signal.SIGUSR1)).train()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert trained.global_step == 10
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-3"]


class SendsToWorker(TrainerCallback):
    """Sends a signal to a worker at the second step, and stops when a warning tells of it."""

    def __init__(self, number: signal.Signals, caplog: pytest.LogCaptureFixture) -> None:
        self.number, self.caplog = number, caplog
        self.others = multiprocessing.active_children()
        self.worker: Any = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            children = multiprocessing.active_children()
            [self.worker] = [one.pid for one in children if one not in self.others]
            os.kill(self.worker, self.number)
            if self.number == signal.SIGKILL:  # torch hears of its end, or of a lost connection
                os.waitid(os.P_PID, self.worker, os.WEXITED | os.WNOWAIT)
        told = [
            one.args for one in self.caplog.records if one.name == "trainer_torch.ranks.signals"
        ]
        control.should_training_stop |= bool(told)


def test_a_signal_to_a_worker_only_is_told_and_the_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sends = SendsToWorker(signal.SIGTERM, caplog)
    workers: dict[str, Any] = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
    trained = trainer(tmp_path, sends, max_steps=10**6, logging_strategy="no", **workers).train()
    assert 2 < trained.global_step < 10**6
    [told] = [one.args for one in caplog.records if one.name == "trainer_torch.ranks.signals"]
    assert told == (sends.worker, "SIGTERM", os.getpid())


def test_a_worker_that_is_killed_ends_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sends = SendsToWorker(signal.SIGKILL, caplog)
    with pytest.raises(RuntimeError):
        trainer(tmp_path, sends, max_steps=10**6, dataloader_num_workers=1).train()


@pytest.mark.parametrize("step", [10, 99])
@pytest.mark.parametrize(
    ("number", "told"), [(signal.SIGTERM, ["end", "rest"]), (signal.SIGINT, ["end", "rest"])]
)
def test_a_signal_when_the_callbacks_are_closed_reaches_all_of_them_and_ends_the_program(
    tmp_path: Path, number: signal.Signals, told: list[str], step: int
) -> None:
    class Ends(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == step:
                raise ValueError("broken")

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            seen.append("end")
            signal.raise_signal(number)

    class Rest(TrainerCallback):
        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            seen.append("rest")

    seen: list[str] = []
    by_signal = KeyboardInterrupt if number == signal.SIGINT else SystemExit
    is_cut = step < 99 and number != signal.SIGINT
    with pytest.raises(ValueError if is_cut else by_signal):
        trainer(tmp_path, Ends, Rest).train()
    assert seen == told


IN_THE_GROUP = """
import os, signal, sys
from pathlib import Path
from small import data, trainer
from test_signals import SendsAt

number, times = (int(word) for word in sys.argv[2:])

class ToAll(SendsAt):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step - 1:
            for _ in range(self.times):
                os.killpg(0, self.number)

def main():
    made = trainer(
        Path(sys.argv[1]), ToAll(number, times=times), enable_jit_checkpoint=True,
        dataloader_num_workers=2, eval_strategy="steps", eval_steps=3,
    )
    made.train()

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize(
    ("number", "times"), [(signal.SIGINT, 2), (signal.SIGTERM, 2), (signal.SIGUSR1, 1)]
)
def test_a_signal_to_the_whole_process_group_reaches_workers_and_harms_nothing(
    tmp_path: Path, number: signal.Signals, times: int
) -> None:
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", IN_THE_GROUP, str(tmp_path), f"{int(number)}", f"{times}"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        start_new_session=True,
    )
    assert done.returncode == (-number if number == signal.SIGINT else 128 + number), done.stderr
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-3"]
    assert "DataLoader" not in done.stderr
    assert done.stderr.count(f"Received {number.name}") == 1


WHILE_WORKERS_START = """
import os, signal, sys
from pathlib import Path
from small import trainer

def send():
    if not sent:
        sent.append(True)
        os.killpg(0, signal.SIGTERM)

sent = []
if __name__ == "__main__":
    made = trainer(Path(sys.argv[1]), enable_jit_checkpoint=True, dataloader_num_workers=2)
    os.register_at_fork(after_in_parent=send)
    made.train()
"""


def test_a_signal_to_workers_that_are_starting_harms_nothing(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", WHILE_WORKERS_START, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        start_new_session=True,
    )
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-1"]
    assert done.stderr.count("Received SIGTERM") == 1


def test_a_checkpoint_is_saved_where_that_is_asked_for_and_the_training_resumes_from_it(
    tmp_path: Path,
) -> None:
    whole = trainer(tmp_path / "whole")
    whole.train()
    with pytest.raises(SystemExit) as ended:
        trainer(tmp_path, SendsAt(signal.SIGTERM), enable_jit_checkpoint=True).train()
    assert ended.value.code == 128 + signal.SIGTERM
    [saved] = list_checkpoints(tmp_path)
    assert saved.name == "checkpoint-3"
    assert find_fault(saved) is None
    resumed = trainer(tmp_path)
    resumed.train(resume_from_checkpoint=True)
    assert logged(resumed, "loss") == logged(whole, "loss")


def told_to_continue(caplog: pytest.LogCaptureFixture) -> list[Any]:
    """Return the arguments of the warnings that say how to continue."""
    return [
        record.args
        for record in caplog.records
        if record.name.startswith("trainer_torch")
        and record.levelname == "WARNING"
        and re.search(r"step \d+ of \d+", record.getMessage())
    ]


@pytest.mark.parametrize(
    ("changed", "saved"),
    [
        ({"enable_jit_checkpoint": True}, 3),
        ({"save_strategy": "steps", "save_steps": 2}, 2),
        ({}, None),
    ],
)
def test_an_interrupted_training_says_how_to_continue(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, Any],
    saved: int | None,
) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, SendsAt(signal.SIGINT), **changed).train()
    [stopped] = [line for line in capsys.readouterr().out.splitlines() if "step 3 of 10" in line]
    assert {"SIGINT", "Ctrl"} <= set(re.findall(r"\w+", stopped))
    assert "program" not in stopped
    [args] = told_to_continue(caplog)
    assert "step 3 of 10" in args[0]
    assert args[1:] == (() if saved is None else (saved, str(tmp_path / f"checkpoint-{saved}")))


def test_an_interrupt_of_a_resumed_training_names_the_checkpoint_that_there_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        trainer(tmp_path, SendsAt(signal.SIGTERM), enable_jit_checkpoint=True).train()
    for output_dir in (tmp_path, tmp_path / "other"):
        caplog.clear()
        with pytest.raises(KeyboardInterrupt):
            trainer(output_dir, SendsAt(signal.SIGINT, step=5)).train(tmp_path / "checkpoint-3")
        [args] = told_to_continue(caplog)
        assert args[1:] == (3, str(tmp_path / "checkpoint-3"))


def test_an_error_names_a_checkpoint_if_there_is_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Fails(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 5:
                raise ValueError("broken")

    for changed in ({}, {"save_strategy": "steps", "save_steps": 2}):
        with pytest.raises(ValueError, match="broken"):
            trainer(tmp_path, Fails, **changed).train()
    [args] = told_to_continue(caplog)
    assert args[1:] == (4, str(tmp_path / "checkpoint-4"))


def test_a_step_that_has_been_saved_is_not_saved_again(tmp_path: Path) -> None:
    class Saves(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            steps.append(state.global_step)

    steps: list[int] = []
    with pytest.raises(SystemExit):
        trainer(
            tmp_path,
            Saves,
            SendsAt(signal.SIGTERM),
            enable_jit_checkpoint=True,
            save_strategy="steps",
            save_steps=3,
        ).train()
    assert steps == [3]


def test_signals_belong_to_their_former_owner_after_the_training(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    trainer(tmp_path).train()
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, SendsAt(signal.SIGINT)).train()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_training_in_another_thread_leaves_signals_alone(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    thread = threading.Thread(target=made.train)
    thread.start()
    thread.join()
    assert made.state.global_step == 10


@pytest.mark.parametrize("asked", [False, True])
def test_a_checkpoint_that_no_signal_can_ask_for_is_told(
    tmp_path: Path, asked: bool, caplog: pytest.LogCaptureFixture
) -> None:
    made = trainer(tmp_path, enable_jit_checkpoint=asked)
    thread = threading.Thread(target=made.train)
    thread.start()
    thread.join()
    assert len(warned(caplog)) == asked


def test_a_process_that_is_terminated_leaves_a_checkpoint_and_exits_with_143(
    tmp_path: Path,
) -> None:
    program = (
        "import signal, sys; from pathlib import Path; from small import trainer; "
        "from test_signals import SendsAt; "
        "trainer(Path(sys.argv[1]), SendsAt(signal.SIGTERM), enable_jit_checkpoint=True).train()"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 143, done.stderr
    assert "SIGTERM" in done.stderr
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-3"]


def test_the_workers_of_a_loader_are_still_set_up_by_the_user_s_function() -> None:
    loader: Any = DataLoader(data(), num_workers=1, worker_init_fn=print)
    for _ in range(2):
        Signals().protect_workers(loader)
    assert loader.worker_init_fn.then is print
