"""Finds the module in which a step stops being finite, by repeating the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainer_torch.hardware.seeding import preserved_rng
from trainer_torch.messages import listed
from trainer_torch.model.finite import floating_tensors, tensors_in
from trainer_torch.model.sharding import forget_call
from trainer_torch.run.divergence import copy_buffers, restore_buffers
from trainer_torch.run.training_run import TrainingRun
from trainer_torch.wrapping import is_sharded, plain_name

_OUTPUT = "The first module whose output is not finite is"


LossOf = Callable[[int, Any], Tensor]
"""Adds the gradients of a batch, given its number in the step from 1, and returns its loss."""


def find_culprit(run: TrainingRun, batches: list[Any], loss_of: LossOf) -> str:
    """Repeat a step, and return a sentence that names where it stops being finite.

    Gradients, buffers and random generators are as before afterwards. Processes do not exchange
    gradients meanwhile.

    Args:
        run: The training, before the update of the step.
        batches: The batches of the step.
        loss_of: Repeats a batch.
    """
    if known := _known_before(run, batches):
        return known
    found: list[str] = []
    losses: list[Tensor] = []
    handles: list[Any] = []
    for name, module in run.model.named_modules():
        handles += _watch(plain_name(name) or "the model", module, found)
    try:
        with preserved_rng(), _without_traces(run):
            run.guard.restore_generators()
            losses = [loss_of(number, batch) for number, batch in enumerate(batches, start=1)]
    except Exception as error:  # of the user's code, or of a device without enough memory
        if not found:
            return f"The module is not known, because repeating the step failed: {error!r}."
    finally:
        for handle in handles:
            handle.remove()
    if not _is_finite(losses) and not (found and found[0].startswith(_OUTPUT)):
        return "The outputs of all modules are finite, but the loss made of them is not."
    if found:
        return found[0]
    return (
        "No module was found, because all outputs and gradients were finite when the step was "
        "repeated. Look at code that changes gradients, such as hooks and callbacks, and at code "
        "that gives other results when it is repeated."
    )


def _known_before(run: TrainingRun, batches: list[Any]) -> str:
    """Return a sentence that explains the step without repeating it; empty if there is none."""
    known = ""
    if bad := [name for name, one in run.model.named_parameters() if not _is_finite(one)]:
        known = f"The weights were not finite before this step: {listed(map(plain_name, bad))}."
    elif not _is_finite(batches):
        known = "The batch itself has values that are not finite."
    if is_sharded(run.model):  # either all processes repeat the step, or none does
        return next((one for one in run.world.gather(known) if one), "")
    return known


def _watch(name: str, module: nn.Module, found: list[str]) -> Iterator[Any]:
    """Yield the handles of hooks that add each part of `module` that is not finite to `found`."""
    label = f"{name} ({type(module).__name__})"

    def on_output(module: nn.Module, inputs: Any, output: Any) -> None:
        if not _is_finite(output):
            found.append(f"{_OUTPUT} {label}.")
        for tensor in tensors_in(output):
            if tensor.requires_grad:
                tensor.register_hook(on_gradient)

    def on_gradient(gradient: Tensor) -> None:
        if not _is_finite(gradient):
            found.append(f"The first gradient that is not finite is that of the output of {label}.")

    def on_weight(weight: str) -> Callable[[Tensor], None]:
        def on_gradient(gradient: Tensor) -> None:
            if not _is_finite(gradient):
                found.append(f"The first gradient that is not finite is that of {weight}, {label}.")

        return on_gradient

    yield module.register_forward_hook(on_output)
    for own, parameter in module.named_parameters(recurse=False):
        if parameter.requires_grad:
            yield parameter.register_hook(on_weight(own))


def _is_finite(value: Any) -> bool:
    return all(bool(torch.isfinite(one).all()) for one in floating_tensors(value))


@contextmanager
def _without_traces(run: TrainingRun) -> Iterator[None]:
    """Restore gradients and buffers on exit, and compute without exchange of gradients."""
    model, wrapped = run.model, run.model_wrapped
    gradients = [(one, one.grad) for one in model.parameters()]
    buffers = copy_buffers(model)
    run.model_wrapped = model
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        run.model_wrapped = wrapped
        forget_call(model)  # repeating the step may have failed
        for parameter, gradient in gradients:
            parameter.grad = gradient
        restore_buffers(model, buffers)
