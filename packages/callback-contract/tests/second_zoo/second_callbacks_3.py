# ruff: noqa: RUF012
"""Plain callbacks that are right, in varied styles."""

import json
import math
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

import torch
from second_specimens import correct

from callback_contract import CallbackContract
from callback_core import ExportableState, TrainerCallback


class MetricPatience(TrainerCallback, ExportableState):
    """Early stopping as one writes it for transformers."""

    def __init__(self, patience: int = 3, threshold: float = 0.0):
        self.patience = patience
        self.threshold = threshold
        self.best = None
        self.counter = 0

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.best = None
            self.counter = 0

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        value = metrics.get("eval_loss")
        if value is None:
            return
        if not math.isnan(value) and (self.best is None or self.best - value > self.threshold):
            self.best = value
            self.counter = 0
        else:
            self.counter += 1
        if self.counter >= self.patience:
            control.should_training_stop = True

    def state(self):
        return {
            "args": {"patience": self.patience, "threshold": self.threshold},
            "attributes": {"best": self.best, "counter": self.counter},
        }


@correct("early stopping by an author who knows only transformers: ExportableState, no reason")
class TransformersPatience(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"stops", "patience", "state"}

    def make(self, output_dir):
        return MetricPatience()

    def make_patient(self, output_dir, patience, threshold):
        return MetricPatience(patience, threshold)


@dataclass(slots=True, eq=False)
class RunningMean(TrainerCallback):
    """The exponential mean of the loss, in slots."""

    decay: float = 0.9
    mean: float | None = None
    seen: int = 0
    names: tuple = field(default=("loss",), repr=False)

    def state_dict(self):
        return {"mean": self.mean, "seen": self.seen}

    def load_state_dict(self, state):
        self.mean, self.seen = state["mean"], state["seen"]

    def on_train_begin(self, args, state, control, **kwargs):
        if not state.global_step:
            self.mean, self.seen = None, 0

    def on_log(self, args, state, control, logs=None, **kwargs):
        for name in self.names:
            value = (logs or {}).get(name)
            if isinstance(value, float) and math.isfinite(value):
                before = value if self.mean is None else self.mean
                self.mean = self.decay * before + (1 - self.decay) * value
                self.seen += 1


@correct("a dataclass with slots and a state")
class SlottedDataclass(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"state"}

    def make(self, output_dir):
        return RunningMean()


class GradientNoise:
    """Adds noise to the gradients, from a generator of its own that a checkpoint keeps.

    It extends no class: it has the methods that it needs.
    """

    def __init__(self, scale=1e-3, seed=17):
        self.scale = scale
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed)

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.generator.manual_seed(self.seed)

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        for parameter in model.parameters():
            if parameter.grad is not None:
                noise = torch.randn(parameter.shape, generator=self.generator)
                parameter.grad.add_(noise.to(parameter.grad), alpha=self.scale)

    def state_dict(self):
        return {"generator": self.generator.get_state().tolist()}

    def load_state_dict(self, state):
        self.generator.set_state(torch.tensor(state["generator"], dtype=torch.uint8))


@correct("alters the gradients on purpose, without a base class, with a generator of its own")
class NoisyOnPurpose(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"alters", "state"}

    def make(self, output_dir):
        return GradientNoise()


class LossLines(TrainerCallback):
    """Keeps what was logged; the inner one of `Filtered`."""

    def __init__(self):
        self.lines = []

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.lines = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.lines.append([state.global_step, dict(logs or {})])

    def state_dict(self):
        return {"lines": [list(line) for line in self.lines]}

    def load_state_dict(self, state):
        self.lines = [list(line) for line in state["lines"]]


class Filtered:
    """Passes on to another callback all events, and of the logs what has one of some names."""

    def __init__(self, inner, names):
        self.inner = inner
        self.names = frozenset(names)

    def on_log(self, args, state, control, logs=None, **kwargs):
        kept = {name: value for name, value in (logs or {}).items() if name in self.names}
        if kept:
            return self.inner.on_log(args, state, control, logs=kept, **kwargs)
        return None

    def __getattr__(self, name):
        if name.startswith("__") or name == "inner":  # as copy and pickle ask before __init__
            raise AttributeError(name)
        return getattr(self.inner, name)


@correct("delegates to an inner callback by __getattr__, its state included")
class DelegatesRightly(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"state"}

    def make(self, output_dir):
        return Filtered(LossLines(), ["loss", "eval_loss"])


class Watchful(TrainerCallback):
    """The first of a chain of classes: says at each log whether all is well."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        for name, value in (logs or {}).items():
            if isinstance(value, float) and not self.is_well(name, value):
                self.object_to(control, name, value)

    def is_well(self, name, value):
        return True

    def object_to(self, control, name, value):
        raise NotImplementedError


class Stopping(Watchful):
    """The second: stops where it is not."""

    def object_to(self, control, name, value):
        reason = f"{name} is {value}"
        if hasattr(control, "request_stop"):
            control.request_stop(reason)
        else:  # transformers' control
            control.should_training_stop = True


class StopAtNaN(Stopping):
    """The third: where a loss is no number."""

    @property
    def watched(self):
        return ("loss",)

    def is_well(self, name, value):
        return name not in self.watched or not math.isnan(value)


@correct("a chain of subclasses with properties, which stops at a loss of NaN and says why")
class ChainOfClasses(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"stops", "reasons"}

    def make(self, output_dir):
        return StopAtNaN()

    def train_until_it_stops(self, training):
        training.begin()
        training.step({"loss": 0.5})
        training.step({"loss": float("nan")})
        training.end()


class ProgressFile(TrainerCallback):
    """Keeps a JSON file of how far a training is, written by a thread of its own."""

    def __init__(self, file, every=0.1):
        self.file = Path(file)
        self.every = every
        self._latest = None
        self._over = threading.Event()
        self._thread = None

    def __getstate__(self):
        return {"file": self.file, "every": self.every}

    def __setstate__(self, state):
        self.__init__(**state)

    def on_train_begin(self, args, state, control, **kwargs):
        self._close()
        if state.is_world_process_zero:
            self._note(state)
            self._over.clear()
            self._thread = threading.Thread(target=self._write_now_and_then, daemon=True)
            self._thread.start()

    def on_step_end(self, args, state, control, **kwargs):
        if self._thread is not None:
            self._note(state)

    def on_train_end(self, args, state, control, **kwargs):
        if self._thread is not None:
            self._note(state)
            self._close()

    def _note(self, state):
        share = state.global_step / state.max_steps if state.max_steps > 0 else None
        self._latest = {"step": state.global_step, "of": state.max_steps, "share": share}

    def _close(self):
        if self._thread is not None:
            self._over.set()
            self._thread.join()
            self._thread = None

    def _write_now_and_then(self):
        written, over = None, False
        while not over:
            over = self._over.wait(self.every)
            latest = self._latest
            if latest is not written:
                self._write(latest)
                written = latest

    def _write(self, latest):
        beside = self.file.with_suffix(".new")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps(latest))
            os.replace(beside, self.file)
        except OSError:
            pass  # the next one may work


@correct("writes a file by a thread that ends with the training, and can be pickled")
class AsyncProgress(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = set()

    def make(self, output_dir):
        return ProgressFile(output_dir / "progress.json")
