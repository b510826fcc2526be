"""Callbacks that are correct and use what a process has one of: threads, signals, settings."""

import cProfile
import json
import os
import resource
import signal
import threading
import time
from pathlib import Path

from callback_contract import CallbackContract, Setting
from callback_core import TrainerCallback
from zoo.specimens import correct


class MemoryWatch(TrainerCallback):
    """Writes the most memory of each training to a file, which a thread watches."""

    def __init__(self, path, seconds=0.01):
        self.path, self.seconds = Path(path), seconds
        self.thread = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.stop()
        self.most, self.over = 0, threading.Event()
        self.thread = threading.Thread(target=self.watch, args=(self.over,), daemon=True)
        self.thread.start()

    def watch(self, over):
        while not over.wait(self.seconds):
            self.most = max(self.most, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    def on_train_end(self, args, state, control, **kwargs):
        if self.stop() and state.is_world_process_zero:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": state.global_step, "KiB": self.most}) + "\n")

    def stop(self):
        thread, self.thread = self.thread, None
        if thread is not None:
            self.over.set()
            thread.join()
        return thread is not None


@correct("Watches the memory of the process by a thread, which ends with the training.")
class Memory(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return MemoryWatch(output_dir / "memory.jsonl")


class StepProfile(TrainerCallback):
    """Profiles some steps of a training."""

    def __init__(self, path, first=1, last=3):
        self.path, self.first, self.last = os.fspath(path), first, last
        self.profile = None

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.first and state.is_world_process_zero:
            self.stop()
            profile = cProfile.Profile()
            try:
                profile.enable()
            except ValueError:
                return  # there is another one
            self.profile = profile

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= self.last:
            self.stop()

    def on_train_end(self, args, state, control, **kwargs):
        self.stop()

    def stop(self):
        profile, self.profile = self.profile, None
        if profile is not None:
            profile.disable()
            profile.dump_stats(self.path)


@correct("Profiles some steps; the profiler is off when the training is over, however it ends.")
class Profiled(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return StepProfile(output_dir / "steps.prof")


class SaveOnTerm(TrainerCallback):
    """Saves and stops when a scheduler ends the job; the handler before it is put back."""

    def __init__(self):
        self.asked, self.before, self.installed = False, None, False

    def on_train_begin(self, args, state, control, **kwargs):
        self.asked = False
        if threading.current_thread() is threading.main_thread() and not self.installed:
            self.before = signal.signal(signal.SIGTERM, self.ask)
            self.installed = True

    def ask(self, number, frame):
        self.asked = True

    def on_step_end(self, args, state, control, **kwargs):
        if self.asked:
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args, state, control, **kwargs):
        if self.installed and signal.getsignal(signal.SIGTERM) == self.ask:
            signal.signal(signal.SIGTERM, self.before)
        self.installed = False


@correct("Saves and stops at a SIGTERM, whose handler is the one from before when it is over.")
class Terminated(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"steers", "stops"}

    def make(self, output_dir):
        return SaveOnTerm()

    def train_until_it_stops(self, training):
        training.begin()
        training.step()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        training.step()
        training.end()


class Alive(TrainerCallback):
    """Writes every so many steps that the training goes on."""

    def __init__(self, path, every=None):
        self.path = Path(path)
        source = "every"
        if every is None:
            source, every = "ZOO_EVERY", os.environ.get("ZOO_EVERY", "").strip() or 10
        try:
            self.every = int(every)
        except (TypeError, ValueError):
            self.every = 0
        if self.every < 1:
            raise ValueError(f"{source} is {every!r}, it must be a whole number, 1 or more")

    def on_step_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero and state.global_step % self.every == 0:
            self.path.write_text(f"{state.global_step}\n")


@correct("Has a setting, by an argument or a variable.")
class Every(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"settings"}
    settings = [
        Setting(
            "every",
            "ZOO_EVERY",
            10,
            examples=[("3", 3)],
            given=[(7, 7)],
            wrong=["often", "0"],
            wrong_given=["often", 0],
        )
    ]

    def make(self, output_dir):
        return Alive(output_dir / "alive.txt")

    def make_with(self, output_dir, **arguments):
        return Alive(output_dir / "alive.txt", **arguments)
