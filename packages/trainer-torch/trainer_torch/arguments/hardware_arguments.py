"""The arguments of precision, compilation and memory: their forms, and which exclude others."""

from __future__ import annotations

import json
import warnings
from contextlib import suppress
from typing import Any, Final

_OLD_NAMES: Final = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
"""Names that transformers has replaced, with the new ones."""


def settle_hardware(args: Any) -> None:
    """Check the arguments of precision, compilation and memory, and fill in what follows from them.

    Raises:
        ValueError: One is wrong, or two exclude each other.
    """
    for first, second in (("bf16", "fp16"), ("bf16_full_eval", "fp16_full_eval")):
        if getattr(args, first) and getattr(args, second):
            raise ValueError(f"{first} and {second} are both True. Set only one of them.")
    _settle_checkpointing(args)
    for name in ("torch_compile_backend", "torch_compile_mode"):
        value = getattr(args, name)
        if value is not None and not (isinstance(value, str) and value):
            raise ValueError(f"{name} is {value!r}, but must be a name.")
        args.torch_compile = args.torch_compile or value is not None
    if args.torch_compile and args.torch_compile_backend is None:
        args.torch_compile_backend = "inductor"
    if args.activation_checkpointing and str(args.torch_compile_backend).startswith("eager"):
        # torch 2.13 draws new random numbers when it computes a block a second time.
        raise ValueError(
            f"torch_compile_backend is {args.torch_compile_backend!r}, with which gradients are "
            "wrong if activation_checkpointing is set and there is dropout. Use 'aot_eager'."
        )


def _settle_checkpointing(args: Any) -> None:
    """Give the old names of activation checkpointing and the new ones the same values."""
    for old, new in _OLD_NAMES.items():
        if getattr(args, new) is None and getattr(args, old) is not None:
            message = f"{old} is an old name, which transformers will remove. Use {new}."
            warnings.warn(message, FutureWarning, stacklevel=5)
            setattr(args, new, getattr(args, old))
    options = args.activation_checkpointing_kwargs
    if isinstance(options, str):
        with suppress(ValueError):  # the message below says what it must be
            options = json.loads(options)
    if options is not None and not isinstance(options, dict):
        raise ValueError(
            f"activation_checkpointing_kwargs is {options!r}, but must be a dict, or one as JSON."
        )
    args.activation_checkpointing_kwargs = options
    args.activation_checkpointing = bool(args.activation_checkpointing)
    if options and not args.activation_checkpointing:
        raise ValueError(
            "activation_checkpointing_kwargs is set, but activation_checkpointing is not, so it "
            "has no effect. Set both."
        )
    if options:
        _check_options(options)
    for old, new in _OLD_NAMES.items():
        setattr(args, old, getattr(args, new))


def _check_options(options: dict[str, Any]) -> None:
    every, modules = options.get("every_n_layers", 1), options.get("modules", ["a class"])
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        raise ValueError(
            f"every_n_layers in activation_checkpointing_kwargs is {every!r}, but must be a whole "
            "number of at least 1."
        )
    are_names = isinstance(modules, (list, tuple)) and all(isinstance(one, str) for one in modules)
    if not are_names or not modules:
        raise ValueError(
            f"modules in activation_checkpointing_kwargs is {modules!r}, but must be a list of "
            "names of classes, such as ['Block']."
        )
