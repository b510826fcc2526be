"""Callbacks that leave threads, files, processes or hooks behind, or swallow what is not theirs."""

import atexit
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from callback_contract import CallbackContract
from callback_core import TrainerCallback
from zoo.specimens import faulty


class Suite(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return self.callback(output_dir)


def memory():
    """Return the most memory that this process has used, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class HeartbeatCallback(TrainerCallback):
    """Touches a file each second, by which a supervisor sees that the process lives."""

    def __init__(self, output_dir, seconds=1.0):
        self.path, self.seconds = Path(output_dir) / "alive", seconds
        self.timer = None

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero and self.timer is None:
            self.beat()

    def beat(self):
        self.path.touch()
        self.timer = threading.Timer(self.seconds, self.beat)
        self.timer.daemon = True
        self.timer.start()


@faulty("The timer starts itself again and again, also when training has ended.")
class HeartbeatOfTheDead(Suite):
    __test__ = False
    callback = HeartbeatCallback


class StoppedHeartbeatCallback(TrainerCallback):
    """Touches a file twice a second, and stops when the training ends."""

    def __init__(self, output_dir):
        self.path = Path(output_dir) / "alive"
        self.stops = self.thread = None

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self.stops = self.stops or threading.Event()
            self.thread = threading.Thread(target=self.beat, daemon=True)
            self.thread.start()

    def beat(self):
        while not self.stops.is_set():
            self.path.touch()
            self.stops.wait(0.5)

    def on_train_end(self, args, state, control, **kwargs):
        if self.thread is not None:
            self.stops.set()
            self.thread.join()
            self.thread = None


@faulty("The event that stops the thread stays set, so a second training has no heartbeat.")
class OneHeartbeat(Suite):
    __test__ = False
    callback = StoppedHeartbeatCallback


class FailedMemoryCallback(TrainerCallback):
    """Watches the memory of the process from a thread; says after an error what it was."""

    def __init__(self, output_dir, seconds=0.02):
        self.path, self.seconds = Path(output_dir) / "memory.json", seconds
        self.thread = self.error = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.most, self.error, self.over = 0, None, threading.Event()
        self.thread = threading.Thread(target=self.watch, args=(self.over,), daemon=True)
        self.thread.start()

    def watch(self, over):
        while not over.wait(self.seconds):
            self.most = max(self.most, memory())

    def on_exception(self, args, state, control, exception=None, **kwargs):
        self.error = repr(exception)

    def on_train_end(self, args, state, control, **kwargs):
        if self.thread is None:
            return
        if state.is_world_process_zero:
            self.path.write_text(json.dumps({"KiB": self.most, "error": self.error}))
        if self.error is None:
            self.over.set()
            self.thread.join()


@faulty("After an error the thread watches on, in case that somebody asks.")
class WatchesOnAfterAnError(Suite):
    __test__ = False
    callback = FailedMemoryCallback


class TableCallback(TrainerCallback):
    """Writes the losses to a table, which is closed at the last step."""

    def __init__(self, output_dir):
        self.path = Path(output_dir) / "losses.csv"
        self.file = None

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or "loss" not in (logs or {}):
            return
        if self.file is None:
            self.file = self.path.open("a", newline="")
        csv.writer(self.file).writerow((state.global_step, logs["loss"]))
        self.file.flush()
        if state.global_step >= state.max_steps:
            self.file.close()
            self.file = None


@faulty(
    "The file is closed at the last step, and stays open where an error comes before.",
    source="keras-team/keras#13377",
)
class OpenAfterAnError(Suite):
    __test__ = False
    callback = TableCallback


class ReusedTableCallback(TrainerCallback):
    """Writes the losses to a table."""

    def __init__(self, output_dir):
        self.path = Path(output_dir) / "losses.csv"
        self.file = self.rows = None

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or "loss" not in (logs or {}):
            return
        if self.rows is None:
            self.file = self.path.open("a", newline="")
            self.rows = csv.writer(self.file)
        self.rows.writerow((state.global_step, logs["loss"]))
        self.file.flush()

    def on_train_end(self, args, state, control, **kwargs):
        if self.file is not None:
            self.file.close()
            self.file = None


@faulty(
    "A second training writes to the file that the first has closed.",
    source="keras-team/keras#5202",
)
class WritesToAClosedFile(Suite):
    __test__ = False
    callback = ReusedTableCallback


class MonitorCallback(TrainerCallback):
    """Runs a program beside the training that watches the machine."""

    PROGRAM = "import os, time\nwhile os.getppid() == {parent}: time.sleep(0.05)"

    def __init__(self, output_dir):
        self.path = Path(output_dir) / "monitor.txt"
        self.process = None

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero and self.process is None:
            program = self.PROGRAM.format(parent=os.getpid())
            with self.path.open("a") as file:
                self.process = subprocess.Popen([sys.executable, "-c", program], stdout=file)

    def on_train_end(self, args, state, control, **kwargs):
        if self.process is not None:
            self.process.terminate()
            self.process = None


@faulty("The program that it started is ended and not waited for: it stays as a zombie.")
class NotWaitedFor(Suite):
    __test__ = False
    callback = MonitorCallback


class SummaryCallback(TrainerCallback):
    """Writes a summary when the program exits, with all that was evaluated after training too."""

    def __init__(self, output_dir):
        self.path = Path(output_dir) / "summary.json"
        self.metrics = {}

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            atexit.register(self.write)

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.metrics.update(metrics or {})

    def write(self):
        if self.path.parent.is_dir():
            self.path.write_text(json.dumps(self.metrics, default=str))


@faulty("Each training leaves a function to be called at exit, which holds the callback.")
class RegistersAtExit(Suite):
    __test__ = False
    callback = SummaryCallback


class ThreadHookCallback(TrainerCallback):
    """Notes errors of threads, such as a data loader's, which otherwise only are printed."""

    def __init__(self, output_dir):
        self.path = Path(output_dir) / "thread_errors.txt"

    def on_train_begin(self, args, state, control, **kwargs):
        before = threading.excepthook

        def note(error):
            with self.path.open("a") as file:
                file.write(f"{error.exc_type.__name__}: {error.exc_value}\n")
            before(error)

        threading.excepthook = note


@faulty("`threading.excepthook` is replaced at each training, and never put back.")
class ThreadHooksPileUp(Suite):
    __test__ = False
    callback = ThreadHookCallback


class ReportCallback(TrainerCallback):
    """Writes an error that ends a training to a file, for whoever looks later."""

    def __init__(self, output_dir):
        self.path = Path(output_dir) / "error.txt"

    def on_exception(self, args, state, control, exception=None, **kwargs):
        self.error = exception
        if state.is_world_process_zero:
            self.path.write_text(f"step {state.global_step}: {exception!r}\n")


@faulty(
    "The error is kept, and by its traceback all that the training had: model, optimizer, data."
)
class KeepsTheError(Suite):
    __test__ = False
    callback = ReportCallback


class DebugCallback(TrainerCallback):
    """Keeps the best value of each metric in a file."""

    def __init__(self, output_dir):
        self.path = Path(output_dir) / "best.json"
        self.best = {}

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.best = {}

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        if not state.is_world_process_zero:
            return
        for name, value in (metrics or {}).items():
            if isinstance(value, float) and name.endswith("loss"):
                self.best[name] = min(value, self.best.get(name, value))
        print("best so far:", self.best)
        self.path.write_text(json.dumps(self.best))


@faulty("It prints what it does to standard output, which nobody asked it for.")
class ForgottenPrint(Suite):
    __test__ = False
    callback = DebugCallback


class EagerFileCallback(TrainerCallback):
    """Writes the losses to a file, which is there from the start."""

    def __init__(self, output_dir):
        self.file = (Path(output_dir) / "losses.txt").open("a")

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and "loss" in (logs or {}):
            self.file.write(f"{state.global_step} {logs['loss']}\n")
            self.file.flush()


@faulty("The file is opened by the constructor, in each process, and stays open.")
class OpensInTheConstructor(Suite):
    __test__ = False
    callback = EagerFileCallback


class OwnTableCallback(TrainerCallback):
    """Writes the losses to a table with a name of its own, beside those of earlier trainings."""

    def __init__(self, output_dir):
        file, self.path = tempfile.mkstemp(".csv", "losses-", output_dir)
        os.close(file)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and "loss" in (logs or {}):
            with open(self.path, "a", newline="") as file:
                csv.writer(file).writerow((state.global_step, logs["loss"]))


@faulty("The constructor makes the file, in each process, also where nothing is ever trained.")
class FileOfEachCallback(Suite):
    __test__ = False
    callback = OwnTableCallback


class LastWordsCallback(TrainerCallback):
    """Writes what ended a training to a file, in a line that fits into a message."""

    def __init__(self, output_dir):
        self.path = Path(output_dir) / "ended_by.txt"

    def on_exception(self, args, state, control, exception=None, **kwargs):
        if state.is_world_process_zero:
            kind, says = type(exception).__name__, str(exception.args[0])
            self.path.write_text(f"step {state.global_step}: {kind}: {says[:80]}\n")


@faulty("An error without arguments, such as that of a bare assert or of Ctrl-C, is an IndexError.")
class ErrorWithoutArguments(Suite):
    __test__ = False
    callback = LastWordsCallback


class LightErrorCallback(TrainerCallback):
    """Keeps the error that ended a training, without the traceback, which holds the model."""

    def __init__(self, output_dir):
        self.error = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.error = None

    def on_exception(self, args, state, control, exception=None, **kwargs):
        if exception is not None:
            self.error = exception.with_traceback(None)


@faulty("The traceback is taken from the error itself, and nobody sees where it came from.")
class TracebackIsTaken(Suite):
    __test__ = False
    callback = LightErrorCallback


class LockedCallback(TrainerCallback):
    """Sums the losses. A program's own thread may read the sum meanwhile."""

    def __init__(self):
        self._lock = threading.Lock()
        self._sum = 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        with self._lock:
            self._sum = 0.0

    def on_log(self, args, state, control, logs=None, **kwargs):
        with self._lock:
            loss = (logs or {}).get("loss")
            self._sum += loss if isinstance(loss, (int, float)) else 0.0

    def sum(self):
        with self._lock:
            return self._sum


@faulty(
    "A lock of the constructor: neither a search nor a launcher can copy it.",
    source="ray-project/ray#15678",
)
class LockInTheConstructor(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return LockedCallback()
