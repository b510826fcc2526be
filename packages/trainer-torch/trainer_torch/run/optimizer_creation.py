"""Creates the optimizer and the learning rate scheduler that the arguments describe."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from trainer_torch.arguments.training_arguments import TrainingArguments
from trainer_torch.optimizers.muon import MuonWithAdamW, hidden_matrices
from trainer_torch.optimizers.optimizer_names import parse_options
from trainer_torch.optimizers.schedules import (
    SCHEDULES,
    Course,
    check_rate,
    has_warmup,
    needs_metric,
)
from trainer_torch.wrapping import is_distributed

_NOT_DECAYED: Final = re.compile(r"bias|layernorm|rmsnorm|(^|[._])norm($|\.)")
_WITHOUT_SPARSE: Final = (AdamW, RMSprop, torch.optim.Adafactor, MuonWithAdamW)


def decay_parameter_names(model: nn.Module) -> list[str]:
    """Return the names of the parameters that are decayed, by the rule of transformers.

    These are all but those of a LayerNorm within the model, and those with `bias`, `layernorm`,
    `rmsnorm` or a part `norm` in their names.
    """
    norms = tuple(
        f"{name}."
        for name, module in model.named_modules(remove_duplicate=False)
        if name and isinstance(module, nn.LayerNorm)
    )
    return [
        name
        for name, _ in model.named_parameters(remove_duplicate=False)
        if not name.startswith(norms) and not _NOT_DECAYED.search(name.lower())
    ]


def optimizer_class(
    args: TrainingArguments, model: nn.Module | None
) -> tuple[type, dict[str, Any]]:
    """Return the class of the optimizer `args.optim`, and its arguments besides the parameters.

    Args:
        args: The arguments.
        model: The model to train. `muon` needs it.

    Raises:
        ValueError: There is no model for `muon`.
    """
    options = parse_options(args.optim, args.optim_args)
    lr: dict[str, Any] = {"lr": args.learning_rate}
    adam = {"betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon}
    if args.optim == "sgd":
        return SGD, lr | options
    if args.optim == "adagrad":
        return Adagrad, lr | options
    if args.optim == "rmsprop":
        return RMSprop, lr | options
    if args.optim == "adafactor":
        # torch scales the rate by the root mean square of a parameter or the second number, if that
        # is greater. The Trainer of transformers does not scale it.
        return torch.optim.Adafactor, lr | {"eps": (None, 1.0)}
    is_fused = model is None or can_be_fused(model)
    if args.optim == "adamw_torch":
        return AdamW, lr | adam
    if args.optim == "adamw_torch_fused":
        return AdamW, lr | adam | ({"fused": True} if is_fused else {})
    if model is None:
        raise ValueError("optim='muon' needs the model, to tell its hidden matrices from the rest.")
    muon = {"muon_lr" if name == "lr" else name: value for name, value in options.items()}
    matrices = list(hidden_matrices(model).values())
    return MuonWithAdamW, lr | adam | muon | {"matrices": matrices, "fused": is_fused or None}


def can_be_fused(model: nn.Module) -> bool:
    """Return whether torch's fused AdamW can train all parameters of `model`."""
    return all(
        one.is_floating_point() and one.device.type in ("cpu", "cuda", "mps", "xpu")
        for one in model.parameters()
        if one.requires_grad
    )


def create_optimizer(
    model: nn.Module,
    decayed: Collection[str],
    weight_decay: float,
    cls: Any,
    options: dict[str, Any],
) -> Optimizer:
    """Return an optimizer for the parameters of `model` that require gradients.

    Args:
        model: The model.
        decayed: The names of the parameters that are decayed.
        weight_decay: Their decay.
        cls: The class of the optimizer. Or, as in transformers, a function without arguments that
            returns a function of the model and `options`, which returns the optimizer.
        options: The arguments for it, besides the parameters. `params` replaces the parameters.

    Raises:
        ValueError: No parameter requires a gradient, or some have sparse gradients, which the
            optimizer does not support.
    """
    trained = [(name, one) for name, one in model.named_parameters() if one.requires_grad]
    if not trained:
        raise ValueError(
            "The model has no parameter that requires a gradient, so there is nothing to train."
        )
    made: Optimizer
    is_class = isinstance(cls, type) and issubclass(cls, Optimizer)
    if not is_class:
        made = cls()(model, **options)
        return made
    if issubclass(cls, _WITHOUT_SPARSE) or (issubclass(cls, Adagrad) and weight_decay):
        _refuse_sparse(model, cls)
    names = set(decayed)
    groups = [
        {"params": [one for name, one in trained if name in names], "weight_decay": weight_decay},
        {"params": [one for name, one in trained if name not in names], "weight_decay": 0.0},
    ]
    options = {"params": [part for group in groups for part in _by_mesh(group)], **options}
    made = cls(options.pop("params"), **options)
    return made


def _by_mesh(group: dict[str, Any]) -> list[dict[str, Any]]:
    """Return `group`, split by mesh if its parameters are sharded over different meshes.

    An optimizer takes steps with all parameters of a group at once, and cannot mix these.
    """
    parts: dict[Any, list[Any]] = {}
    for parameter in group["params"]:
        mesh = parameter.device_mesh if is_distributed(parameter) else None
        parts.setdefault(mesh, []).append(parameter)
    return [{**group, "params": several} for several in parts.values()] or [group]


def _refuse_sparse(model: nn.Module, cls: type) -> None:
    sparse = [
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag))
        and module.sparse
        and module.weight.requires_grad
    ]
    if sparse:
        raise ValueError(
            f"The gradients of {', '.join(sparse) or type(model).__name__} are sparse, which "
            f"{cls.__name__} does not support here. Pass another optimizer, such as "
            "optimizers=(SGD(...), None), or make the module with sparse=False."
        )


class Schedule(LRScheduler):
    """A schedule of one factor for all parameter groups, also if callbacks add or remove some.

    Args:
        optimizer: The optimizer.
        factor: A function of the step and of the learning rate that the factor 1 stands for.
    """

    def __init__(self, optimizer: Optimizer, factor: Callable[[int, float], float]) -> None:
        self._factor = factor
        self.lr = highest_rate(optimizer)
        super().__init__(optimizer)

    def get_lr(self) -> list[Any]:
        """Return the learning rate of each group."""
        groups = self.optimizer.param_groups
        if len(groups) != len(self.base_lrs):
            self.base_lrs = [group.setdefault("initial_lr", group["lr"]) for group in groups]
        factor = self._factor(self.last_epoch, self.lr)
        return [lr * factor for lr in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return the state. The factor is not part of it, because the arguments describe it.

        transformers' schedules are torch's `LambdaLR`, which looks for the states of its functions.
        """
        state = {name: value for name, value in super().state_dict().items() if name != "_factor"}
        return {**state, "lr_lambdas": [None] * len(self.base_lrs)}


def highest_rate(optimizer: Optimizer) -> float:
    """Return the learning rate of `optimizer` for groups that state none, else of the first one."""
    rate = optimizer.defaults.get("lr", optimizer.param_groups[0]["lr"])
    return float(rate.item() if isinstance(rate, Tensor) else rate)


def create_scheduler(
    optimizer: Optimizer,
    args: TrainingArguments,
    num_training_steps: int,
    warn: Callable[[str], None],
) -> LRScheduler:
    """Return the schedule `args.lr_scheduler_type` over `num_training_steps` update steps.

    Args:
        optimizer: The optimizer, whose learning rates are those of the factor 1.
        args: The arguments.
        num_training_steps: The number of update steps.
        warn: Takes warnings of what the schedule does not do.

    Raises:
        ValueError: The options of the schedule are wrong, or do not fit the learning rate.
    """
    name, options = args.lr_scheduler_type, args.lr_scheduler_kwargs or {}
    assert isinstance(options, dict), "the arguments have read it"
    if args.warmup_steps and not has_warmup(name):
        warn(f"warmup_steps has no effect, because the schedule {name!r} has no warm-up.")
    if needs_metric(name):
        made: LRScheduler = SCHEDULES[name](optimizer, **options)
        _warn_of_metric(made, args, warn)
        return made
    check_rate(name, options, highest_rate(optimizer))
    warmup = args.get_warmup_steps(num_training_steps)
    if name == "warmup_stable_decay":
        _warn_of_length(options, warmup, num_training_steps, warn)
    schedule = partial(SCHEDULES[name], **options)
    return Schedule(optimizer, partial(_factor, schedule, warmup, num_training_steps))


def _factor(
    schedule: Callable[[int, Course], float], warmup: int, total: int, step: int, lr: float
) -> float:
    return schedule(step, Course(warmup, total, lr))


def _warn_of_length(
    options: dict[str, Any], warmup: int, total: int, warn: Callable[[str], None]
) -> None:
    decay, stable = options["num_decay_steps"], options.get("num_stable_steps")
    steps = warmup + decay + (max(0, total - warmup - decay) if stable is None else stable)
    if steps != total:
        warn(
            f"The schedule 'warmup_stable_decay' has {steps} steps with its warm-up, but the "
            f"training has {total}. "
            + (
                f"The others have min_lr_ratio, {options.get('min_lr_ratio', 0)}, as their factor."
                if steps < total
                else "So it is not followed as a whole."
            )
        )


def _warn_of_metric(made: Any, args: TrainingArguments, warn: Callable[[str], None]) -> None:
    assert isinstance(made, ReduceLROnPlateau)
    if args.greater_is_better == (made.mode == "min"):
        warn(
            f"The schedule {args.lr_scheduler_type!r} has mode={made.mode!r}, but "
            f"greater_is_better is {args.greater_is_better}. So it lowers the learning rate while "
            f"{args.metric_for_best_model} improves. Set mode in lr_scheduler_kwargs."
        )
    groups = zip(made.optimizer.param_groups, made.min_lrs, strict=True)
    if any(float(group["lr"]) < least for group, least in groups):
        warn(
            f"The schedule {args.lr_scheduler_type!r} never lowers the learning rate, because it "
            f"is below min_lr. Set min_lr in lr_scheduler_kwargs, where it is {made.min_lrs[0]}."
        )
