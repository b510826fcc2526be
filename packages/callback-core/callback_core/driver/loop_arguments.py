"""`LoopArguments`: what a loop of one's own and its callbacks read from `args`, with defaults."""

from __future__ import annotations

import json
import logging
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Final

from callback_core._json import json_value
from callback_core.arguments import IntervalStrategy, is_greater_better, is_number
from callback_core.spelling import meant_by

logger = logging.getLogger(__name__)

_STRATEGIES: Final = ("logging_strategy", "eval_strategy", "save_strategy")
_FLAGS: Final = (
    "logging_first_step",
    "load_best_model_at_end",
    "greater_is_better",
    "disable_tqdm",
)

_OTHER_NAMES: Final = {
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "n_epochs": "num_train_epochs",
    "max_epochs": "num_train_epochs",
    "accumulate_grad_batches": "gradient_accumulation_steps",
    "accumulation_steps": "gradient_accumulation_steps",
}
"""Names that programs give to arguments, and those that the loop reads."""

_LENGTHS: Final = {"num_train_epochs", "max_steps"}

_NOT_DONE: Final = ("save_total_limit", "eval_on_start")
"""Arguments of transformers that ask for what a loop does not do."""


@dataclass
class LoopArguments:
    """The arguments that a `Loop` and its callbacks read, with transformers' names and defaults.

    `LoopArguments.of` also takes further arguments of the user, which callbacks can read too.

    Args:
        output_dir: The directory to which the run writes.
        run_name: The name of the run, for trackers.
        num_train_epochs: The number of epochs. `max_steps` overrides it.
        max_steps: The number of update steps; -1 means as many as the epochs have.
        gradient_accumulation_steps: Batches in an update step.
        logging_strategy: When the reported values are logged: `no`, `steps` or `epoch`.
        logging_first_step: Whether the first step is logged, whatever the strategy.
        logging_steps: Steps between two logs. A number below 1 is a share of all steps.
        eval_strategy: When the loop evaluates; by default `epoch` if it has a function `evaluate`,
            and else `no`.
        eval_steps: Steps between two evaluations; by default `logging_steps`.
        eval_delay: Steps or epochs, as `eval_strategy` counts, before the first evaluation.
        save_strategy: When the loop saves; by default `steps` if it has a function `save`, and
            else `no`.
        save_steps: Steps between two checkpoints.
        resume_from_checkpoint: The checkpoint to resume from; `True` for the newest one in
            `output_dir`; or `auto` for the newest one if there is one.
        load_best_model_at_end: Whether the best checkpoint is loaded when training ends.
        metric_for_best_model: The metric that decides which model is best; by default `loss` with
            `load_best_model_at_end`, and else none.
        greater_is_better: Whether a greater metric is better; by default `True`, unless its name
            ends in `loss`.
        per_device_train_batch_size: The number of samples in a batch, for callbacks.
        disable_tqdm: Whether to print logs as plain lines, without a bar.

    Raises:
        ValueError: A value is not allowed. Text such as "False" is neither true nor false.
    """

    output_dir: str = "trainer_output"
    run_name: str | None = None
    num_train_epochs: float = 3.0
    max_steps: int = -1
    gradient_accumulation_steps: int = 1
    logging_strategy: str = "steps"
    logging_first_step: bool = False
    logging_steps: float = 500
    eval_strategy: str = "no"
    eval_steps: float | None = None
    eval_delay: float = 0
    save_strategy: str = "no"
    save_steps: float = 500
    resume_from_checkpoint: bool | str | None = None
    load_best_model_at_end: bool = False
    metric_for_best_model: str | None = None
    greater_is_better: bool | None = None
    per_device_train_batch_size: int | None = None
    disable_tqdm: bool = False
    given: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.output_dir = str(self.output_dir)
        for name in _STRATEGIES:
            setattr(self, name, _strategy(name, getattr(self, name)))
        for name, is_allowed in _NUMBERS.items():
            value = getattr(self, name)
            if value is not None and not (is_number(value) and is_allowed(value)):
                raise ValueError(f"{name} is {value!r}. It must be {_DEMANDS[is_allowed]}.")
            if value is not None and value == int(value):
                setattr(self, name, int(value))
        for name in _FLAGS:
            setattr(self, name, _flag(name, getattr(self, name)))
        metric = self.metric_for_best_model
        if not (metric is None or isinstance(metric, str)):
            raise ValueError(f"metric_for_best_model is {metric!r}. It must be the name of one.")
        if self.load_best_model_at_end and self.metric_for_best_model is None:
            self.metric_for_best_model = "loss"
        if self.greater_is_better is None and self.metric_for_best_model is not None:
            self.greater_is_better = is_greater_better(self.metric_for_best_model)
        if self.eval_steps is None:
            self.eval_steps = self.logging_steps

    @classmethod
    def of(cls, args: Any, *, evaluates: bool = False, saves: bool = False) -> LoopArguments:
        """Return the arguments in `args`, with defaults for those that are missing or `None`.

        Args:
            args: A mapping, a `Namespace`, a data class, any object with `to_dict` such as the
                `TrainingArguments` of a trainer, or `None`.
            evaluates: Whether the loop has a function that evaluates.
            saves: Whether the loop has a function that saves.

        Raises:
            TypeError: `args` is something else.
            ValueError: A value is not allowed.
        """
        given = _attributes(args)
        known = {item.name for item in fields(cls)} - {"given"}
        for name in sorted(given.keys() - known):
            if (meant := meant_by(name, known)) and meant not in given:
                logger.warning("The loop does not read %r. Did you mean %r?", name, meant)
        values = {name: given[name] for name in known & given.keys() if given[name] is not None}
        if evaluates:
            values.setdefault("eval_strategy", IntervalStrategy.EPOCH)
        if saves:
            values.setdefault("save_strategy", IntervalStrategy.STEPS)
        found = cls(**values)
        found.given = args.to_dict() if hasattr(args, "to_dict") else given
        for name in given.keys() - known:
            if not hasattr(found, name):  # such as `to_dict`, which callbacks call
                setattr(found, name, given[name])
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments that the user gave, as values that JSON can represent."""
        return {name: json_value(value) for name, value in self.given.items()}

    def to_json_string(self) -> str:
        """Return what `to_dict` returns, as indented JSON."""
        return json.dumps(self.to_dict(), indent=2)


def warn_of_what_a_loop_does_not_do(given: Mapping[str, Any]) -> None:
    """Warn of arguments that programs and other loops use for what they do themselves."""
    for name, meant in _OTHER_NAMES.items():
        instead = _LENGTHS if meant in _LENGTHS else {meant}
        if name in given and instead.isdisjoint(given):
            logger.warning("The loop does not read %r. Did you mean %r?", name, meant)
    for name in _NOT_DONE:
        if given.get(name):
            logger.warning("%s is %r, but a Loop does not do that.", name, given[name])


def _is_positive(value: float) -> bool:
    return value > 0


def _is_not_negative(value: float) -> bool:
    return value >= 0


def _is_interval(value: float) -> bool:
    return 0 < value < 1 or _is_count(value)


def _is_count(value: float) -> bool:
    return value >= 1 and value == int(value)


def _is_count_or_unset(value: float) -> bool:
    return value == -1 or _is_count(value)


_NUMBERS: Final = {
    "num_train_epochs": _is_positive,
    "max_steps": _is_count_or_unset,
    "gradient_accumulation_steps": _is_count,
    "logging_steps": _is_interval,
    "eval_steps": _is_interval,
    "eval_delay": _is_not_negative,
    "save_steps": _is_interval,
}
_DEMANDS: Final = {
    _is_positive: "a number greater than 0",
    _is_not_negative: "a number, 0 or more",
    _is_interval: "a whole number of steps, or a share of all steps below 1",
    _is_count: "a whole number, 1 or more",
    _is_count_or_unset: "a whole number, 1 or more, or -1",
}


def _attributes(args: Any) -> dict[str, Any]:
    """Return the arguments in `args` by name."""
    if args is None:
        return {}
    if isinstance(args, Mapping):
        return {str(name): value for name, value in args.items()}
    if isinstance(args, Namespace):
        return dict(vars(args))
    if is_dataclass(args) and not isinstance(args, type):
        return {item.name: getattr(args, item.name) for item in fields(args)}
    if hasattr(args, "to_dict"):
        return {**args.to_dict(), **vars(args)}
    raise TypeError(
        f"args is a {type(args).__name__}, but must be a dict, a Namespace, a data class, or an "
        "object with to_dict."
    )


def _strategy(name: str, value: Any) -> str:
    """Return the strategy `value`, a string or a member of an enum, as a string."""
    plain = getattr(value, "value", value)
    choices = [strategy.value for strategy in IntervalStrategy]
    if plain not in choices:
        raise ValueError(f"{name} is {value!r}, but must be one of: {', '.join(choices)}.")
    return str(plain)


def _flag(name: str, value: Any) -> bool | None:
    """Return the flag `value`, which may be 0, 1 or of numpy, as a Python one."""
    if value is None or (not isinstance(value, str) and value in (0, 1)):
        return None if value is None else bool(value)
    raise ValueError(f"{name} is {value!r}. It must be True or False.")
