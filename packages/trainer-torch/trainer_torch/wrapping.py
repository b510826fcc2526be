"""Finds the model inside what wraps it, and the names that its weights have without that."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

logger = logging.getLogger(__name__)

_COMPILED: Final = "_orig_mod"
"""The attribute of a compiled module. Importing its class would take half a second."""

_COMPILED_CALL: Final = "_compiled_call_impl"
"""The attribute that `torch.nn.Module.compile` sets. Copies are without it."""


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside any `torch.compile`, DataParallel and DistributedDataParallel."""
    return list(_layers(model))[-1]


def distributed_part(model: nn.Module) -> DistributedDataParallel | None:
    """Return the DistributedDataParallel that `model` is, or that it wraps, or `None`."""
    layers = (layer for layer in _layers(model) if isinstance(layer, DistributedDataParallel))
    return next(layers, None)


def sharded_modules(model: nn.Module) -> list[Any]:
    """Return the modules of `model` that `fully_shard` has sharded, each before those in it."""
    # Importing the class takes a second. If it was not imported, no module is sharded.
    kind = getattr(sys.modules.get("torch.distributed.fsdp"), "FSDPModule", None)
    return [] if kind is None else [one for one in model.modules() if isinstance(one, kind)]


def is_distributed(tensor: Any) -> bool:
    """Return whether `tensor` is a DTensor: each process has a part or a copy of it."""
    return hasattr(tensor, "to_local") and hasattr(tensor, "device_mesh")


def is_sharded(model: nn.Module) -> bool:
    """Return whether `model` is sharded over processes, by FSDP2 or tensor parallelism."""
    if any(is_distributed(parameter) for parameter in model.parameters()):
        return True
    return bool(sharded_modules(model))  # its parameters may be gathered weights


def own_class(module: nn.Module) -> type:
    """Return the class that `module` had before `fully_shard` gave it another one."""
    kind = getattr(sys.modules.get("torch.distributed.fsdp"), "FSDPModule", None)
    classes = type(module).__mro__
    return classes[classes.index(kind) + 1] if kind in classes else classes[0]


def compile_in_place(model: nn.Module, args: Any) -> None:
    """Compile the model in `model` if `args` ask for it. Its names stay, also those of its weights.

    The compilation takes place when the model is called. If a part is compiled already, a warning
    says so, and nothing is done.
    """
    if not args.torch_compile:
        return
    parts = [name or "the model" for name, part in model.named_modules() if _is_compiled(part)]
    if parts:
        logger.warning(
            "torch_compile does not compile the model again: %s is compiled already.", parts[0]
        )
    else:
        backend = args.torch_compile_backend or "inductor"
        unwrap(model).compile(backend=backend, mode=args.torch_compile_mode)


def plain_name(name: str) -> str:
    """Return the name that a weight or module called `name` has if nothing is compiled."""
    return ".".join(part for part in name.split(".") if part != _COMPILED)


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the state of `model` under the names that it has if no part is compiled."""
    return {plain_name(name): value for name, value in model.state_dict().items()}


def load_plain_state(model: nn.Module, state: Mapping[str, Tensor], **options: Any) -> None:
    """Load a `state` with plain names into `model`.

    Args:
        model: The model. Parts of it may be compiled.
        state: Tensors by plain names.
        options: The options of `torch.nn.Module.load_state_dict`.
    """
    own = {plain_name(name): name for name in model.state_dict()}
    model.load_state_dict({own.get(name, name): value for name, value in state.items()}, **options)


def _is_compiled(module: nn.Module) -> bool:
    return hasattr(module, _COMPILED) or getattr(module, _COMPILED_CALL, None) is not None


def _layers(model: nn.Module) -> Iterator[nn.Module]:
    """Yield `model`, what it wraps, and so on down to the model itself."""
    inner: object = model
    while isinstance(inner, nn.Module):
        yield inner
        is_parallel = isinstance(inner, (DataParallel, DistributedDataParallel))
        inner = inner.module if is_parallel else getattr(inner, _COMPILED, None)
