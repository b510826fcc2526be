# ruff: noqa: RUF012
"""Plain callbacks that are wrong in one way each: stopping, watching the model, steering."""

import signal
import threading

import torch
from second_specimens import faulty

from callback_contract import CallbackContract
from callback_core import TrainerCallback


class PlateauStop(TrainerCallback):
    """Stops when `eval_loss` has not become lower by `min_delta` for `patience` evaluations."""

    def __init__(self, patience=3, min_delta=0.0):
        self.patience = patience
        self.min_delta = min_delta
        self.best = None
        self.wait = 0

    def state_dict(self):
        return {"best": self.best, "wait": self.wait}

    def load_state_dict(self, state):
        self.best, self.wait = state["best"], state["wait"]

    def on_train_begin(self, args, state, control, **kwargs):
        self.best, self.wait = None, 0

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        loss = (metrics or {}).get("eval_loss")
        if loss is None:
            return
        if loss == loss and (self.best is None or loss < self.best - self.min_delta):
            self.best, self.wait = loss, 0
            return
        self.wait += 1
        if self.wait >= self.patience:
            control.request_stop(f"eval_loss is on a plateau at {self.best}")


@faulty(
    "what was restored from the checkpoint is reset when the training begins",
    source="Lightning-AI/pytorch-lightning#1463",
)
class ResetsPatienceOnResume(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"stops", "reasons", "patience", "state"}

    def make(self, output_dir):
        return PlateauStop()

    def make_patient(self, output_dir, patience, threshold):
        return PlateauStop(patience, threshold)


class ImprovementStop(TrainerCallback):
    """Stops a training that no longer improves."""

    def __init__(self, patience=3, threshold=0.0):
        self.patience = patience
        self.threshold = threshold
        self.best = None
        self.bad = 0

    def state_dict(self):
        return {"best": self.best, "bad": self.bad}

    def load_state_dict(self, state):
        self.best, self.bad = state["best"], state["bad"]

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.best, self.bad = None, 0

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        value = (metrics or {}).get("eval_loss")
        if value is None:
            return
        if self.best is not None and value >= self.best - self.threshold:
            self.bad += 1
        else:
            self.best, self.bad = value, 0
        if self.bad >= self.patience:
            control.request_stop(f"no improvement in {self.bad} evaluations")


@faulty(
    "NaN counts as an improvement, and after it everything does",
    source="Bjarten/early-stopping-pytorch#28",
)
class NanImproves(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"stops", "reasons", "patience", "state"}

    def make(self, output_dir):
        return ImprovementStop()

    def make_patient(self, output_dir, patience, threshold):
        return ImprovementStop(patience, threshold)


class ProbePredictions(TrainerCallback):
    """Keeps what the model predicts for a few fixed samples, after each evaluation."""

    def __init__(self, probe):
        self.probe = probe
        self.predictions = []

    def on_evaluate(self, args, state, control, model=None, **kwargs):
        if model is None:
            return
        device = next(model.parameters()).device
        model.eval()
        with torch.no_grad():
            self.predictions.append(model(self.probe.to(device)).cpu().tolist())
        model.train()


@faulty(
    "after its own predictions all modules are in training mode, whatever they were in before",
    source="Lightning-AI/pytorch-lightning#2551",
)
class TrainsAgainUnconditionally(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = set()

    def make(self, output_dir):
        return ProbePredictions(torch.zeros(2, 4))


class WeightSketch(TrainerCallback):
    """Keeps a sample of the weights at each log, to draw their distribution over time."""

    def __init__(self, size=16):
        self.size = size
        self.sketches = {}

    def on_log(self, args, state, control, model=None, logs=None, **kwargs):
        if model is None or not state.is_world_process_zero:
            return
        weights = torch.cat([p.detach().flatten().cpu() for p in model.parameters()])
        chosen = torch.randint(weights.numel(), (self.size,))
        self.sketches[state.global_step] = sorted(weights[chosen].tolist())


@faulty("draws from the random generator that the training draws from")
class DrawsFromGlobalGenerator(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = set()

    def make(self, output_dir):
        return WeightSketch()


class GradientPeak(TrainerCallback):
    """Keeps the largest absolute gradient of each step."""

    def __init__(self):
        self.peaks = []

    def on_train_begin(self, args, state, control, **kwargs):
        self.peaks = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        gradients = [p.grad.detach() for p in model.parameters() if p.grad is not None]
        if gradients:
            self.peaks.append(max(gradient.abs_().max().item() for gradient in gradients))


@faulty("takes the absolute value of the gradients in place")
class AbsoluteGradientsInPlace(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = set()

    def make(self, output_dir):
        return GradientPeak()


class ActivationMeter(TrainerCallback):
    """Measures the mean activation of each leaf of the model during a training."""

    def __init__(self):
        self.handles = []
        self.sums = {}
        self.means = {}

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.sums = {}
        for name, module in model.named_modules():
            if not list(module.children()):
                self.handles.append(module.register_forward_hook(self._measure(name)))

    def on_train_end(self, args, state, control, **kwargs):
        self.means = {name: total / count for name, (total, count) in self.sums.items()}
        self.handles.clear()

    def _measure(self, name):
        def hook(module, inputs, output):
            if torch.is_tensor(output):
                total, count = self.sums.get(name, (0.0, 0))
                self.sums[name] = (total + output.detach().mean().item(), count + 1)

        return hook


@faulty("its forward hooks stay on the model after the training")
class LeavesForwardHooks(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = set()

    def make(self, output_dir):
        return ActivationMeter()


class SaveBeforePreemption(TrainerCallback):
    """Asks for a checkpoint when Slurm announces, by SIGUSR1, that the time is nearly up."""

    def __init__(self):
        self.announced = False

    def on_train_begin(self, args, state, control, **kwargs):
        self.announced = False
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGUSR1, self._note)

    def on_step_end(self, args, state, control, **kwargs):
        if self.announced:
            self.announced = False
            control.should_save = True

    def _note(self, number, frame):
        self.announced = True


@faulty(
    "its signal handler stays when the training is over",
    source="NVIDIA-NeMo/Megatron-Bridge#5975",
)
class KeepsSignalHandler(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"steers"}

    def make(self, output_dir):
        return SaveBeforePreemption()


class GradualThaw(TrainerCallback):
    """Trains the last layer alone until step `thaw_at`, and then all of the model."""

    def __init__(self, thaw_at=3):
        self.thaw_at = thaw_at
        self.frozen = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        candidates = list(model.parameters())[:-2]
        self.frozen = [p for p in candidates if p.requires_grad]
        for parameter in self.frozen:
            parameter.requires_grad_(False)

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.thaw_at:
            self._thaw()

    def on_train_end(self, args, state, control, **kwargs):
        self._thaw()

    def _thaw(self):
        for parameter in self.frozen:
            parameter.requires_grad_(True)
        self.frozen = []


@faulty("a training that is resumed behind the step of thawing stays frozen to its end")
class NeverThawsOnResume(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"alters"}

    def make(self, output_dir):
        return GradualThaw()


class SaveEvery(TrainerCallback):
    """Asks for a checkpoint at every `every`-th step, whatever `save_strategy` says."""

    def __init__(self, every=4):
        self.every = every

    def on_step_end(self, args, state, control, **kwargs):
        control.should_save = state.global_step % self.every == 0
        return control


@faulty("takes back the checkpoints that others have asked for at the steps between its own")
class CancelsOthersSaves(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"steers"}

    def make(self, output_dir):
        return SaveEvery()
