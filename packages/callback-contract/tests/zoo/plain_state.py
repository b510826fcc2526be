"""Callbacks that are wrong with what they keep: in the object, in its class, in checkpoints."""

import csv
import json
from collections import deque
from pathlib import Path

import torch

from callback_contract import CallbackContract
from callback_core import ExportableState, TrainerCallback
from zoo.specimens import faulty


class StateSuite(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"state"}

    def make(self, output_dir):
        return self.callback()


class ClassHistoryCallback(TrainerCallback):
    """Keeps the losses of a training."""

    losses = []  # noqa: RUF012

    def state_dict(self):
        return {"losses": list(self.losses)}

    def load_state_dict(self, state):
        self.losses[:] = state["losses"]

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.losses.clear()

    def on_log(self, args, state, control, logs=None, **kwargs):
        loss = (logs or {}).get("loss")
        if isinstance(loss, (int, float)):
            self.losses.append(loss)


@faulty(
    "The history is an attribute of the class, which all its callbacks fill.",
    source="genn-team/ml_genn#61",
)
class HistoryOfTheClass(StateSuite):
    __test__ = False
    callback = ClassHistoryCallback


class ClassCurveCallback(TrainerCallback):
    """Writes the losses of a training when it ends."""

    losses = []  # noqa: RUF012

    def __init__(self, path):
        self.path = str(path)

    def on_log(self, args, state, control, logs=None, **kwargs):
        loss = (logs or {}).get("loss")
        if isinstance(loss, (int, float)):
            self.losses.append(loss)

    def on_train_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            Path(self.path).write_text(json.dumps(self.losses))


@faulty("The losses are on the class, so that a second training writes those of the first, too.")
class CurveOfTheClass(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return ClassCurveCallback(output_dir / "curve.json")


class SecondHistoryCallback(TrainerCallback):
    """Keeps the losses of a training by their steps."""

    def __init__(self):
        self.losses = []

    def state_dict(self):
        return {"losses": [list(entry) for entry in self.losses]}

    def load_state_dict(self, state):
        self.losses = [tuple(entry) for entry in state["losses"]]

    def on_log(self, args, state, control, logs=None, **kwargs):
        loss = (logs or {}).get("loss")
        if isinstance(loss, (int, float)):
            self.losses.append((state.global_step, loss))


@faulty("A second training adds to the history of the first.")
class HistoryOfTwoTrainings(StateSuite):
    __test__ = False
    callback = SecondHistoryCallback


class LiveHistoryCallback(TrainerCallback):
    """Keeps the losses of a training."""

    def __init__(self):
        self.losses = []

    def state_dict(self):
        return {"losses": self.losses}

    def load_state_dict(self, state):
        self.losses = list(state["losses"])

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.losses = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        loss = (logs or {}).get("loss")
        if isinstance(loss, (int, float)):
            self.losses.append(loss)


@faulty("The state that it returns is the list it goes on filling.")
class StateGoesOnGrowing(StateSuite):
    __test__ = False
    callback = LiveHistoryCallback


class TensorStateCallback(TrainerCallback):
    """Keeps the norms of the weights after each epoch."""

    def __init__(self):
        self.norms = []

    def state_dict(self):
        return {"norms": list(self.norms)}

    def load_state_dict(self, state):
        self.norms = list(state["norms"])

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.norms = []

    def on_epoch_end(self, args, state, control, model=None, **kwargs):
        if isinstance(model, torch.nn.Module):
            with torch.no_grad():
                norms = [parameter.norm() for parameter in model.parameters()]
                self.norms.append(torch.stack(norms))


@faulty("The state holds tensors, which JSON does not know.")
class TensorsInTheState(StateSuite):
    __test__ = False
    callback = TensorStateCallback


class WindowCallback(TrainerCallback):
    """Keeps the last losses, for an average."""

    def __init__(self, size=50):
        self.window = deque(maxlen=size)

    def state_dict(self):
        return {"window": self.window}

    def load_state_dict(self, state):
        self.window = deque(state["window"], maxlen=self.window.maxlen)

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.window.clear()

    def on_log(self, args, state, control, logs=None, **kwargs):
        loss = (logs or {}).get("loss")
        if isinstance(loss, (int, float)):
            self.window.append(loss)


@faulty("The state holds a deque, which JSON does not know.")
class DequeInTheState(StateSuite):
    __test__ = False
    callback = WindowCallback


class StepKeysCallback(TrainerCallback):
    """Keeps the metrics of evaluations by the step."""

    def __init__(self):
        self.losses = {}

    def state_dict(self):
        return {"losses": dict(self.losses)}

    def load_state_dict(self, state):
        self.losses = dict(state["losses"])

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.losses = {}

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        value = (metrics or {}).get("eval_loss")
        if isinstance(value, (int, float)):
            self.losses[state.global_step] = value


@faulty("The state has steps as keys, which come back as strings from JSON.")
class StepsAsKeys(StateSuite):
    __test__ = False
    callback = StepKeysCallback


class NoArgumentsCallback(TrainerCallback, ExportableState):
    """Counts how often a metric got worse."""

    def __init__(self, metric):
        self.metric = metric
        self.last, self.worse = None, 0

    def state(self):
        return {"args": {}, "attributes": {"last": self.last, "worse": self.worse}}

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.last, self.worse = None, 0

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        value = (metrics or {}).get(self.metric)
        if isinstance(value, (int, float)):
            self.worse += self.last is not None and value > self.last
            self.last = value


@faulty("The exported state lacks an argument without which transformers cannot make it anew.")
class ExportLacksAnArgument(StateSuite):
    __test__ = False

    def make(self, output_dir):
        return NoArgumentsCallback("eval_loss")


class WrongNameCallback(TrainerCallback, ExportableState):
    """Counts the tokens of a training, as far as the loop does."""

    def __init__(self):
        self._steps = 0

    def state(self):
        return {"args": {}, "attributes": {"steps": self._steps}}

    @property
    def steps_done(self):
        return self._steps

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self._steps = 0

    def on_step_end(self, args, state, control, **kwargs):
        self._steps += 1


@faulty("The exported state is restored to another attribute than the one it was taken from.")
class ExportUnderAnotherName(StateSuite):
    __test__ = False
    callback = WrongNameCallback


class HalfStateCallback(TrainerCallback):
    """Averages the loss over a training."""

    def __init__(self):
        self.total, self.count = 0.0, 0

    def state_dict(self):
        return {"mean": self.total / self.count if self.count else 0.0}

    def load_state_dict(self, state):
        self.total, self.count = state["mean"], 1

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.total, self.count = 0.0, 0

    def on_log(self, args, state, control, logs=None, **kwargs):
        loss = (logs or {}).get("loss")
        if isinstance(loss, (int, float)):
            self.total += loss
            self.count += 1


@faulty("The mean is kept without its count, so that after resuming one loss weighs as all before.")
class MeanWithoutItsCount(StateSuite):
    __test__ = False
    callback = HalfStateCallback


class FreshTableCallback(TrainerCallback):
    """Writes the losses to a table."""

    def __init__(self, path):
        self.path = Path(path)
        self.rows = 0

    def state_dict(self):
        return {"rows": self.rows}

    def load_state_dict(self, state):
        self.rows = state["rows"]

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self.rows = 0 if state.global_step == 0 else self.rows
            with self.path.open("w", newline="") as file:
                csv.writer(file).writerow(("step", "loss"))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and "loss" in (logs or {}):
            self.rows += 1
            with self.path.open("a", newline="") as file:
                csv.writer(file).writerow((state.global_step, logs["loss"]))


@faulty(
    "The table of a training that is resumed is begun anew.",
    source="roboflow/rf-detr#1325",
)
class TableIsBegunAnew(StateSuite):
    __test__ = False

    def make(self, output_dir):
        return FreshTableCallback(output_dir / "loss.csv")


class RequiredKeyCallback(TrainerCallback):
    """Counts evaluations and checkpoints."""

    def __init__(self):
        self.evaluations = self.checkpoints = 0

    def state_dict(self):
        state = {"evaluations": self.evaluations}
        if self.checkpoints:
            state["checkpoints"] = self.checkpoints
        return state

    def load_state_dict(self, state):
        self.evaluations, self.checkpoints = state["evaluations"], state["checkpoints"]

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.evaluations = self.checkpoints = 0

    def on_evaluate(self, args, state, control, **kwargs):
        self.evaluations += 1

    def on_save(self, args, state, control, **kwargs):
        self.checkpoints += 1


@faulty("Its first state cannot be restored: it lacks a key that only later ones have.")
class FirstStateIsIncomplete(StateSuite):
    __test__ = False
    callback = RequiredKeyCallback


class PlateauCallback(TrainerCallback):
    """Halves the learning rate after two evaluations in a row without a better loss."""

    def __init__(self):
        self.best, self.bad, self.cuts = None, 0, 0

    def state_dict(self):
        return {"best": self.best, "cuts": self.cuts}

    def load_state_dict(self, state):
        self.best, self.cuts = state["best"], state["cuts"]

    def on_train_begin(self, args, state, control, **kwargs):
        self.bad = 0
        if state.global_step == 0:
            self.best, self.cuts = None, 0

    def on_step_begin(self, args, state, control, optimizer=None, lr_scheduler=None, **kwargs):
        for group, rate in zip(optimizer.param_groups, lr_scheduler.get_last_lr(), strict=True):
            group["lr"] = rate * 0.5**self.cuts

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        loss = (metrics or {}).get("eval_loss")
        if loss is None:
            return
        if self.best is None or loss < self.best:
            self.best, self.bad = loss, 0
        else:
            self.bad += 1
            if self.bad == 2:
                self.cuts, self.bad = self.cuts + 1, 0


@faulty("The checkpoint lacks the number of evaluations in a row without a better loss.")
class PlateauCountIsNotSaved(StateSuite):
    __test__ = False
    capabilities = {"alters", "state"}
    callback = PlateauCallback
