"""Callbacks that do to the model, its gradients or to random numbers what they should not."""

import copy
import json
import random
import threading
from pathlib import Path

import torch

from callback_contract import CallbackContract
from callback_core import TrainerCallback
from zoo.specimens import faulty


def is_torch(model):
    return isinstance(model, torch.nn.Module)


class FileSuite(CallbackContract):
    """Of callbacks that write to a file."""

    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return self.callback(output_dir / "samples.jsonl")


class SampleCallback(TrainerCallback):
    """Writes what the model says to a fixed input after each evaluation.

    Correct as it stands. The specimens override a step of it.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.prompt = torch.linspace(-1, 1, 8).reshape(2, 4)

    def on_evaluate(self, args, state, control, model=None, **kwargs):
        if state.is_world_process_zero and is_torch(model):
            self.write(state, self.sample(model).tolist())

    def write(self, state, answer):
        with self.path.open("a") as file:
            file.write(json.dumps({"step": state.global_step, "answer": answer}) + "\n")

    def sample(self, model):
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            with torch.no_grad():
                return model(self.input(model))
        finally:
            for module, mode in modes:
                module.training = mode

    def input(self, model):
        parameter = next(model.parameters())
        return self.prompt.to(parameter.device, parameter.dtype)


class StaysInEvalCallback(SampleCallback):
    def sample(self, model):
        model.eval()
        with torch.no_grad():
            return model(self.input(model))


@faulty(
    "The model is left in evaluation mode.",
    source="rohitg00/ai-engineering-from-scratch#206",
)
class LeftInEvaluationMode(FileSuite):
    __test__ = False
    callback = StaysInEvalCallback


class TrainsAllCallback(SampleCallback):
    def sample(self, model):
        model.eval()
        with torch.no_grad():
            answer = model(self.input(model))
        model.train()
        return answer


@faulty("All modules are put to training mode, also those that were kept in evaluation mode.")
class AllInTrainingMode(FileSuite):
    __test__ = False
    callback = TrainsAllCallback


class RandomPromptCallback(SampleCallback):
    def input(self, model):
        return torch.randn_like(super().input(model))


@faulty("The prompt is drawn from torch's global generator, which moves the training's numbers.")
class DrawsFromTheGlobalGenerator(FileSuite):
    __test__ = False
    callback = RandomPromptCallback


class SeededCallback(SampleCallback):
    """Writes samples that can be compared between evaluations, so the noise is the same in each."""

    def input(self, model):
        torch.manual_seed(42)
        prompt = super().input(model)
        return prompt + 0.1 * torch.randn_like(prompt)


@faulty(
    "torch is seeded for samples that are the same, and with it the training.",
    source="d8ahazard/sd_dreambooth_extension#1060",
)
class SeedsTheGlobalGenerator(FileSuite):
    __test__ = False
    callback = SeededCallback


class ChosenSamplesCallback(SampleCallback):
    def input(self, model):
        random.seed(12345)  # the same rows at each evaluation
        rows = random.sample(range(2), 1)
        return super().input(model)[rows]


@faulty(
    "Python's random module is seeded, which the rest of the program draws from.",
    source="wandb/wandb#462",
)
class SeedsPythonsRandom(FileSuite):
    __test__ = False
    callback = ChosenSamplesCallback


class FirstBatchCallback(SampleCallback):
    """Writes how large the inputs of the first batch are, which tells broken preprocessing."""

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        if train_dataloader is None or not state.is_world_process_zero:
            return
        batch = next(iter(train_dataloader), None)
        first = batch[0] if isinstance(batch, (list, tuple)) else batch
        if isinstance(first, torch.Tensor):
            self.write(state, first.float().abs().mean().item())


@faulty("A second iterator over the training's data draws from the generator that shuffles it.")
class PeeksIntoTheData(FileSuite):
    __test__ = False
    callback = FirstBatchCallback


class NoGradCallback(SampleCallback):
    def on_train_end(self, args, state, control, model=None, **kwargs):
        """Write what the trained model says; from here on nothing needs gradients."""
        if state.is_world_process_zero and is_torch(model):
            torch.set_grad_enabled(False)
            self.write(state, self.sample(model).tolist())


@faulty("Gradients are switched off when training ends, for the whole program.")
class GradientsStayOff(FileSuite):
    __test__ = False
    callback = NoGradCallback


class FrozenSampleCallback(SampleCallback):
    def sample(self, model):
        model.requires_grad_(False)
        try:
            return super().sample(model)
        finally:
            model.requires_grad_(True)


@faulty("Parameters are frozen for a sample, and then all are trained, also those that were not.")
class UnfreezesEverything(FileSuite):
    __test__ = False
    callback = FrozenSampleCallback


class SaliencyCallback(SampleCallback):
    """Writes which inputs matter, by the gradients with respect to them."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if not is_torch(model) or not state.is_world_process_zero:
            return
        inputs = self.input(model).clone().requires_grad_()
        model(inputs).sum().backward()
        self.write(state, inputs.grad.abs().mean(0).tolist())

    def on_evaluate(self, args, state, control, **kwargs):
        """It is written at each step."""


@faulty("Its backward pass leaves gradients in the parameters, which the next step adds to.")
class LeavesGradients(FileSuite):
    __test__ = False
    callback = SaliencyCallback


class GradientNormCallback(SampleCallback):
    """Writes the norm of the gradients."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if is_torch(model):
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            if state.is_world_process_zero:
                self.write(state, norm.item())

    def on_evaluate(self, args, state, control, **kwargs):
        """It is written at each step."""


@faulty("The norm is taken by the function that clips, with a limit: gradients are clipped.")
class ClipsToMeasure(FileSuite):
    __test__ = False
    callback = GradientNormCallback


class AveragedModelCallback(TrainerCallback):
    """Writes the running average of the weights beside each checkpoint, for inference."""

    def __init__(self, directory, decay=0.9):
        self.directory, self.decay = Path(directory), decay
        self.average = None

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.average = copy.deepcopy(model.state_dict()) if is_torch(model) else None
        kept = self.directory / f"average-{state.global_step}.pt"
        if self.average is not None and state.global_step > 0 and kept.exists():
            self.average = torch.load(kept, weights_only=True)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if self.average is not None:
            with torch.no_grad():
                for name, value in model.state_dict().items():
                    if value.is_floating_point():
                        self.average[name].lerp_(value, 1 - self.decay)

    def on_save(self, args, state, control, model=None, **kwargs):
        if self.average is not None and state.is_world_process_zero:
            model.load_state_dict(self.average)
            self.directory.mkdir(parents=True, exist_ok=True)
            torch.save(model.state_dict(), self.directory / f"average-{state.global_step}.pt")


@faulty(
    "To save the average it is loaded into the model, which is then trained from there.",
    source="harubaru/waifu-diffusion#31",
)
class TrainsTheAverage(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return AveragedModelCallback(output_dir / "averages")


class BufferedAverageCallback(TrainerCallback):
    """Averages the weights in buffers of the model, so that they are in its checkpoints."""

    def __init__(self, decay=0.9):
        self.decay = decay

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        if is_torch(model):
            for name, parameter in model.named_parameters():
                buffer = f"average_{name.replace('.', '_')}"
                if not hasattr(model, buffer):
                    model.register_buffer(buffer, parameter.detach().clone())

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if is_torch(model):
            for name, parameter in model.named_parameters():
                average = getattr(model, f"average_{name.replace('.', '_')}", None)
                if average is not None:
                    average.lerp_(parameter.detach(), 1 - self.decay)


@faulty("Buffers are added to the model, which can no longer be loaded without this callback.")
class BuffersInTheModel(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return BufferedAverageCallback()


class ActivationsCallback(SampleCallback):
    """Writes the mean activation of each layer, taken by hooks."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.means, self.handles = {}, []
        if is_torch(model):
            for name, module in model.named_modules():
                if not list(module.children()):
                    self.handles.append(module.register_forward_hook(self.noting(name)))

    def noting(self, name):
        def note(module, inputs, output):
            if isinstance(output, torch.Tensor):
                self.means[name] = output.detach().float().mean()

        return note

    def on_step_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self.write(state, {name: mean.item() for name, mean in self.means.items()})
        if state.global_step >= state.max_steps:
            for handle in self.handles:
                handle.remove()

    def on_evaluate(self, args, state, control, **kwargs):
        """It is written at each step."""


@faulty("Hooks are removed at the last step, which a training that is stopped does not come to.")
class HooksOfAStoppedTraining(FileSuite):
    __test__ = False
    callback = ActivationsCallback


class HoldingCallback(SampleCallback):
    """Writes a last sample when it is asked to, also after training."""

    model = None

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.model = model

    def last(self):
        return self.sample(self.model)


@faulty("The model is held on to after the training, and its memory with it.")
class HoldsTheModel(FileSuite):
    __test__ = False
    callback = HoldingCallback


class NoiseCallback(SampleCallback):
    """Writes a histogram of a few weights, in a thread since it is slow."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if is_torch(model) and state.is_world_process_zero:
            weights = torch.cat([p.detach().flatten() for p in model.parameters()]).clone()
            thread = threading.Thread(target=self.work, args=(state.global_step, weights))
            thread.start()
            self.threads = [t for t in getattr(self, "threads", []) if t.is_alive()] + [thread]

    def work(self, step, weights):
        some = weights[torch.randperm(len(weights))[:100]]
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "median": some.median().item()}) + "\n")

    def on_evaluate(self, args, state, control, **kwargs):
        """It is written at each step."""

    def on_train_end(self, args, state, control, **kwargs):
        for thread in self.__dict__.pop("threads", []):
            thread.join()


@faulty("A thread draws from torch's global generator at some time of each step.")
class DrawsInAThread(FileSuite):
    __test__ = False
    callback = NoiseCallback


class TolerantCallback(SampleCallback):
    def sample(self, model):
        """Return what the model says; that it fails costs no training."""
        try:
            return super().sample(model)
        except:  # noqa: E722
            return torch.full((2, 1), torch.nan)


@faulty("Ctrl-C while the model is asked is swallowed with all errors.")
class SwallowsInterrupts(FileSuite):
    __test__ = False
    callback = TolerantCallback


class GradualCallback(TrainerCallback):
    """Freezes the first layer until an epoch begins."""

    def __init__(self, until=1):
        self.until = until

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.set(model, trained=False)

    def on_epoch_begin(self, args, state, control, model=None, **kwargs):
        if round(state.epoch or 0) == self.until:
            self.set(model, trained=True)

    def set(self, model, trained):
        if is_torch(model):
            next(model.children(), model).requires_grad_(trained)


@faulty(
    "Resumed behind the epoch at which a layer is to be trained, it is frozen for ever.",
    source="Lightning-AI/pytorch-lightning#21901",
)
class FrozenAgainOnResume(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"alters"}

    def make(self, output_dir):
        return GradualCallback()


class OwnWarmupCallback(TrainerCallback):
    """Lets the learning rate grow over the first steps."""

    def __init__(self, steps=4):
        self.steps, self.done = steps, 0
        self.rates = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.done, self.rates = 0, None

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        if optimizer is None:
            return
        if self.rates is None:
            self.rates = [group["lr"] for group in optimizer.param_groups]
        if self.done < self.steps:
            self.done += 1
            for group, rate in zip(optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * self.done / self.steps


@faulty("A resumed training is warmed up once more, from a rate that was not warm yet.")
class WarmsUpAgain(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"alters"}

    def make(self, output_dir):
        return OwnWarmupCallback()


class SwappedAverageCallback(TrainerCallback):
    """Evaluates the average of the weights."""

    def __init__(self, decay=0.5):
        self.decay = decay
        self.average, self.trained = {}, None

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.average, self.trained = {}, None

    def on_step_end(self, args, state, control, model=None, **kwargs):
        for name, weight in weights_of(model).items():
            mean = self.average.setdefault(name, weight.detach().clone())
            mean.mul_(self.decay).add_(weight.detach(), alpha=1 - self.decay)

    def on_prediction_step(self, args, state, control, model=None, **kwargs):
        if self.trained is None and self.average:
            self.trained = {name: weight.detach() for name, weight in weights_of(model).items()}
            self.load(model, self.average)

    def on_evaluate(self, args, state, control, model=None, **kwargs):
        if self.trained is not None:
            self.load(model, self.trained)
            self.trained = None

    def load(self, model, weights):
        with torch.no_grad():
            for name, weight in weights_of(model).items():
                weight.copy_(weights[name])


def weights_of(model):
    return dict(model.named_parameters()) if is_torch(model) else {}


@faulty(
    "The trained weights are kept by reference, so the average stays after an evaluation.",
    source="aqlaboratory/openfold#90",
)
class AverageStays(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"alters"}

    def make(self, output_dir):
        return SwappedAverageCallback()


class AnnouncedAverageCallback(TrainerCallback):
    """Has an average of the weights in the model when the loop evaluates, and until the next step."""

    def __init__(self, decay=0.5):
        self.decay = decay
        self.average, self.trained = {}, None

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.average = {}
        self.trained = None

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        for name, weight in weights_of(model).items():
            mean = torch.as_tensor(self.average.get(name, weight.detach().clone()))
            self.average[name] = mean.lerp(weight.detach(), 1 - self.decay)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if control.should_evaluate and self.average:
            self.trained = {n: w.detach().clone() for n, w in weights_of(model).items()}
            self.load(model, self.average)

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if self.trained is not None:
            self.load(model, self.trained)
            self.trained = None

    def load(self, model, weights):
        with torch.no_grad():
            for name, weight in weights_of(model).items():
                weight.copy_(weights[name])

    def state_dict(self):
        return {name: torch.as_tensor(mean).tolist() for name, mean in self.average.items()}

    def load_state_dict(self, state):
        self.average = {name: torch.tensor(mean) for name, mean in state.items()}


@faulty(
    "A checkpoint that is saved after an evaluation holds the average instead of the weights.",
    source="atomistic-machine-learning/schnetpack#785",
)
class AverageInTheCheckpoint(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"alters", "state"}

    def make(self, output_dir):
        return AnnouncedAverageCallback()


class WeightNormCallback(TrainerCallback):
    """Logs the norm of all weights beside the loss."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        norms = [weight.norm() for weight in weights_of(model).values()]
        if control.should_log and norms:
            control.log({"weights": torch.stack(norms).norm()})


@faulty("A logged norm holds the graph of its step, and with it the weights.")
class LogsAGraph(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return WeightNormCallback()
