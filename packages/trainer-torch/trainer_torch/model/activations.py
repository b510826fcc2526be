"""Activation checkpointing: blocks compute their activations again in the backward pass."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from trainer_torch.messages import listed
from trainer_torch.wrapping import own_class

logger = logging.getLogger(__name__)

_ENABLE: Final = "{}_checkpointing_enable"
_DISABLE: Final = "{}_checkpointing_disable"
_NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@contextmanager
def checkpointed_activations(model: nn.Module, args: Any) -> Iterator[None]:
    """Checkpoint the activations of the blocks of `model`, if `args` ask for that.

    Names, hooks, gradients and random numbers stay those of the model without it. On exit, the
    model is as before.

    Raises:
        ValueError: No blocks are found, or the model has none of the classes that are named.
    """
    if not args.activation_checkpointing:
        yield
        return
    options = {"use_reentrant": False, **(args.activation_checkpointing_kwargs or {})}
    classes = options.pop("modules", None)
    every_n_layers, offload = options.pop("every_n_layers", 1), options.pop("offload", False)
    # The second is the name that transformers had before 5.23, and that other libraries use.
    own = [kind for kind in ("activation", "gradient") if hasattr(model, _ENABLE.format(kind))]
    if own and classes is None:
        more = {"every_n_layers": every_n_layers, "offload": offload}
        _enable_own(model, own[0], options, more)
        undo: Callable[[], None] = getattr(model, _DISABLE.format(own[0]), lambda: None)
    else:
        blocks = _find_blocks(model, classes)[::every_n_layers]
        for block in blocks:
            block.forward = _Checkpointed(block, options, offload)
        undo = lambda: _restore(blocks)  # noqa: E731
    try:
        yield
    finally:
        undo()


class _Checkpointed:
    """The `forward` of a block, with its activations checkpointed. Copies belong to their block."""

    def __init__(self, block: nn.Module, options: dict[str, Any], offload: bool) -> None:
        self.block = block
        self.forward = block.forward
        self.is_own = "forward" in vars(block)
        self.options = options
        self.offload = offload

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not (self.block.training and torch.is_grad_enabled()):
            return self.forward(*args, **kwargs)
        if not self.offload:
            return self._checkpoint(args, kwargs)
        inputs = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]
        device = inputs[0].device.type if inputs else "cpu"
        with save_on_cpu(pin_memory=device != "cpu", device_type=device):
            return self._checkpoint(args, kwargs)

    def _checkpoint(self, args: Any, kwargs: dict[str, Any]) -> Any:
        options, statistics = dict(self.options), self._statistics()
        if not options["use_reentrant"]:
            if statistics:
                options["context_fn"] = lambda: (nullcontext(), _unchanged(statistics))
            return checkpoint(self.forward, *args, **options, **kwargs)

        def forward(*given: Any) -> Any:  # it takes arguments by position only
            is_second = torch.is_grad_enabled()
            with _unchanged(statistics) if is_second else nullcontext():
                return self.forward(*given, **kwargs)

        return checkpoint(forward, *args, **options)

    def _statistics(self) -> list[Tensor]:
        """Return the buffers of norms that would count a batch a second time."""
        norms = [one for one in self.block.modules() if isinstance(one, _NORMS) and one.training]
        return [buffer for norm in norms for buffer in norm.buffers(recurse=False)]


@contextmanager
def _unchanged(buffers: list[Tensor]) -> Iterator[None]:
    """Restore `buffers` on exit."""
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.data.copy_(value)  # through `data`, because autograd may have saved the buffer


def _restore(blocks: list[nn.Module]) -> None:
    for block in blocks:
        checkpointed = block.forward
        if isinstance(checkpointed, _Checkpointed):
            del block.forward
            if checkpointed.is_own:
                block.forward = checkpointed.forward


def _enable_own(model: nn.Module, kind: str, options: dict[str, Any], more: dict[str, Any]) -> None:
    """Call the model's own method, with those of `more` that differ from their defaults."""
    usual = {"every_n_layers": 1, "offload": False}
    changed = {name: value for name, value in more.items() if value != usual[name]}
    getattr(model, _ENABLE.format(kind))(**{f"{kind}_checkpointing_kwargs": options}, **changed)


def _find_blocks(model: nn.Module, classes: list[str] | None) -> list[nn.Module]:
    """Return the modules of `classes`, outermost only; or else those of the longest list's class.

    Raises:
        ValueError: There are none.
    """
    if classes is None:
        kinds = kinds_in_longest_list(model)
        if not kinds:
            raise ValueError(
                f"activation_checkpointing finds no blocks in {own_class(model).__name__}: it has "
                "no ModuleList or Sequential of modules of one class with parameters. Name the "
                "classes: activation_checkpointing_kwargs={'modules': ['Block']}."
            )
    else:
        kinds = kinds_named(model, classes, "activation_checkpointing_kwargs")
    found = list(outermost(model, kinds))
    names = listed(sorted({kind.__name__ for kind in kinds}))
    logger.info("Activations are checkpointed in %d modules: %s.", len(found), names)
    return found


def kinds_named(model: nn.Module, names: list[str], argument: str) -> set[type]:
    """Return the classes in `model` that have one of `names`, which `argument` gives.

    Raises:
        ValueError: The model has no module of one of them.
    """
    kinds = {own_class(module) for module in model.modules()}
    kinds = {kind for kind in kinds if kind.__name__ in names}
    if missing := sorted(set(names) - {kind.__name__ for kind in kinds}):
        raise ValueError(
            f"{argument} names modules that {own_class(model).__name__} does not have: "
            f"{', '.join(missing)}."
        )
    return kinds


def kinds_in_longest_list(model: nn.Module) -> set[type]:
    """Return the class of the longest list of equal modules; several, if lists are equally long."""
    lengths: dict[type, int] = {}
    for module in model.modules():
        if not isinstance(module, (nn.ModuleList, nn.Sequential)) or len(module) < 2:
            continue
        kinds = {own_class(one) for one in module}
        if len(kinds) == 1 and any(True for _ in module.parameters()):
            kind = kinds.pop()
            lengths[kind] = max(len(module), lengths.get(kind, 0))
    longest = max(lengths.values(), default=0)
    return {kind for kind, length in lengths.items() if length == longest}


def outermost(module: nn.Module, kinds: set[type]) -> Iterator[nn.Module]:
    """Yield the modules of `kinds` within `module` that are in no other of them."""
    for child in module.children():
        if own_class(child) in kinds:
            yield child
        else:
            yield from outermost(child, kinds)
