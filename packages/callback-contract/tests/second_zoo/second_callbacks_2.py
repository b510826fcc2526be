# ruff: noqa: RUF012
"""Plain callbacks that are wrong in one way each: state, files, a second training."""

import shutil
import threading
import time
from pathlib import Path

from second_specimens import faulty

from callback_contract import CallbackContract
from callback_core import TrainerCallback, TrainerControl


class StepBudget(TrainerCallback):
    """Stops after so many steps, those before a resume included."""

    def __init__(self, steps):
        self.steps = steps
        self.used = 0

    def state_dict(self):
        return {"used": self.used}

    def load_state_dict(self, state):
        self.used = state["used"]

    def on_step_end(self, args, state, control, **kwargs):
        self.used += 1
        if self.used >= self.steps:
            control.request_stop(f"the budget of {self.steps} steps is spent")


@faulty("a second training has what the first has left of the budget, and stops at once")
class SpendsBudgetOnce(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"stops", "reasons", "state"}

    def make(self, output_dir):
        return StepBudget(10)

    def train_until_it_stops(self, training):
        training.begin()
        for _ in range(12):
            training.step({"loss": 0.5})
        training.end()


class TidyLogs(TrainerCallback):
    """Keeps the logs as lines that a person can read."""

    def __init__(self, digits=3):
        self.digits = digits
        self.lines = []

    def on_train_begin(self, args, state, control, **kwargs):
        self.lines = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.log_history:
            return
        entry = state.log_history[-1]
        for name, value in entry.items():
            if isinstance(value, float):
                entry[name] = round(value, self.digits)
        self.lines.append("  ".join(f"{name}={value}" for name, value in entry.items()))


@faulty("rounds the values in the trainer's own history", source="ray-project/ray#64565")
class RoundsTheHistory(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = set()

    def make(self, output_dir):
        return TidyLogs()


class StepTimer(TrainerCallback):
    """Says how long a step takes on average: `mean_seconds`, after a training."""

    def __init__(self):
        self.begun = None
        self.durations = []
        self.mean_seconds = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.begun, self.durations = None, []

    def on_step_begin(self, args, state, control, **kwargs):
        self.begun = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        if self.begun is not None:
            self.durations.append(time.perf_counter() - self.begun)

    def on_train_end(self, args, state, control, **kwargs):
        self.mean_seconds = sum(self.durations) / len(self.durations)


@faulty("fails at the end of a training that has done no step")
class AveragesNothing(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = set()

    def make(self, output_dir):
        return StepTimer()


class RecentLosses(TrainerCallback):
    """Keeps the losses that were logged last, by their step."""

    def __init__(self, keep=4):
        self.keep = keep
        self.losses = {}

    def state_dict(self):
        return {"losses": self.losses}

    def load_state_dict(self, state):
        self.losses = state["losses"]

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.losses = {}

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self.losses[state.global_step] = float(logs["loss"])
            while len(self.losses) > self.keep:
                del self.losses[min(self.losses)]


@faulty("its state has numbers as keys, which come back from a checkpoint as strings")
class IntegerKeysInState(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"state"}

    def make(self, output_dir):
        return RecentLosses()


class LossTrace(TrainerCallback):
    """Keeps all losses, to be plotted when the training is over."""

    values = []

    def state_dict(self):
        return {"values": list(self.values)}

    def load_state_dict(self, state):
        self.values[:] = state["values"]

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.values.clear()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self.values.append(float(logs["loss"]))


@faulty("two of them share one list, which is the class's")
class SharesItsList(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"state"}

    def make(self, output_dir):
        return LossTrace()


class BestMetrics(TrainerCallback):
    """Keeps the best value of each metric that is evaluated; lower is better."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.best = {}

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        for name, value in (metrics or {}).items():
            if isinstance(value, float) and not value >= self.best.get(name, float("inf")):
                self.best[name] = value


@faulty("an evaluation before any training finds an attribute missing")
class NeedsATrainingFirst(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = set()

    def make(self, output_dir):
        return BestMetrics()


class KeepNewest(TrainerCallback):
    """Deletes all checkpoints but the newest ones."""

    def __init__(self, keep=2):
        self.keep = keep

    def on_save(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        folders = sorted(Path(args.output_dir).glob("checkpoint-*"))
        for folder in folders[: -self.keep]:
            shutil.rmtree(folder, ignore_errors=True)


@faulty("sorts checkpoints by name, so that 10 is deleted as older than 8")
class DeletesTheNewest(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = set()

    def make(self, output_dir):
        return KeepNewest()


class Heartbeat(TrainerCallback):
    """Touches a file while a training goes on, for a watchdog to look at."""

    def __init__(self, file, every=0.2):
        self.file = Path(file)
        self.every = every

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def _beat(self):
        while True:
            try:
                self.file.touch()
            except OSError:
                return
            time.sleep(self.every)


@faulty("its thread goes on when the training is over, and a second one joins it")
class BeatsForever(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = set()

    def make(self, output_dir):
        return Heartbeat(output_dir / "heartbeat")


class StopBelow(TrainerCallback):
    """Stops when the loss is as low as it needs to be."""

    def __init__(self, target):
        self.target = target

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and logs.get("loss", self.target) < self.target:
            return TrainerControl(should_training_stop=True)
        return control


@faulty("returns a control of its own, in which what others have asked for is lost")
class ReplacesTheControl(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"stops"}

    def make(self, output_dir):
        return StopBelow(0.01)

    def train_until_it_stops(self, training):
        training.begin()
        training.step({"loss": 0.5})
        training.step({"loss": 0.001})
        training.end()
