"""Leftovers: when a training has ended, however it ended, the process is as it was."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any

from callback_contract import _process
from callback_contract._case import Case
from callback_contract._process import (
    children,
    difference,
    files_below,
    open_files,
    silence,
    temporary_directory,
    threads,
    what_stays,
)
from callback_contract._registry import rule
from callback_contract._training import DIED
from callback_contract._violation import DoesNotApply, require
from callback_contract._watching import watch


def _trains(case: Case, error: BaseException | None) -> None:
    """Train to the end, or until an error."""
    training = case.training(max_steps=6)
    if error is None:
        training.live()
        return
    training.begin()
    for step in training.steps(save=True):
        if step == 3:
            training.fire("on_step_begin")
            training.fire("on_substep_end", loss=0.5)
            break
    training.end(error)


def _leaves(case: Case, look: Callable[[], set[Any]], what: str) -> None:
    """Raise `ContractViolation` if there is more of something after a training than before."""
    case.make()  # the hook may start a store that it keeps
    for error in (None, DIED, KeyboardInterrupt()):
        before = look()
        with silence():  # as a program whose output goes to a file
            _trains(case, error)
        left = what_stays(look, before)
        how = "a training" if error is None else f"a training that ended by {error!r}"
        require(not left, f"after {how}, {what} are left: {', '.join(sorted(map(str, left)))}")


def _restores(case: Case, look: Callable[[], dict[str, Any]]) -> None:
    """Raise `ContractViolation` if something is not after a training what it was before.

    Before it, things are not as Python starts: what is put back must be what was there.
    """
    _make_unusual()
    for error in (None, DIED):
        with silence():
            before = look()
            _trains(case, error)
            changed = difference(before, look())
        how = "a training" if error is None else "a training that died"
        require(not changed, f"after {how}, it has changed {', '.join(changed)}")


def _make_unusual() -> None:
    """Give the process what a program may have given it."""
    logging.getLogger().setLevel(logging.ERROR + 1)
    sys.excepthook = _unusual_hook
    threading.excepthook = _unusual_hook
    sys.setrecursionlimit(sys.getrecursionlimit() + 17)
    gc.set_threshold(701, 11, 12)
    socket.setdefaulttimeout(123.0)
    warnings.filterwarnings("ignore", message="a warning that the program ignores")
    os.environ["OF_THE_PROGRAM"] = "1"
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGUSR1"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), _unusual_hook)


def _unusual_hook(*_: Any) -> None:
    """Do nothing with an error or a signal."""


@rule(
    "LEF-001",
    why="A tracker's thread that still runs keeps the interpreter from ending: MLflow's freezes at "
    "exit (mlflow/mlflow#12402), ClearML's close() never returns if its server hangs.",
    mend="In on_train_end, stop and join the threads that on_train_begin has started.",
)
def leaves_no_thread(case: Case) -> None:
    """No thread that was started in a training is there after it."""
    _leaves(case, threads, "threads")


@rule(
    "LEF-002",
    why="A tracker's process stayed after the training script had ended, and Ctrl-C did not end it "
    "(wandb/wandb#5187).",
    mend="In on_train_end, end the processes that on_train_begin has started, and wait for them.",
)
def leaves_no_process(case: Case) -> None:
    """No process that was started in a training is there after it."""
    _leaves(case, children, "processes")


@rule(
    "LEF-003",
    why="A run id that something had left in the environment sent the next training to a run that "
    "did not exist (mlflow/mlflow#8877).",
    mend="Pass settings to the SDK as arguments, or put the variables back in on_train_end.",
)
def leaves_the_environment(case: Case) -> None:
    """Environment variables are after a training what they were before."""
    _restores(case, lambda: dict(os.environ))


@rule(
    "LEF-004",
    why="A loop that saves at SIGTERM never hears of it if a tracker's handler has taken its place "
    "(clearml/clearml-agent#20).",
    mend="Leave signals to the loop, which fires on_exception; or put the handler back.",
)
def leaves_signal_handlers(case: Case) -> None:
    """The handlers of signals are after a training what they were before."""
    _restores(case, _process.signal_handlers)


@rule(
    "LEF-005",
    why="Composer's MLflow logger takes sys.excepthook to learn of a crash; of two that do, the "
    "first is lost, and a debugger's with it.",
    mend="Learn of errors from on_exception; or put the hook back in on_train_end.",
)
def leaves_the_hooks_for_errors(case: Case) -> None:
    """`sys.excepthook`, `sys.unraisablehook` and `threading.excepthook` are what they were."""
    _restores(case, lambda: _process.states(_process.HOOKS))


@rule(
    "LEF-006",
    why="TensorBoardCallback writes to ./runs, wherever the program was started, when a model is "
    "evaluated before any training (transformers 5.23.0).",
    mend="Write below args.output_dir, at every event.",
)
def writes_no_files_elsewhere(case: Case) -> None:
    """Nothing is written to the working directory, by an evaluation or a training."""
    elsewhere = case.folder / "elsewhere"
    elsewhere.mkdir()
    sys.path[:] = map(os.path.abspath, sys.path)  # what is imported later is found from there
    os.chdir(elsewhere)
    with silence():
        training = case.training()
        training.fire("on_init_end")
        training.evaluate()
        training.live()
    found = sorted(path.name for path in elsewhere.iterdir())
    require(not found, f"it wrote {', '.join(found)} to the working directory")


@rule(
    "LEF-007",
    why="A search of hundreds of trials in one process runs out of descriptors: the writer that "
    "TensorBoardCallback opens after a training is never closed (transformers 5.23.0).",
    mend="In on_train_end, close the files and connections that are open.",
)
def leaves_no_file_open(case: Case) -> None:
    """No file or connection that was opened in a training is open after it."""
    _leaves(case, open_files, "files")


@rule(
    "LEF-008",
    why="A tracker's handler on the loggers printed every line of the program a second time "
    "(tornede/py_experimenter#58).",
    mend="Log to `logging.getLogger(__name__)`, and leave handlers and levels to the program.",
)
def leaves_logging(case: Case) -> None:
    """All loggers but those of its SDK have after a training the handlers and levels of before."""
    sdk = (case.subject.sdk or "-").partition(".")[0]
    _restores(
        case,
        lambda: {
            name: state
            for name, state in _process.logging_state().items()
            if name.partition(".")[0] != sdk
        },
    )


@rule(
    "LEF-009",
    why="Disks fill up: a copy of each checkpoint stays in the directory for temporary files if "
    "ClearML's `update_weights_package` does not upload in the background (clearml 2.1.12).",
    mend="Put temporary files into a `tempfile.TemporaryDirectory` that ends with the call.",
)
def leaves_no_temporary_file(case: Case) -> None:
    """No file that a training has put into the directory for temporary files is there after it."""
    for number, error in enumerate((None, DIED)):
        with temporary_directory(case.folder / f"tmp-{number}") as folder:
            with silence():
                _trains(case, error)
            left = what_stays(lambda: {*files_below(folder)}, set())
        require(not left, f"temporary files are left: {', '.join(sorted(left))}")


@rule(
    "LEF-010",
    why="A profiler that was not stopped, warnings that were silenced and a garbage collector that "
    "was switched off outlive the training, and slow or hide what follows (allenai/OLMo-core#689).",
    mend="Put back in on_train_end what on_train_begin has switched; use `with` blocks.",
)
def leaves_the_interpreter(case: Case) -> None:
    """The switches of the interpreter are after a training what they were before.

    Such are the working directory, `sys.path`, the standard streams, the filters of warnings, the
    garbage collector, tracing and profiling, and builtins.
    """
    _restores(case, lambda: _process.states(_process.SWITCHES))


@rule(
    "LEF-011",
    why="Gradients that a callback had switched off for its samples stayed off, so that the rest "
    "of the training learnt nothing.",
    mend="Use `with torch.no_grad():`, `numpy.errstate()` and the like, never the bare switch.",
)
def leaves_torch_and_numpy(case: Case) -> None:
    """The switches of torch and numpy are after each event what they were before.

    Such are gradients, the detection of anomalies, default types, threads and determinism.
    """
    switches = _process.library_switches()
    in_a_step = {name: s for name, s in switches.items() if "profiler" not in name}
    watch(case, "the switches of libraries", lambda *_: _process.states(in_a_step))
    _restores(case, lambda: _process.states(switches))


@rule(
    "LEF-012",
    why="A callback that outlives its training and holds the model, the optimizer or an error with "
    "its traceback keeps them in the memory of the device: the next training runs out of it "
    "(huggingface/setfit#567).",
    mend="Let go of the model in on_train_end; keep numbers and texts, not tensors or exceptions.",
)
def lets_go_of_the_training(case: Case) -> None:
    """A callback holds neither the model nor the optimizer after its training."""
    for dies in (False, True):
        callback = case.make()
        old = _trained_and_forgotten(case, callback, dies)
        case.let_go()
        gc.collect()
        alive = [type(ref()).__name__ for ref in old if ref() is not None]
        how = "a training that died" if dies else "a training"
        require(not alive, f"after {how}, the callback still holds the {', '.join(alive)}")


@rule(
    "LEF-013",
    why="Each training of a search left one more function for the exit of the program, and each "
    "held its callback (DataDog/dd-trace-py#2409).",
    mend="Call atexit.unregister in on_train_end; keep callbacks in no list of the module.",
)
def is_held_by_nobody(case: Case) -> None:
    """A callback whose training has ended is freed when its user lets go of it."""
    callback = case.make()
    with silence():
        case.training(callback).live()
    case.end_trainings()
    case.let_go()
    try:
        freed = weakref.ref(callback)
    except TypeError:
        raise DoesNotApply("its class has slots, and none for weak references") from None
    del callback
    gc.collect()
    require(freed() is None, "something of the process still holds it, such as atexit or a module")


def _trained_and_forgotten(case: Case, callback: Any, dies: bool) -> list[weakref.ref[Any]]:
    training = case.training(callback)
    training.begin()
    next(training.steps())
    if dies:
        try:
            raise MemoryError(_with_a_frame_that_holds(training))
        except MemoryError as error:
            training.end(error)
    else:
        training.finish()
    return [weakref.ref(training.model), weakref.ref(training.learner.optimizer)]


def _with_a_frame_that_holds(training: Any) -> str:
    return f"out of memory at step {training.state.global_step}"
