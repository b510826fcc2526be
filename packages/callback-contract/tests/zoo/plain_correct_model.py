"""Callbacks that are correct and look at the model, or change it on purpose."""

import json
from pathlib import Path

import torch

from callback_contract import CallbackContract
from callback_core import TrainerCallback
from zoo.plain_model import FileSuite, SampleCallback, is_torch
from zoo.specimens import correct


@correct("Samples from the model after each evaluation, and leaves it as it was.")
class Sampled(FileSuite):
    __test__ = False
    callback = SampleCallback


class NoisySampleCallback(SampleCallback):
    """Draws its noise from a generator of its own."""

    def __init__(self, path, seed=0):
        super().__init__(path)
        self.generator = torch.Generator().manual_seed(seed)

    def input(self, model):
        noise = torch.randn(self.prompt.shape, generator=self.generator)
        prompt = super().input(model)
        return prompt + 0.1 * noise.to(prompt.device, prompt.dtype)


@correct("Samples with noise from a generator of its own.")
class NoisySampled(FileSuite):
    __test__ = False
    callback = NoisySampleCallback


class GradientNorms(TrainerCallback):
    """Writes the norm of the gradients of each parameter at each step."""

    def __init__(self, path):
        self.path = Path(path)

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if not is_torch(model) or not state.is_world_process_zero:
            return
        norms = {
            name: parameter.grad.detach().norm().item()
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }
        with self.path.open("a") as file:
            file.write(json.dumps({"step": state.global_step, **norms}) + "\n")


@correct("Writes the norms of the gradients, and only looks at them.")
class Gradients(FileSuite):
    __test__ = False
    callback = GradientNorms


class Average(TrainerCallback):
    """Keeps a running average of the weights, and writes it beside the checkpoints.

    It is in files of its own, since JSON has no room for it; a resumed training reads the one of
    its step.
    """

    def __init__(self, directory, decay=0.9):
        self.directory, self.decay = Path(directory), decay
        self.average = None

    def path(self, state):
        return self.directory / f"average-{state.global_step}.pt"

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.average = None
        if is_torch(model):
            values = model.state_dict().items()
            self.average = {name: value.detach().clone() for name, value in values}
            if state.global_step > 0 and self.path(state).exists():
                kept = torch.load(self.path(state), weights_only=True)
                if kept.keys() == self.average.keys():
                    self.average = kept

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if self.average is None or not is_torch(model):
            return
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - self.decay)
                else:
                    self.average[name].copy_(value)

    def on_save(self, args, state, control, **kwargs):
        if self.average is not None and state.is_world_process_zero:
            self.directory.mkdir(parents=True, exist_ok=True)
            torch.save(self.average, self.path(state))

    def on_train_end(self, args, state, control, **kwargs):
        if self.average is not None and state.is_world_process_zero:
            self.directory.mkdir(parents=True, exist_ok=True)
            torch.save(self.average, self.directory / "average.pt")
        self.average = None


@correct("Averages the weights beside the model, and keeps the average in files.")
class Averaged(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return Average(output_dir / "averages")


class Thaw(TrainerCallback):
    """Freezes the first layer for some steps, and puts it back to what it was."""

    def __init__(self, steps=2):
        self.steps = steps
        self.frozen = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.thaw()
        if is_torch(model) and state.global_step < self.steps:
            first = next(model.children(), model)
            self.frozen = [p for p in first.parameters() if p.requires_grad]
            for parameter in self.frozen:
                parameter.requires_grad_(False)

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step >= self.steps:
            self.thaw()

    def on_train_end(self, args, state, control, **kwargs):
        self.thaw()

    def thaw(self):
        for parameter in self.frozen:
            parameter.requires_grad_(True)
        self.frozen = []


@correct("Freezes the first layer for some steps, counted as the loop does.")
class Thawed(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"alters"}

    def make(self, output_dir):
        return Thaw()


class Cooldown(TrainerCallback):
    """Halves the learning rate for the second half of a training; the scheduler is left alone."""

    def __init__(self):
        self.rates = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.rates = None

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        if optimizer is not None and 2 * state.global_step >= state.max_steps > 0:
            self.rates = [group["lr"] for group in optimizer.param_groups]
            for group in optimizer.param_groups:
                group["lr"] /= 2

    def on_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        if self.rates is not None and optimizer is not None:
            for group, rate in zip(optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate
        self.rates = None


@correct("Steps with half the learning rate in the second half, and puts the rate back each time.")
class CooledDown(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"alters"}

    def make(self, output_dir):
        return Cooldown()
