"""Notes the steps whose loss or gradient is not finite, without waiting for the device."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from trainer_torch.arguments.training_arguments import TrainingArguments
from trainer_torch.ranks.world import World

logger = logging.getLogger(__name__)

_NEVER: Final = 2**62


class Divergence(NamedTuple):
    """The steps since the last reading whose loss or gradient was not finite.

    Attributes:
        step: The first of them.
        what: What was not finite then: `loss`, `gradient`, or both.
        where: The first module that was not finite, as a sentence; empty if it is not known.
    """

    step: int
    what: tuple[str, ...]
    where: str


class DivergenceGuard:
    """Watches the losses and gradients of a training.

    Args:
        args: Provides `on_non_finite`, `debug` and the device.
        looks_at_each_step: Whether `note` knows at once if a step is finite. Otherwise its notes
            stay on the device until `read`, so that no step waits for it. The default is true with
            `debug`, and on the CPU, where there is nothing to wait for.

    Attributes:
        steps: The number of steps so far that were not finite.
        where: The first module that was not finite, as a sentence, if a step was repeated.
        checkpoint: The newest checkpoint with finite weights.
        rollbacks: How often in a row training has gone back to a checkpoint.
    """

    def __init__(self, args: TrainingArguments, looks_at_each_step: bool | None = None) -> None:
        device = args.device
        if looks_at_each_step is None:
            looks_at_each_step = device.type == "cpu" or bool(args.debug)
        self.looks_at_each_step = looks_at_each_step
        self.steps = 0
        self.where = ""
        self.checkpoint: Path | None = None
        self.rollbacks = 0
        self._skips = args.on_non_finite == "skip"
        self._device = device
        self._notes = _NotesOnHost() if looks_at_each_step else _NotesOnDevice(device)
        self._has_bad_gradient: Tensor | bool = False
        self._generators: list[Tensor] = []
        self._buffers: dict[str, Tensor] = {}
        self._told_of_waiting = False

    def begin_step(self, model: nn.Module) -> None:
        """Keep what repeating or skipping the step will need."""
        if self.looks_at_each_step:
            self._generators = _generators(self._device)
        if self._skips:
            self._buffers = copy_buffers(model)

    def note(self, step: int, loss: Tensor, grad_norm: Tensor | None) -> bool:
        """Note whether the loss and the gradient of a step are finite.

        Args:
            step: The number of the step, from 1.
            loss: The loss of the step, of this process.
            grad_norm: The norm of the gradient, which is the same in all processes; `None` if the
                optimizer itself leaves out gradients that are not finite.

        Returns:
            Whether the gradient, or the loss of a single process, is known not to be finite. It is
            not known if finding out would wait for the device.
        """
        is_skipped_anyway = grad_norm is None
        norm = torch.zeros_like(loss) if grad_norm is None else grad_norm
        bad = self._notes.add(step, loss, norm)
        self._has_bad_gradient = False if is_skipped_anyway else bad
        return self._notes.last_is_known_to_be_bad

    @property
    def has_bad_gradient(self) -> bool:
        """Whether the gradient of the noted step is not finite. Waits for the device."""
        return bool(self._has_bad_gradient)

    def restore_generators(self) -> None:
        """Put torch's generators into the state that they had when the step began."""
        torch.set_rng_state(self._generators[0])
        if self._generators[1:]:
            torch.get_device_module(self._device).set_rng_state(self._generators[1], self._device)

    def update(
        self, optimizer: Optimizer, model: nn.Module, step: Callable[[Optimizer], bool]
    ) -> bool:
        """Let `optimizer` do its step, unless that is to be skipped.

        A skipped step changes neither weights nor buffers nor the state of the optimizer.

        Args:
            optimizer: The optimizer.
            model: The model.
            step: Calls the `step` of the optimizer, and returns whether it has.

        Returns:
            What `step` returned.
        """
        if not self._skips:
            return step(optimizer)
        if self._has_bad_gradient is False:
            is_made = step(optimizer)
            if not is_made:  # the optimizer itself has left the gradient out
                restore_buffers(model, self._buffers)
            return is_made
        if not self.looks_at_each_step and _can_skip_on_device(optimizer):
            is_made = _step_unless(optimizer, torch.as_tensor(self._has_bad_gradient), step)
        else:
            self._tell_of_waiting(optimizer)
            if self.has_bad_gradient:
                _drop_gradients(optimizer)
            is_made = step(optimizer)
        restore_buffers(model, self._buffers, torch.as_tensor(self._has_bad_gradient))
        return is_made

    def read(self, world: World) -> Divergence | None:
        """Return what the steps since the last call have shown in any process.

        Waits for the device, and for the other processes.
        """
        gathered = world.gather((self._notes.take(), self.where))
        by_loss, by_gradient = (min(note[kind] for note, _ in gathered) for kind in (0, 1))
        count = max(note[2] for note, _ in gathered)
        self.where = ""
        self.steps += count
        if not count:
            return None
        step = min(by_loss, by_gradient)
        names = {"loss": by_loss, "gradient": by_gradient}
        what = tuple(name for name, first in names.items() if first == step)
        return Divergence(step, what, next((where for _, where in gathered if where), ""))

    def _tell_of_waiting(self, optimizer: Optimizer) -> None:
        if not self.looks_at_each_step and not self._told_of_waiting:
            self._told_of_waiting = True
            logger.warning(
                "on_non_finite='skip' waits for the device at each step, because %s cannot skip a "
                "step on the device. AdamW(..., fused=True) can.",
                type(optimizer).__name__,
            )


class _NotesOnHost:
    """Notes of steps whose values the host may read.

    Attributes:
        last_is_known_to_be_bad: Whether the last step was not finite.
    """

    def __init__(self) -> None:
        self._bad: list[tuple[int, bool, bool]] = []
        self.last_is_known_to_be_bad = False

    def add(self, step: int, loss: Tensor, grad_norm: Tensor) -> bool:
        """Note a step. Return whether its gradient is not finite."""
        finite = math.isfinite(loss), math.isfinite(grad_norm)
        self.last_is_known_to_be_bad = not all(finite)
        if self.last_is_known_to_be_bad:
            self._bad.append((step, *finite))
        return not finite[1]

    def take(self) -> tuple[int, int, int]:
        """Return what `_NotesOnDevice.take` does."""
        bad, self._bad = self._bad, []
        by_loss = min((step for step, loss, _ in bad if not loss), default=_NEVER)
        by_gradient = min((step for step, _, gradient in bad if not gradient), default=_NEVER)
        return by_loss, by_gradient, len(bad)


class _NotesOnDevice:
    """Notes that stay on the device: a few small operations for each step.

    They count, since the first step noted, the steps that are finite, and those before the first
    one that is not: by loss, by gradient and by both.
    """

    last_is_known_to_be_bad = False

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._begin = self._steps = 0
        self._is_sound = torch.ones(3, device=device)
        self._before = torch.zeros(3, device=device)
        self._finite = torch.zeros(3, device=device)

    def add(self, step: int, loss: Tensor, grad_norm: Tensor) -> Tensor:
        """Note a step. Return whether its gradient is not finite, on the device."""
        if self._steps == 0:
            self._begin = step
        self._steps += 1
        pair = [one.detach().to(self._device, torch.float32) for one in (loss, grad_norm)]
        values = torch.stack([*pair, pair[0] + pair[1]])
        finite = values - values == 0  # fewer operations than torch.isfinite
        self._is_sound.mul_(finite)
        self._before.add_(self._is_sound)
        self._finite.add_(finite)
        return ~finite[1]

    def take(self) -> tuple[int, int, int]:
        """Return the first step that was not finite by loss, by gradient, and how many were not.

        Begins new notes. Waits for the device, unless no step was noted.
        """
        if self._steps == 0:
            return _NEVER, _NEVER, 0
        before, finite = torch.stack([self._before, self._finite]).tolist()
        steps = [_NEVER if one == self._steps else self._begin + int(one) for one in before[:2]]
        count = self._steps - int(finite[2])
        self._steps = 0
        self._is_sound.fill_(1)
        self._before.zero_()
        self._finite.zero_()
        return steps[0], steps[1], count


def _generators(device: torch.device) -> list[Tensor]:
    states = [torch.default_generator.get_state()]
    if device.type != "cpu":
        module: Any = torch.get_device_module(device)
        states.append(module.get_rng_state(device))
    return states


def _can_skip_on_device(optimizer: Optimizer) -> bool:
    # A fused SGD with momentum can too, but leaves its buffers uninitialized if the first step is
    # skipped.
    return isinstance(optimizer, (Adam, AdamW)) and all(
        group.get("fused") for group in optimizer.param_groups
    )


def _step_unless(optimizer: Any, skips: Tensor, step: Callable[[Optimizer], bool]) -> bool:
    """Let a fused optimizer do its step if `skips` is false, as torch's GradScaler does."""
    optimizer.grad_scale, optimizer.found_inf = None, skips.float()
    try:
        return step(optimizer)
    finally:
        del optimizer.grad_scale, optimizer.found_inf


def _drop_gradients(optimizer: Optimizer) -> None:
    """Remove all gradients. An optimizer leaves parameters without a gradient as they are."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def copy_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the buffers of `model`, such as running statistics, by name."""
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def restore_buffers(
    model: nn.Module, copies: Mapping[str, Tensor], where: Tensor | None = None
) -> None:
    """Set the buffers of `model` to `copies`; if `where` is given, only if it is true."""
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            copied = copies.get(name)
            is_expanded = any(stride == 0 for stride in buffer.stride())  # and never changes
            if copied is None or copied.shape != buffer.shape or is_expanded:
                continue
            if where is not None:
                copied = torch.where(where.to(buffer.device), copied, buffer)
            buffer.copy_(copied)
