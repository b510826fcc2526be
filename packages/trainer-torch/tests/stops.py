"""Stop trainings by signals, resume them, and compare them with undisturbed ones.

    python packages/trainer-torch/tests/stops.py [--signals SIGTERM ...] [--targets group ...]
        [--phases "a save" ...] [--instants 20] [--limits 20]

Each training of `training_to_stop.py` gets one signal, in each phase. It is correct if

- it ends with the step that the phase names, with the exit status of the signal in each process;
- that step is saved, and exactly once; with a signal before the training, nothing is;
- `on_exception` and then `on_train_end` are called, if the training had begun;
- no process of it is left;
- the training that resumes ends with the weights and the log of the undisturbed one, to the bit.

Then trainings are stopped at random instants, and others by a `TimeLimit`, at whose end they would
be killed. The result is two tables. The exit status is 1 if a training is not correct.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import training_to_stop
from forks import environments
from resuming import StopAt
from training_to_stop import PHASES, Sends, make, train

from callback_core import TimeLimit, TrainerCallback
from trainer_torch.storage.checkpoint import find_fault, list_checkpoints

SIGNALS: Final = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
TARGETS: Final = {"process": 1, "group": 1, "rank 0": 2, "rank 1": 2, "ranks": 2, "torchrun": 2}
"""Whom the signal is sent to, and how many processes the training has."""

PATIENCE: Final = 60.0  # seconds for processes to end; they only end what hangs

_FORK: Any = multiprocessing.get_context("fork")


def in_process(directory: Path, call: Any, *args: Any, environment: Any = ()) -> Any:
    """Return a forked process that calls a function, leads a group, and writes to a log.

    It is forked to save the time of the imports. It ends as Python ends by an interrupt.
    """

    def run() -> None:
        os.setpgid(0, 0)
        os.environ.update(environment)
        log = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        is_interrupted = False
        try:
            call(*args)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # no longer a matter of the training
        except KeyboardInterrupt:
            is_interrupted = True
        if is_interrupted:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)

    directory.mkdir(parents=True, exist_ok=True)
    process = _FORK.Process(target=run)
    process.start()
    return process


def statuses(processes: Sequence[Any]) -> list[int | str]:
    """Wait for processes, and return their exit statuses, or what is wrong with their end."""
    found: list[int | str] = []
    for process in processes:
        process.join(PATIENCE)
        hangs = process.exitcode is None
        is_left = not hangs and _outlives(process.pid)
        if hangs or is_left:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.join()
        found.append("hangs" if hangs else "leaves a process" if is_left else process.exitcode)
    return found


def _outlives(group: int) -> bool:
    """Return whether a process of the group outlives its leader for long."""
    ends_at = time.monotonic() + PATIENCE
    with suppress(ProcessLookupError):
        while time.monotonic() < ends_at:
            os.killpg(group, 0)
            time.sleep(0.01)
        return True
    return False


def run(phase: str, number: int, target: str, directory: Path) -> list[int | str]:
    """Train in as many processes as the target has, and return their exit statuses."""
    size = TARGETS[target] if target in TARGETS else int(target.split()[-1])
    sent = target if target in TARGETS else "none"
    if target == "torchrun":
        return _run_in_torchrun(phase, number, directory)
    given = (phase, number, sent, directory)
    return statuses(
        [in_process(directory, train, *given, environment=one) for one in environments(size)]
    )


def _run_in_torchrun(phase: str, number: int, directory: Path) -> list[int | str]:
    """Train in two processes of torchrun. Only its own status is known, which is 1."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    passed = ["--signals-to-handle", "SIGTERM,SIGINT,SIGUSR1,SIGUSR2"]
    script = [training_to_stop.__file__, phase, f"{number}", "torchrun", str(directory)]
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, *torchrun, *passed, *script],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        return [process.wait(timeout=4 * PATIENCE)]


def wrong(phase: str, number: int, target: str, directory: Path, found: list[Any]) -> str:
    """Return what is wrong with how a training was stopped, or an empty text."""
    size, step = TARGETS[target], PHASES[phase].step
    by_python = "KeyboardInterrupt()" if number == signal.SIGINT else 128 + number
    if target == "torchrun":
        expected: list[int] = [1]
    elif step is None or number == signal.SIGINT:
        expected = [-number] * size
    else:
        expected = [128 + number] * size
    if found != expected:
        return f"the exit status is {found}, not {expected}"
    names = [path.name for path in list_checkpoints(directory)]
    if step is None:
        return "" if PHASES[phase].resumes or not names else f"{names} was saved"
    told = ["begin", "KeyboardInterrupt" if number == signal.SIGINT else "SystemExit", "end"]
    if phase == "on_train_end":
        told = ["begin", "end"]
    for rank in range(size):
        report = json.loads((directory / f"report-{rank}.json").read_text("utf-8"))
        saves = 0 if PHASES[phase].event == "skip" else 1
        if (report["ended"], report["step"], report["told"]) != (by_python, step, told):
            return f"rank {rank} tells {report}"
        if report["saved"].count(step) != saves:
            return f"step {step} was saved in {report['saved']}"
    if names[-1] != f"checkpoint-{step}" or find_fault(list_checkpoints(directory)[-1]):
        return f"the checkpoints are {names}"
    return ""


class Undisturbed:
    """The results of trainings that are not stopped, and their first three steps.

    Args:
        folder: Where they train.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def result(self, phase: str, size: int) -> str:
        """Return the result of a training in this phase with so many processes."""
        directory = self.folder / f"whole {phase} {size}"
        if not directory.exists():
            ended = run(phase, 0, f"none {size}", directory)
            if ended != [0] * size:
                raise RuntimeError(f"{phase}: {ended} {(directory / 'log').read_text('utf-8')}")
        return (directory / "result.json").read_text("utf-8")

    def begin(self, phase: str, directory: Path) -> None:
        """Train the first three steps in `directory`, so that a training can resume there."""
        begun = self.folder / f"begun {phase}"
        if not begun.exists():

            def train_begin() -> None:
                unsent = Sends(phase, lambda: None, waits=False)
                training = make(phase, begun, unsent, save_strategy="steps", save_steps=3)
                training.add_callback(StopAt(3))
                training.train()

            statuses([in_process(begun, train_begin)])
        shutil.copytree(begun, directory)


def check(
    phase: str, number: int, target: str, directory: Path, undisturbed: Undisturbed
) -> tuple[str, str]:
    """Stop a training, and resume it.

    Returns:
        What is wrong with the stop, and with the resumed training.
    """
    if PHASES[phase].resumes:
        undisturbed.begin(phase, directory)
    fault = wrong(phase, number, target, directory, run(phase, number, target, directory))
    size = TARGETS[target]
    ended = run(phase, 0, f"none {size}", directory)
    if ended != [0] * size:
        return fault, f"the resumed training ends with {ended}"
    result = (directory / "result.json").read_text("utf-8")
    same = result == undisturbed.result(phase, size)
    return fault, "" if same else "the resumed training is not the undisturbed one"


def stop_at_random(times: int, instants: random.Random, folder: Path) -> tuple[int, int, int]:
    """Stop trainings from outside at random instants, up to three times each, and resume them.

    Returns:
        The numbers of stops, of trainings, and of those that end like the undisturbed one.
    """
    phase = "a save"
    undisturbed = Undisturbed(folder)
    expected = undisturbed.result(phase, 1)
    stops = trainings = exact = 0
    while stops < times:
        directory = folder / f"random-{trainings}"
        limit = min(times, stops + instants.randint(1, 3))
        while True:
            process = in_process(directory, train, phase, 0, "none", directory)
            number = getattr(signal, instants.choice(SIGNALS))
            if stops < limit:
                process.join(instants.uniform(0.2, 1.5))
                with suppress(ProcessLookupError):
                    instants.choice([os.kill, os.killpg])(process.pid, number)
            [status] = statuses([process])
            if status in (-number, 128 + number):
                stops += 1
            else:
                break
        trainings += 1
        is_exact = status == 0 and (directory / "result.json").read_text("utf-8") == expected
        if not is_exact:
            log = (directory / "log").read_text("utf-8")[-3000:]
            print(f"at a random instant, {number}: {status}\n{log}", file=sys.stderr)
        exact += is_exact
    return stops, trainings, exact


class Slow(TrainerCallback):
    """Makes each step, evaluation and save take a random time."""

    def __init__(self, seed: int) -> None:
        self.lengths = random.Random(seed)

    def _wait(self, *args: Any, **kwargs: Any) -> None:
        time.sleep(self.lengths.uniform(0.02, 0.08))

    on_step_begin = on_prediction_step = _wait

    def state_dict(self) -> dict[str, Any]:
        """Wait in a save."""
        self._wait()
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Wait in a resume."""


def is_in_time(seed: int, seconds: float, directory: Path) -> bool:
    """Train with a `TimeLimit`, and return whether the training has stopped and saved in time.

    At the limit, SIGKILL ends the training, as a scheduler would.
    """

    def train_limited() -> None:
        slow = [Slow(seed), TimeLimit(seconds, since="process", reserve=0.5)]
        options = {"eval_strategy": "steps", "eval_steps": 3, "save_strategy": "steps"}
        options |= {"save_steps": 7, "num_train_epochs": 1000, "enable_jit_checkpoint": False}
        training = make("a step", directory, None, **options)
        for one in slow:
            training.add_callback(one)
        training.train()
        (directory / "steps").write_text(f"{training.state.global_step}")

    began = time.monotonic()
    process = in_process(directory, train_limited)
    process.join(began + seconds - time.monotonic())
    if process.exitcode is None:
        os.killpg(process.pid, signal.SIGKILL)
    if statuses([process]) != [0]:
        return False
    [*_, last] = list_checkpoints(directory)
    return last.name == f"checkpoint-{(directory / 'steps').read_text('utf-8')}"


def cases(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Yield the phases and the targets, as far as they go together.

    Before the training, no loader has workers yet. Several processes take long to start, so they
    have the main phases only.
    """
    main_phases = ("a step", "an evaluation", "a save")
    for phase in options.phases:
        is_before = PHASES[phase].step is None
        for target in options.targets:
            is_shown = {"process": is_before or phase == "a step", "group": not is_before}
            if is_shown.get(target, phase in main_phases):
                yield phase, target


def main(arguments: Sequence[str] | None = None) -> int:
    """Stop trainings in each phase, and print the tables. Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--signals", nargs="+", choices=SIGNALS, default=list(SIGNALS))
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=list(PHASES))
    parser.add_argument("--instants", type=int, default=20, help="stops at random (default: 20)")
    parser.add_argument("--limits", type=int, default=20, help="time limits (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of what is random (default: 0)")
    options = parser.parse_args(arguments)
    importlib.import_module("torch._dynamo")  # takes each child longer than its training
    is_correct = True
    print("| the signal comes in | to | signals | stopped correctly | exact when resumed |")
    print("|---|---|--:|--:|--:|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        undisturbed = Undisturbed(Path(folder))
        for phase, target in cases(options):
            faults = []
            for name in options.signals:
                directory = Path(folder, f"{phase} {target} {name}")
                number = getattr(signal, name)
                faults.append(check(phase, number, target, directory, undisturbed))
                for fault in filter(None, faults[-1]):
                    print(f"{phase}, {name} to {target}: {fault}", file=sys.stderr, flush=True)
                if any(faults[-1]):
                    print((directory / "log").read_text("utf-8")[-3000:], file=sys.stderr)
            right, exact = (sum(not one for one in column) for column in zip(*faults, strict=True))
            is_correct &= right == exact == len(faults)
            print(f"| {phase} | {target} | {len(faults)} | {right} | {exact} |", flush=True)
        print("\n| | trainings | correct |\n|---|--:|--:|")
        if options.instants:
            instants = random.Random(options.seed)
            stops, trainings, exact = stop_at_random(options.instants, instants, Path(folder))
            is_correct &= trainings == exact
            print(f"| {stops} signals at random instants | {trainings} | {exact} |", flush=True)
        if options.limits:
            seeds = range(options.seed, options.seed + options.limits)
            ended = [is_in_time(one, 4.0, Path(folder, f"limit {one}")) for one in seeds]
            is_correct &= all(ended)
            print(f"| `TimeLimit` of 4 s | {len(ended)} | {sum(ended)} |", flush=True)
    return 0 if is_correct else 1


if __name__ == "__main__":
    sys.exit(main())
