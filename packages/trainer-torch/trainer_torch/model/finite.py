"""Tells whether the weights of a model and the state of its optimizer are finite."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainer_torch.wrapping import plain_name


def is_finite(model: nn.Module, optimizer: Any) -> bool:
    """Return whether a training can continue from these weights. Waits for the device.

    A parameter may be neither NaN nor infinite. A buffer or a value in the state of the optimizer
    may be -inf, because masks of attention are, but not NaN or inf.

    Args:
        model: The model, or the part of it that this process has.
        optimizer: Its optimizer, or `None`.
    """
    by_device: dict[torch.device, list[Tensor]] = {}
    for _, verdict in _verdicts(model, optimizer):
        by_device.setdefault(verdict.device, []).append(verdict)
    return all(bool(torch.stack(several).all()) for several in by_device.values())


def parts_not_finite(model: nn.Module, optimizer: Any) -> list[str]:
    """Return the names of what keeps `is_finite` from being true. Waits for the device."""
    bad = [plain_name(name) for name, verdict in _verdicts(model, optimizer) if not verdict]
    return list(dict.fromkeys(bad))


def _verdicts(model: nn.Module, optimizer: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield, by name, whether each part of a training is finite, on its device."""
    names = {id(one): name for name, one in model.named_parameters()}
    for name, parameter in model.named_parameters():
        for one in _numbers([parameter]):
            # The extremes are NaN if any value is, and need no memory, unlike torch.isfinite.
            if one.numel() > 0:
                yield name, torch.isfinite(one.amin()) & torch.isfinite(one.amax())
    others: list[tuple[str, Any]] = list(model.named_buffers())
    state = getattr(optimizer, "state", None) or {}
    for key, value in state.items() if isinstance(state, Mapping) else [(None, state)]:
        name = names.get(id(key), "a parameter that the model does not have")
        others.append((f"the optimizer's state of {name}", value))
    for name, value in others:
        for one in _numbers(tensors_in(value)):
            if one.numel() > 0:
                greatest = one.amax()
                yield name, (greatest == greatest) & (greatest != torch.inf)


def floating_tensors(value: Any) -> list[Tensor]:
    """Return the tensors of floating-point numbers in `value`, without their gradients."""
    return list(_numbers(tensors_in(value)))


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in `value`: a tensor, a container, a data class, or a nest of these."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif is_dataclass(value) and not isinstance(value, type):
        yield from tensors_in(list(vars(value).values()))


def _numbers(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield the values of those tensors that can be NaN, as far as this process has them."""
    for tensor in tensors:
        if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.is_meta:
            continue
        value = tensor.detach()
        if hasattr(value, "to_local"):  # a DTensor
            value = value.to_local()
        if value.layout is torch.sparse_coo:
            value = value.coalesce().values()
        if value.is_complex():
            value = torch.view_as_real(value.resolve_conj())
        yield value.float() if value.element_size() == 1 else value
