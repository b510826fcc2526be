"""The gradients of an update step: clips them, and removes them once the step is done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from trainer_torch.wrapping import is_distributed


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Clip the gradients of `parameters` to `max_norm`, and return the norm that they had before.

    A `max_norm` of 0 does not clip. This does not wait for the device, unless a gradient is sparse.
    The norm of sharded gradients is that of all shards, and every process returns the same one.
    """
    dense: dict[Any, list[nn.Parameter]] = {}  # by mesh; DTensors of several cannot be combined
    sparse = []
    for parameter in parameters:
        gradient: Any = parameter.grad
        if gradient is None:
            continue
        if gradient.layout is torch.strided:
            mesh = gradient.device_mesh if is_distributed(gradient) else None
            dense.setdefault(mesh, []).append(parameter)
        else:
            sparse.append(_sparse_values(parameter, gradient))
    norm = _combined([*_norms(dense), *([get_total_norm(sparse)] if sparse else [])])
    if max_norm > 0:
        for several in dense.values():
            clip_grads_with_norm_(several, max_norm, norm)
        for values in sparse:
            values.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0).to(values.device))
    return norm


def _norms(dense: dict[Any, list[nn.Parameter]]) -> Iterator[Tensor]:
    """Yield the norm of the gradients of each mesh, and that of those that are not sharded."""
    for several in dense.values():
        norm: Any = get_total_norm([one.grad for one in several if one.grad is not None])
        yield norm.full_tensor() if is_distributed(norm) else norm


def _combined(norms: list[Tensor]) -> Tensor:
    """Return the norm of vectors with these `norms`."""
    return norms[0] if len(norms) == 1 else get_total_norm(norms)


def drop_gradients(
    model: nn.Module, optimizer: Any, parameters: Iterable[nn.Parameter] | None = None
) -> None:
    """Remove the gradients of `model`, and of what else `optimizer` trains.

    This does what `zero_grad` of both does, in a fraction of its time. Where the class of the model
    or of the optimizer has a `zero_grad` of its own, that is called too.

    Args:
        model: The model.
        optimizer: The optimizer.
        parameters: The parameters of the model, if they are listed already.
    """
    for parameter in model.parameters() if parameters is None else parameters:
        parameter.grad = None
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None
    if type(model).zero_grad is not nn.Module.zero_grad:
        model.zero_grad()
    if type(optimizer).zero_grad is not Optimizer.zero_grad:
        optimizer.zero_grad()


def _sparse_values(parameter: nn.Parameter, gradient: Tensor) -> Tensor:
    """Return the values of a sparse gradient. Changing them changes the gradient."""
    # A row that several samples use is listed once for each. Only their sum is its gradient.
    parameter.grad = gradient = gradient.coalesce()
    return gradient.values()
