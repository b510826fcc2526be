"""Callbacks that leave settings of the process as they need them."""

import cProfile
import logging
import os
import random
import signal
import sys
import threading
import time
import tracemalloc
import warnings
from pathlib import Path

import torch

from callback_contract import CallbackContract
from callback_core import TrainerCallback
from zoo.specimens import faulty


class Suite(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return self.callback(output_dir)


class AnomalyCallback(TrainerCallback):
    """Lets autograd name the operation that makes a NaN, in the first steps of a training."""

    def __init__(self, output_dir, steps=10):
        self.steps = steps

    def on_train_begin(self, args, state, control, **kwargs):
        torch.autograd.set_detect_anomaly(True)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.steps:
            torch.autograd.set_detect_anomaly(False)


@faulty("Anomaly detection of autograd stays on where a training has fewer steps than expected.")
class AnomalyDetectionStaysOn(Suite):
    __test__ = False
    callback = AnomalyCallback


class DeterministicCallback(TrainerCallback):
    """Makes a training repeatable, as far as torch can."""

    def __init__(self, output_dir):
        pass

    def on_train_begin(self, args, state, control, **kwargs):
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False


@faulty("torch stays deterministic, and slow, for all that follows the training.")
class StaysDeterministic(Suite):
    __test__ = False
    callback = DeterministicCallback


class QuietCallback(TrainerCallback):
    """Keeps the warnings of the data loader out of the log."""

    def __init__(self, output_dir):
        pass

    def on_train_begin(self, args, state, control, **kwargs):
        warnings.filterwarnings("ignore", category=UserWarning)


@faulty("A filter that hides warnings stays behind, and one more with each training.")
class WarningsStayHidden(Suite):
    __test__ = False
    callback = QuietCallback


class LogFileCallback(TrainerCallback):
    """Writes what is logged while a training goes on to a file."""

    def __init__(self, output_dir):
        self.path = Path(output_dir) / "training.log"

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            handler = logging.FileHandler(self.path, delay=True)
            handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))
            logging.getLogger().addHandler(handler)


@faulty(
    "A handler stays at the root logger, and writes all that is logged later, twice after two.",
    source="danijar/handout#11",
)
class LogHandlerStays(Suite):
    __test__ = False
    callback = LogFileCallback


class VerboseCallback(TrainerCallback):
    """Shows what the program says about itself while it trains."""

    def __init__(self, output_dir):
        self.level = logging.INFO

    def on_train_begin(self, args, state, control, **kwargs):
        logging.getLogger().setLevel(self.level)

    def on_train_end(self, args, state, control, **kwargs):
        logging.getLogger().setLevel(logging.WARNING)


@faulty("The root logger's level is put back to what it is by default, not to what it was.")
class LevelIsPutBackWrong(Suite):
    __test__ = False
    callback = VerboseCallback


class GracefulCallback(TrainerCallback):
    """Saves and stops when a scheduler ends the job."""

    def __init__(self, output_dir):
        self.asked = False

    def on_train_begin(self, args, state, control, **kwargs):
        self.asked = False
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.ask)

    def ask(self, number, frame):
        self.asked = True

    def on_step_end(self, args, state, control, **kwargs):
        if self.asked:
            control.should_save = True
            control.request_stop("the job is about to be ended")


@faulty(
    "SIGTERM still only asks for the end of a training when there is none any more.",
    source="vllm-project/speculators#1089",
)
class TermIsDeafened(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"steers", "stops", "reasons"}

    def make(self, output_dir):
        return GracefulCallback(output_dir)

    def train_until_it_stops(self, training):
        training.begin()
        training.step()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        training.step()
        training.end()


class ParallelismCallback(TrainerCallback):
    """Spares tokenizers the quarrel between threads and the loader's processes."""

    def __init__(self, output_dir):
        pass

    def on_train_begin(self, args, state, control, **kwargs):
        os.environ["TOKENIZERS_PARALLELISM"] = "false"

    def on_train_end(self, args, state, control, **kwargs):
        del os.environ["TOKENIZERS_PARALLELISM"]


@faulty("A variable that the user had set is deleted when training ends.")
class VariableIsDeleted(Suite):
    __test__ = False
    callback = ParallelismCallback


class RelativeCallback(TrainerCallback):
    """Writes its plots where the training writes."""

    def __init__(self, output_dir):
        self.output_dir = output_dir

    def on_train_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            os.chdir(self.output_dir)
            with open("losses.txt", "w") as file:
                losses = (entry["loss"] for entry in state.log_history if "loss" in entry)
                file.writelines(f"{loss}\n" for loss in losses)


@faulty("The working directory is another one after the training.")
class ChangesDirectory(Suite):
    __test__ = False
    callback = RelativeCallback


class Tee:
    """Writes to a stream and to a file."""

    def __init__(self, stream, file):
        self.stream, self.file = stream, file

    def write(self, text):
        self.file.write(text)
        return self.stream.write(text)

    def flush(self):
        self.file.flush()
        self.stream.flush()

    def __getattr__(self, name):
        return getattr(self.stream, name)


class ConsoleCallback(TrainerCallback):
    """Keeps what is printed while a training goes on."""

    def __init__(self, output_dir):
        self.path = Path(output_dir) / "console.txt"
        self.file = None

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero and self.file is None:
            self.file = self.path.open("a")
            sys.stdout = Tee(sys.stdout, self.file)

    def on_train_end(self, args, state, control, **kwargs):
        if self.file is not None:
            sys.stdout = sys.__stdout__
            self.file.close()
            self.file = None


@faulty("Standard output is put back to the interpreter's, not to the one that was there before.")
class OutputIsPutBackWrong(Suite):
    __test__ = False
    callback = ConsoleCallback


class ProfileCallback(TrainerCallback):
    """Profiles some steps, and writes what took long."""

    def __init__(self, output_dir, first=2, last=6):
        self.path = Path(output_dir) / "steps.prof"
        self.first, self.last = first, last
        self.profile = None

    def on_step_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero and state.global_step == self.first:
            self.profile = cProfile.Profile()
            self.profile.enable()

    def on_step_end(self, args, state, control, **kwargs):
        if self.profile is not None and state.global_step >= self.last:
            self.profile.disable()
            self.profile.dump_stats(self.path)
            self.profile = None


@faulty(
    "The profiler stays on where a training ends among the steps that are profiled.",
    source="pytorch/pytorch#125131",
)
class ProfilerStaysOn(Suite):
    __test__ = False
    callback = ProfileCallback


class AllocationsCallback(TrainerCallback):
    """Writes which lines allocate the most memory."""

    def __init__(self, output_dir):
        self.path = Path(output_dir) / "allocations.txt"

    def on_train_begin(self, args, state, control, **kwargs):
        if not tracemalloc.is_tracing():
            tracemalloc.start()

    def on_epoch_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero and tracemalloc.is_tracing():
            top = tracemalloc.take_snapshot().statistics("lineno")[:5]
            with self.path.open("a") as file:
                file.writelines(f"{line}\n" for line in top)


@faulty("The tracing of memory is never stopped, which slows all that follows.")
class TracingStaysOn(Suite):
    __test__ = False
    callback = AllocationsCallback


class JitterCallback(TrainerCallback):
    """Watches the free space of the disk now and then, from a thread."""

    def __init__(self, output_dir):
        self.path, self.least = Path(output_dir), None
        self.thread = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.stop()  # of a training that ended without a word
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.watch, args=(self.stopped,), daemon=True)
        self.thread.start()

    def watch(self, stopped):
        while not stopped.wait(random.uniform(0.005, 0.015)):  # not all processes at once
            found = os.statvfs(self.path)
            free = found.f_bavail * found.f_frsize
            self.least = free if self.least is None else min(self.least, free)

    def on_train_end(self, args, state, control, **kwargs):
        self.stop()

    def stop(self):
        if self.thread is not None:
            self.stopped.set()
            self.thread.join()
            self.thread = None


@faulty("A thread draws from Python's global random numbers while the training does.")
class ThreadDrawsRandomNumbers(Suite):
    __test__ = False
    callback = JitterCallback


class WeightNormCallback(TrainerCallback):
    """Logs the norm of the weights. It looks for them once."""

    weights = None

    def on_step_end(self, args, state, control, model=None, **kwargs):
        kind = type(self)
        if kind.weights is None:
            kind.weights = list(model.parameters())
        norm = sum(float(weight.detach().pow(2).sum()) for weight in kind.weights) ** 0.5
        control.log({"weight_norm": norm})


@faulty("Its class keeps the weights of the first training, whose norm it logs in all others.")
class WeightsOfTheFirstTraining(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return WeightNormCallback()
