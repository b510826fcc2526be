"""Callbacks that stop a training, and are wrong about when."""

import logging
import math
import time

from callback_contract import CallbackContract
from callback_core import ExportableState, TrainerCallback
from zoo.specimens import faulty

logger = logging.getLogger(__name__)


class PatienceCallback(TrainerCallback):
    """Stops when `eval_loss` has not improved by more than `min_delta` for some evaluations.

    Correct as it stands. The specimens override a step of it.
    """

    def __init__(self, patience=3, min_delta=0.0):
        self.patience, self.min_delta = patience, min_delta
        self.best, self.bad = None, 0

    def state_dict(self):
        return {"best": self.best, "bad": self.bad}

    def load_state_dict(self, state):
        self.best, self.bad = state["best"], state["bad"]

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.best, self.bad = None, 0

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        value = (metrics or {}).get("eval_loss")
        if isinstance(value, (int, float)):
            self.count(value)
            if self.bad >= self.patience:
                self.stop(control)

    def stop(self, control):
        control.request_stop(f"eval_loss did not improve for {self.bad} evaluations")

    def count(self, value):
        if self.improves(value):
            self.best, self.bad = value, 0
        else:
            self.bad += 1

    def improves(self, value):
        if math.isnan(value):
            return False
        return self.best is None or self.best - value > self.min_delta


class PatienceSuite(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"stops", "reasons", "patience", "state"}
    callback = PatienceCallback

    def make(self, output_dir):
        return self.callback()

    def make_patient(self, output_dir, patience, threshold):
        return self.callback(patience, threshold)


class NeverResetsCallback(PatienceCallback):
    def count(self, value):
        if self.improves(value):
            self.best = value
        else:
            self.bad += 1


@faulty(
    "An improvement does not begin the count anew.",
    source="modelscope/ms-swift#5326",
)
class CountIsNotReset(PatienceSuite):
    __test__ = False
    callback = NeverResetsCallback


class TruthyBestCallback(PatienceCallback):
    def improves(self, value):
        return not self.best or super().improves(value)


@faulty("A best value of 0 counts as none, so that whatever follows is an improvement.")
class ZeroIsNoBest(PatienceSuite):
    __test__ = False
    callback = TruthyBestCallback


class OneMoreCallback(PatienceCallback):
    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        value = (metrics or {}).get("eval_loss")
        if isinstance(value, (int, float)):
            if self.bad >= self.patience and not self.improves(value):
                self.stop(control)
            self.count(value)


@faulty("It stops one evaluation later than patience says.")
class OneEvaluationTooLate(PatienceSuite):
    __test__ = False
    callback = OneMoreCallback


class WrongSignCallback(PatienceCallback):
    def improves(self, value):
        if math.isnan(value):
            return False
        return self.best is None or value - self.best < self.min_delta


@faulty(
    "The threshold has the wrong sign: getting worse by less than it counts as an improvement.",
    source="ThilinaRajapakse/simpletransformers#527",
)
class ThresholdOfWrongSign(PatienceSuite):
    __test__ = False
    callback = WrongSignCallback


class EqualIsBetterCallback(PatienceCallback):
    def improves(self, value):
        if math.isnan(value):
            return False
        return self.best is None or self.best - value >= self.min_delta


@faulty(
    "An evaluation that equals the best, or is better by just the threshold, is an improvement.",
    source="Lightning-AI/pytorch-lightning#9297",
)
class EqualIsAnImprovement(PatienceSuite):
    __test__ = False
    callback = EqualIsBetterCallback


class NaNIsBestCallback(PatienceCallback):
    def improves(self, value):
        return self.best is None or not self.best - value <= self.min_delta


@faulty("NaN counts as the best value so far, and as better than any that follows.")
class NaNIsAnImprovement(PatienceSuite):
    __test__ = False
    callback = NaNIsBestCallback


class FirstIsBestCallback(PatienceCallback):
    def improves(self, value):
        return self.best is None or self.best - value > self.min_delta


@faulty("A first evaluation of NaN stays the best value, so a training that improves stops.")
class FirstNaNIsTheBest(PatienceSuite):
    __test__ = False
    callback = FirstIsBestCallback


class SlidingCallback(PatienceCallback):
    def count(self, value):
        super().count(value)
        if not math.isnan(value):
            self.best = value


@faulty("Each evaluation is compared with the one before, not with the best.")
class ComparedWithTheLast(PatienceSuite):
    __test__ = False
    callback = SlidingCallback


class CountsFromZeroCallback(PatienceCallback):
    def state_dict(self):
        return {"best": self.best}

    def load_state_dict(self, state):
        self.best = state["best"]


@faulty(
    "The checkpoint has the best value and not the count, which a resumed training begins anew.",
    source="huggingface/transformers#28544",
)
class CountIsNotSaved(PatienceSuite):
    __test__ = False
    callback = CountsFromZeroCallback


class ForgetsBestCallback(PatienceCallback):
    def state_dict(self):
        return {"bad": self.bad}

    def load_state_dict(self, state):
        self.bad = state["bad"]


@faulty(
    "The checkpoint has the count and not the best value: the first after resuming is the best.",
    source="roboflow/rf-detr#969",
)
class BestIsNotSaved(PatienceSuite):
    __test__ = False
    callback = ForgetsBestCallback


class ResetsAtBeginCallback(PatienceCallback):
    def on_train_begin(self, args, state, control, **kwargs):
        self.best, self.bad = None, 0


@faulty(
    "What was restored is reset when the training begins.",
    source="Lightning-AI/pytorch-lightning#1463",
)
class RestoredAndReset(PatienceSuite):
    __test__ = False
    callback = ResetsAtBeginCallback


class NeverBeginsCallback(PatienceCallback):
    def on_train_begin(self, args, state, control, **kwargs):
        """There is nothing to begin: the constructor has done it."""


@faulty("The best value of the first training is the one to beat in the second.")
class SecondTrainingHasTheFirstsBest(PatienceSuite):
    __test__ = False
    callback = NeverBeginsCallback


class KeyErrorCallback(PatienceCallback):
    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.count(metrics["eval_loss"])
        if self.bad >= self.patience:
            self.stop(control)


@faulty(
    "With several evaluation sets there is no `eval_loss`, and the training ends by a KeyError.",
    source="huggingface/sentence-transformers#2749",
)
class SeveralSetsAreAKeyError(PatienceSuite):
    __test__ = False
    callback = KeyErrorCallback


class EachLogCallback(PatienceCallback):
    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        """Wait for the log, which comes with it."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        value = (logs or {}).get("eval_loss", self.best)
        if isinstance(value, (int, float)):
            self.count(value)
            if self.bad >= self.patience:
                self.stop(control)


@faulty("Logs without the metric use up the patience.")
class EachLogCounts(PatienceSuite):
    __test__ = False
    callback = EachLogCallback


class HistoryPatienceCallback(PatienceCallback):
    """Judges by the history of all evaluations."""

    def __init__(self, patience=3, min_delta=0.0, history=[]):  # noqa: B006
        super().__init__(patience, min_delta)
        self.history = history

    def state_dict(self):
        return {"history": list(self.history)}

    def load_state_dict(self, state):
        self.history[:] = state["history"]
        self.replay()

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.history.clear()
            self.replay()

    def count(self, value):
        self.history.append(value)
        self.replay()

    def replay(self):
        self.best, self.bad = None, 0
        for value in self.history:
            super().count(value)


@faulty(
    "The history is a default argument, which all callbacks of the class share.",
    source="Niketkumardheeryan/ML-CaPsule#1580",
)
class HistoryAsDefaultArgument(PatienceSuite):
    __test__ = False
    callback = HistoryPatienceCallback


class TimeLimitCallback(TrainerCallback):
    """Stops after so many seconds of training, those before a resume included."""

    def __init__(self, seconds=3600.0):
        self.seconds = seconds
        self.began = None

    def state_dict(self):
        return {"began": self.began}

    def load_state_dict(self, state):
        self.began = state["began"]

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0 or self.began is None:
            self.began = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        spent = time.monotonic() - self.began
        if spent >= self.seconds:
            control.request_stop(f"{spent:.0f} s of {self.seconds:.0f} s are over")


@faulty("The checkpoint has a reading of the monotonic clock, which means nothing elsewhere.")
class ClockInTheCheckpoint(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"stops", "reasons", "state"}

    def make(self, output_dir):
        return TimeLimitCallback(2.0)

    def train_until_it_stops(self, training):
        training.begin()
        training.step()
        time.sleep(2.1)
        training.step()
        training.end()


class StickyTargetCallback(TrainerCallback, ExportableState):
    """Stops once `eval_loss` is below a target."""

    def __init__(self, target=1e-3):
        self.target = target
        self.reached = False

    def state(self):
        return {"args": {"target": self.target}, "attributes": {"reached": self.reached}}

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        value = (metrics or {}).get("eval_loss")
        if isinstance(value, (int, float)) and value < self.target:
            self.reached = True

    def on_step_end(self, args, state, control, **kwargs):
        if self.reached:
            control.should_training_stop = True


@faulty("Once a training has reached the target, the next one stops after its first step.")
class ReachedForEver(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"stops", "state"}

    def make(self, output_dir):
        return StickyTargetCallback()

    def train_until_it_stops(self, training):
        training.begin()
        training.step()
        training.evaluate({"eval_loss": 1e-4})
        training.step()
        training.end()


class LastStepCallback(TrainerCallback):
    """Evaluates and saves at the last step, whatever the strategies are, and ends the training."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps - 1:
            control.should_evaluate = control.should_save = True
            control.should_training_stop = True


@faulty("It takes the last step for `max_steps - 1`, and the training lacks its last step.")
class OneStepTooFew(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"steers"}

    def make(self, output_dir):
        return LastStepCallback()


class PlateauCallback(PatienceCallback):
    """Says that the metric no longer improves, and lets the training go on."""

    def stop(self, control):
        logger.warning("eval_loss did not improve for %d evaluations", self.bad)


@faulty("It inherits a state, which its test does not claim: nothing checks that it comes back.")
class InheritedStateIsNotClaimed(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return PlateauCallback()
