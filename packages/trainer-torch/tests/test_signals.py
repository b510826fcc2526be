"""SIGINT and SIGTERM: the step is finished, every callback is closed, and the process ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from small import logged, trainer

from callback_core import TrainerCallback
from trainer_torch.checkpoint import find_fault, list_checkpoints


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
    assert sends.told == [raised, f"{number.name} was received", "end"]
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
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, sends).train()
    assert sends.steps == [1, 2]
    assert sends.told == [KeyboardInterrupt, None, "end"]


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
