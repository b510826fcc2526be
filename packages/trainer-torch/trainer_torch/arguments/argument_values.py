"""Each argument by itself: brings its value into one form, and refuses what is not allowed."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
from collections.abc import Mapping
from dataclasses import MISSING, Field
from typing import Any, Final

import numpy as np

from callback_core import IntervalStrategy, is_number
from trainer_torch.addresses import check_address, check_apart, is_address, local_copy, shown
from trainer_torch.arguments.verbosity import LEVELS
from trainer_torch.optimizers.optimizer_names import check_optimizer_name
from trainer_torch.optimizers.schedules import SCHEDULES, check_options

BEST: Final = "best"
"""The `save_strategy` that saves whenever the metric is better."""

_DEBUG_OPTIONS: Final = ("underflow_overflow",)

_WHOLE_NUMBERS: Final = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "ddp_bucket_cap_mb": 1,
    "max_steps": -1,
    "save_total_limit": 1,
    "seed": 0,
    "data_seed": 0,
    "dataloader_num_workers": 0,
    "dataloader_prefetch_factor": 1,
    "ddp_timeout": 1,
    "torch_empty_cache_steps": 1,
}
"""The arguments that are whole numbers, with their lower bounds."""

_NUMBERS: Final = {
    "num_train_epochs": (0.0, math.inf),
    "learning_rate": (0.0, math.inf),
    "weight_decay": (0.0, math.inf),
    "adam_beta1": (0.0, 1.0),
    "adam_beta2": (0.0, 1.0),
    "adam_epsilon": (0.0, math.inf),
    "max_grad_norm": (0.0, math.inf),
    "warmup_steps": (0.0, math.inf),
    "eval_delay": (0.0, math.inf),
    "upload_timeout": (0.0, math.inf),
}
"""The arguments that are numbers, with their inclusive lower and exclusive upper bounds."""

_CHOICES: Final = {
    "on_non_finite": ("warn", "skip", "stop", "rollback"),
    "train_sampling_strategy": ("random", "sequential", "group_by_length"),
    "dataloader_multiprocessing_context": tuple(multiprocessing.get_all_start_methods()),
    "log_level": tuple(LEVELS),
    "log_level_replica": tuple(LEVELS),
    "include_num_input_tokens_seen": ("no", "all", "non_padding"),
}
"""The arguments that are one of some names."""

_FLAGS: Final = (
    *("do_train", "do_eval", "do_predict", "ddp_broadcast_buffers", "ddp_static_graph"),
    "average_tokens_across_devices",
    "eval_on_start",
    "prediction_loss_only",
    "eval_do_concat_batches",
    "batch_eval_metrics",
    "log_on_each_node",
    "skip_memory_metrics",
    "logging_first_step",
    "enable_jit_checkpoint",
    "save_async",
    "save_on_exception",
    "load_best_model_at_end",
    "save_only_model",
    "save_on_each_node",
    "greater_is_better",
    *("use_cpu", "full_determinism", "bf16", "fp16", "bf16_full_eval", "fp16_full_eval", "tf32"),
    *("activation_checkpointing", "gradient_checkpointing", "torch_compile"),
    "auto_find_batch_size",
    "dataloader_drop_last",
    "dataloader_pin_memory",
    "dataloader_persistent_workers",
    "dataloader_in_order",
    "remove_unused_columns",
    "ignore_data_skip",
    "disable_tqdm",
    "ddp_find_unused_parameters",
)
"""The arguments that are true or false."""

_OPTIONAL: Final = (
    "do_eval",
    "dataloader_multiprocessing_context",
    *("ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph"),
    *("save_total_limit", "data_seed", "eval_steps", "dataloader_prefetch_factor"),
    *("greater_is_better", "disable_tqdm", "ddp_find_unused_parameters"),
    *("tf32", "activation_checkpointing", "gradient_checkpointing", "torch_empty_cache_steps"),
)
"""The numbers, flags and choices that may be `None`."""


def settle_values(args: Any) -> None:
    """Check each argument by itself, and bring its value into one form.

    Enums, numbers of numpy and paths become text and numbers of Python, for checkpoints.

    Raises:
        ModuleNotFoundError: An address needs a package that is not installed.
        ValueError: A value is not allowed. The message names the argument, the value and what is
            allowed.
    """
    args.output_dir, args.remote_output_dir = _output(args.output_dir, args.remote_output_dir)
    args.resume_from_checkpoint = _checkpoint(args.resume_from_checkpoint)
    args.report_to = _names(args.report_to)
    if isinstance(args.label_names, str):
        raise ValueError(
            f"label_names is {args.label_names!r}, but must be a list: [{args.label_names!r}]."
        )
    for name in ("eval_strategy", "logging_strategy", "save_strategy"):
        setattr(args, name, _strategy(name, getattr(args, name)))
    args.optim = getattr(args.optim, "value", args.optim)  # transformers has enums
    check_optimizer_name(args.optim, args.optim_args)
    _settle_schedule(args)
    args.debug = _debug_options(args.debug)
    args.include_for_metrics = _included(args.include_for_metrics)
    if isinstance(args.include_num_input_tokens_seen, (bool, np.bool_)):
        args.include_num_input_tokens_seen = "all" if args.include_num_input_tokens_seen else "no"
    for name, choices in _CHOICES.items():
        value = getattr(args, name)
        if value not in choices and not (value is None and name in _OPTIONAL):
            raise ValueError(_one_of(name, value, choices))
    _settle_numbers(args)
    _settle_flags(args)


def _settle_schedule(args: Any) -> None:
    """Check `lr_scheduler_type` and its options, which may be JSON."""
    name = args.lr_scheduler_type = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
    if name not in SCHEDULES:
        raise ValueError(_one_of("lr_scheduler_type", name, SCHEDULES))
    if args.lr_scheduler_kwargs is not None:
        args.lr_scheduler_kwargs = _options("lr_scheduler_kwargs", args.lr_scheduler_kwargs)
    check_options(name, args.lr_scheduler_kwargs or {})


def _settle_numbers(args: Any) -> None:
    """Check the range of all numbers, and convert numpy's to Python's, for checkpoints."""
    for name, least in _WHOLE_NUMBERS.items():
        value = getattr(args, name)
        if value is None and name in _OPTIONAL:
            continue
        if not is_number(value) or value != int(value) or value < least:
            raise ValueError(
                f"{name} is {value!r}, but must be a whole number of at least {least}."
            )
        setattr(args, name, int(value))
    for name, (minimum, limit) in _NUMBERS.items():
        value = getattr(args, name)
        if not is_number(value) or not minimum <= value < limit:
            below = "" if limit == math.inf else f" and below {limit}"
            raise ValueError(
                f"{name} is {value!r}, but must be a number of at least {minimum}{below}."
            )
        setattr(args, name, _float(value))
    for name in ("logging_steps", "eval_steps", "save_steps"):
        steps = getattr(args, name)
        if steps is None and name in _OPTIONAL:
            continue
        if not is_number(steps) or steps <= 0 or (steps > 1 and steps != int(steps)):
            raise ValueError(
                f"{name} is {steps!r}, but must be a whole number of steps, or a fraction of "
                "all steps below 1."
            )
        setattr(args, name, _float(steps) if steps < 1 else int(steps))
    if args.max_steps == 0:
        raise ValueError("max_steps is 0, but must be at least 1, or -1 to use num_train_epochs.")


def _settle_flags(args: Any) -> None:
    """Check what is true or false: a text from a command line, such as "False", is true."""
    for name in _FLAGS:
        value = getattr(args, name)
        if value is None and name in _OPTIONAL:
            continue
        if not isinstance(value, (bool, np.bool_)) and value not in (0, 1):
            raise ValueError(f"{name} is {value!r}, but must be True or False.")
        setattr(args, name, bool(value))


def default_of(item: Field[Any]) -> Any:
    """Return the default of the field of an argument, or `MISSING` if it has none."""
    return item.default if item.default_factory is MISSING else item.default_factory()


def _float(value: Any) -> float:
    """Return `value` as Python's float: 0.07 also for numpy's float32 of that number."""
    return float(str(value)) if isinstance(value, np.generic) else float(value)


def _directory(output_dir: Any) -> str:
    if output_dir is None:
        return "trainer_output"
    if not isinstance(output_dir, (str, os.PathLike)) or not os.fspath(output_dir):
        raise ValueError(f"output_dir is {output_dir!r}, but must name a directory.")
    return os.path.expanduser(os.fspath(output_dir))


def _output(output_dir: Any, remote: Any) -> tuple[str, str | None]:
    """Return the local directory, and the address to which it is uploaded, if any."""
    if is_address(output_dir):
        if remote not in (None, output_dir):
            raise ValueError(
                f"output_dir is the address {shown(output_dir)!r}, but remote_output_dir is "
                f"{shown(str(remote))!r}. Set one of them, or output_dir to a local directory."
            )
        check_address("output_dir", output_dir)
        own, remote = str(local_copy(output_dir)), output_dir
        check_apart(own, remote)
        return own, remote.rstrip("/")
    if remote is None:
        return _directory(output_dir), None
    if not is_address(remote):
        raise ValueError(
            f"remote_output_dir is {remote!r}, but must be an address such as s3://bucket/run."
        )
    check_address("remote_output_dir", remote)
    own = os.path.abspath(_directory(output_dir))
    check_apart(own, remote)
    return own, remote.rstrip("/")


def _checkpoint(resume_from: Any) -> bool | str | None:
    if resume_from is None or isinstance(resume_from, bool):
        return resume_from
    if not isinstance(resume_from, (str, os.PathLike)) or not os.fspath(resume_from):
        raise ValueError(
            f"resume_from_checkpoint is {resume_from!r}, but must be a path, True, False or None."
        )
    if is_address(resume_from):
        check_address("resume_from_checkpoint", str(resume_from))
    return str(os.fspath(resume_from))


def _names(report_to: Any) -> list[str]:
    names = [report_to] if isinstance(report_to, str) else list(report_to or ())
    return [] if names == ["none"] else names


def _options(name: str, value: Any) -> dict[str, Any]:
    """Return the mapping `value`, which may be JSON, as a dict."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"{name} is {value!r}, but must be a dict, or JSON: {error}") from None
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is {value!r}, but must be a dict, or JSON of one.")
    return dict(value)


def _included(names: Any) -> list[str]:
    """Return what `include_for_metrics` names, as a list."""
    included = [names] if isinstance(names, str) else list(names or ())
    for name in included:
        if name not in ("inputs", "loss"):
            raise ValueError(_one_of("include_for_metrics", name, ("inputs", "loss")))
    return included


def _strategy(name: str, value: str) -> str:
    """Return the strategy `value`, a string or a member of an enum, as a string."""
    choices = [strategy.value for strategy in IntervalStrategy]
    if name == "save_strategy":
        choices.append(BEST)
    plain = getattr(value, "value", value)
    if plain not in choices:
        raise ValueError(_one_of(name, value, choices))
    return str(plain)


def _debug_options(value: Any) -> list[str]:
    words = value.split() if isinstance(value, str) else list(value or ())
    options = [str(getattr(word, "value", word)) for word in words]
    for option in options:
        if option not in _DEBUG_OPTIONS:
            raise ValueError(f"{_one_of('debug', option, _DEBUG_OPTIONS)} The default is none.")
    return options


def _one_of(name: str, value: object, choices: Any) -> str:
    return f"{name} is {value!r}, but must be one of: {', '.join(choices)}."
