"""Callbacks that are correct: they watch, stop, save, print and tell."""

import csv
import json
import math
import queue
import threading
import time
import urllib.request
from pathlib import Path

from callback_contract import CallbackContract
from callback_core import ExportableState, TrainerCallback
from zoo import service
from zoo.plain_stopping import PatienceSuite
from zoo.specimens import correct


class LossHistory(TrainerCallback):
    """Keeps the losses of a training by their steps."""

    def __init__(self):
        self.losses = []

    def state_dict(self):
        return {"losses": [list(entry) for entry in self.losses]}

    def load_state_dict(self, state):
        self.losses = [tuple(entry) for entry in state["losses"]]

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.losses = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        loss = (logs or {}).get("loss")
        if isinstance(loss, (int, float)):
            self.losses.append((state.global_step, loss))


@correct("Keeps the losses of a training, also over a resume.")
class History(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"state"}

    def make(self, output_dir):
        return LossHistory()


@correct("Stops when the evaluation no longer gets better, and says why.")
class Patience(PatienceSuite):
    __test__ = False


class TransformersPatience(TrainerCallback, ExportableState):
    """As somebody writes it who knows transformers: a flag, and an exported state."""

    def __init__(self, early_stopping_patience=1, early_stopping_threshold=0.0):
        self.early_stopping_patience = early_stopping_patience
        self.early_stopping_threshold = early_stopping_threshold
        self.patience_counter = 0
        self.best = None

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.patience_counter, self.best = 0, None

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        loss = metrics.get("eval_loss")
        if loss is None:
            return
        if not math.isnan(loss) and (
            self.best is None or self.best - loss > self.early_stopping_threshold
        ):
            self.best = loss
            self.patience_counter = 0
        else:
            self.patience_counter += 1
        if self.patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True

    def state(self):
        return {
            "args": {
                "early_stopping_patience": self.early_stopping_patience,
                "early_stopping_threshold": self.early_stopping_threshold,
            },
            "attributes": {"patience_counter": self.patience_counter, "best": self.best},
        }


@correct("Stops by patience as transformers' callback does: by a flag, with an ExportableState.")
class PatienceOfTransformers(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"stops", "patience", "state"}

    def make(self, output_dir):
        return TransformersPatience(early_stopping_patience=2)

    def make_patient(self, output_dir, patience, threshold):
        return TransformersPatience(patience, threshold)


class LossTable(TrainerCallback):
    """Writes the losses to a table; one that is resumed goes on behind its checkpoint."""

    def __init__(self, path):
        self.path = Path(path)

    def on_train_begin(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        kept = []
        if state.global_step > 0 and self.path.exists():
            with self.path.open(newline="") as file:
                rows = list(csv.reader(file))[1:]
            kept = [row for row in rows if len(row) == 2 and int(row[0]) <= state.global_step]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="") as file:
            csv.writer(file).writerows([("step", "loss"), *kept])

    def on_log(self, args, state, control, logs=None, **kwargs):
        loss = (logs or {}).get("loss")
        if state.is_world_process_zero and isinstance(loss, (int, float)):
            with self.path.open("a", newline="") as file:
                csv.writer(file).writerow((state.global_step, repr(loss)))


@correct("Writes the losses to a table, which it opens for each row.")
class Table(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return LossTable(output_dir / "losses.csv")


class StopAtNaN(TrainerCallback):
    """Stops a training whose loss is no longer a number."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        loss = (logs or {}).get("loss")
        if isinstance(loss, float) and not math.isfinite(loss):
            control.request_stop(f"the loss is {loss} at step {state.global_step}")


@correct("Stops when the loss is no number any more.")
class NotANumber(CallbackContract):
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


class Webhook(TrainerCallback):
    """Tells a webhook of evaluations and of the end, by a thread, and waits for it 3 s at most."""

    def __init__(self, url, token=None, limit=3.0):
        self.url, self.token, self.limit = url, token, limit
        self.queue = self.thread = None
        self.training = False

    def on_train_begin(self, args, state, control, **kwargs):
        self.finish()
        self.training = True

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        if state.is_world_process_zero:
            self.tell({"step": state.global_step, "metrics": metrics})
            if not self.training:
                self.finish()

    def on_train_end(self, args, state, control, **kwargs):
        if self.training and state.is_world_process_zero:
            self.tell({"step": state.global_step, "text": "training has ended"})
        self.training = False
        self.finish()

    def tell(self, message):
        if self.thread is None:
            self.queue = queue.Queue()
            self.thread = threading.Thread(target=self.work, args=(self.queue,), daemon=True)
            self.thread.start()
        self.queue.put(json.dumps(message, default=str))

    def work(self, messages):
        while (message := messages.get()) is not None:
            headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
            request = urllib.request.Request(self.url, message.encode(), headers)
            try:
                with urllib.request.urlopen(request, timeout=2) as answer:
                    answer.read()
            except OSError:
                continue

    def finish(self):
        if self.thread is not None:
            self.queue.put(None)
            self.thread.join(self.limit)
            self.thread = None


@correct("Tells a webhook beside the training, which may be away.")
class Hook(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"unreachable"}
    secrets = ["zk-hook-0b77c1f2a95d4e6c"]

    def make(self, output_dir):
        return Webhook(service.url(output_dir), "zk-hook-0b77c1f2a95d4e6c")

    def make_unreachable(self, output_dir):
        with service.Service() as gone:
            return Webhook(gone.url, "zk-hook-0b77c1f2a95d4e6c")


class SaveAtBest(TrainerCallback):
    """Asks for a checkpoint when `eval_loss` is the best so far."""

    def __init__(self):
        self.best = None

    def state_dict(self):
        return {"best": self.best}

    def load_state_dict(self, state):
        self.best = state["best"]

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.best = None

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        value = (metrics or {}).get("eval_loss")
        if isinstance(value, (int, float)) and (self.best is None or value < self.best):
            self.best = value
            control.should_save = True
        return control


@correct("Asks for a checkpoint at each best evaluation, and leaves the wishes of others alone.")
class SavesAtBest(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"steers", "state"}

    def make(self, output_dir):
        return SaveAtBest()


class TimeLimit(TrainerCallback):
    """Stops after so many seconds of training, those before a resume included."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.before, self.began = 0.0, None

    @property
    def spent(self):
        return self.before + (0.0 if self.began is None else time.monotonic() - self.began)

    def state_dict(self):
        return {"spent": self.spent}

    def load_state_dict(self, state):
        self.before, self.began = state["spent"], None

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.before = 0.0
        self.began = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        if self.spent >= self.seconds:
            control.request_stop(f"{self.spent:.0f} s are over")

    def on_train_end(self, args, state, control, **kwargs):
        self.before, self.began = self.spent, None


@correct("Stops after some seconds of training.")
class Limited(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"stops", "reasons", "state"}

    def make(self, output_dir):
        return TimeLimit(2.0)

    def train_until_it_stops(self, training):
        training.begin()
        training.step()
        time.sleep(2.1)
        training.step()
        training.end()


class Lines:
    """Prints a line for each log. It has no base: the methods make it a callback."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and logs:
            of = f"/{state.max_steps}" if state.max_steps else ""
            values = (
                f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in logs.items()
            )
            print(f"[{state.global_step}{of}] {', '.join(values)}")


@correct("Prints a line for each log, where there is somebody to read it.")
class Printed(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"prints"}

    def make(self, output_dir):
        return Lines()
