"""Checks that what a Trainer is given can be used: model, arguments, datasets and functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from callback_core import IntervalStrategy, best_metric_key
from trainer_torch.arguments.training_arguments import TrainingArguments
from trainer_torch.data.batches import kind_of
from trainer_torch.data.data_loaders import check_dataset
from trainer_torch.data.metrics import is_metric_over_batches
from trainer_torch.hardware.seeding import set_seed


def check_parts(
    model: object,
    args: object,
    train_dataset: object,
    eval_dataset: object,
    data_collator: object,
    compute_loss: object,
    compute_loss_func: object,
    compute_metrics: object,
    optimizers: Any,
) -> None:
    """Check that the parts of a trainer can be used, and that they fit together.

    Raises:
        TypeError: A part has a wrong type. The message says which and what to pass.
        ValueError: Parts do not fit together. The message says which and what to do.
    """
    args = _check_model_and_args(model, args)
    for name, dataset in [("train_dataset", train_dataset), ("eval_dataset", eval_dataset)]:
        if name == "eval_dataset" and isinstance(dataset, Mapping):
            for key, part in dataset.items():
                check_dataset(f"{name}[{key!r}]", part)
        elif dataset is not None:
            check_dataset(name, dataset)
    _check_function("data_collator", data_collator, ["the list of samples"])
    _check_function("compute_loss", compute_loss, ["the model", "a batch"])
    _check_loss_func(compute_loss_func, compute_loss)
    if not is_metric_over_batches(compute_metrics):
        by_batch = ["compute_result"] if args.batch_eval_metrics else []
        _check_function("compute_metrics", compute_metrics, ["an EvalPrediction"], by_batch)
    _check_evaluation(args, eval_dataset)
    optimizer, lr_scheduler = _check_optimizers(optimizers)
    if lr_scheduler is not None and getattr(lr_scheduler, "optimizer", optimizer) is not optimizer:
        raise ValueError(
            "The scheduler in optimizers belongs to another optimizer than the one beside it. "
            "Pass both: (optimizer, scheduler of that optimizer)."
        )


def make_model(
    model_init: Callable[..., nn.Module], model: object, args: TrainingArguments, trial: Any = None
) -> nn.Module:
    """Seed the generators with `args.seed`, and return a new model of `model_init`.

    Raises:
        TypeError: `model_init` is no function, or does not return a model.
        ValueError: There is a `model` too.
    """
    if model is not None:
        raise ValueError("The Trainer got both a model and a model_init. Pass one of them.")
    if not callable(model_init):
        raise TypeError(f"model_init is {kind_of(model_init)}, but must be a function.")
    set_seed(args.seed)
    takes_trial = bool(inspect.signature(model_init).parameters)
    made = model_init(trial) if takes_trial else model_init()
    if not isinstance(made, nn.Module):
        raise TypeError(f"model_init returned {kind_of(made)}, but must return a torch.nn.Module.")
    return made


def check_initialized(model: nn.Module) -> None:
    """Check that the shapes of all parameters are known, as optimizers and checkpoints need.

    Raises:
        ValueError: `model` has lazy modules that have not been called yet.
    """
    lazy = [name for name, tensor in model.named_parameters() if is_lazy(tensor)]
    lazy += [name for name, tensor in model.named_buffers() if is_lazy(tensor)]
    if lazy:
        raise ValueError(
            f"The shapes of {', '.join(lazy)} are unknown, because lazy modules get them from "
            "their first input. Call the model with a batch before training: model(inputs)."
        )


def check_optimizer(place: str, optimizer: Any) -> None:
    """Check that `optimizer` is one, and one that the loop can use.

    Args:
        place: What it is, for the message.
        optimizer: The optimizer.

    Raises:
        TypeError: It is not an optimizer.
        ValueError: It calls the model itself, by a closure; or it has modes for training and
            evaluation.
    """
    if not hasattr(optimizer, "param_groups"):
        raise TypeError(
            f"{place} is {kind_of(optimizer)}, but must be an optimizer of the model's parameters."
        )
    if all(callable(getattr(optimizer, mode, None)) for mode in ("train", "eval")):
        raise ValueError(
            f"{place} is {kind_of(optimizer)}, which has other weights for evaluations than for "
            "training: its train() and eval() switch them. The Trainer does not call these. Pass "
            "another optimizer."
        )
    _refuse_closure(place, type(optimizer))


def check_optimizer_class(cls_and_kwargs: Any, optimizer: Any) -> None:
    """Check the argument `optimizer_cls_and_kwargs` of the Trainer, beside its `optimizer`.

    Raises:
        TypeError: It is not a pair of a class, or a function, and a dict.
        ValueError: The class calls the model itself, by a closure; or there is an optimizer too.
    """
    if cls_and_kwargs is None:
        return
    is_pair = isinstance(cls_and_kwargs, (tuple, list)) and len(cls_and_kwargs) == 2
    if not is_pair or not callable(cls_and_kwargs[0]) or not isinstance(cls_and_kwargs[1], Mapping):
        raise TypeError(
            f"optimizer_cls_and_kwargs is {cls_and_kwargs!r}, but must be a pair of a class and "
            "its arguments: (SGD, {'lr': 0.1})."
        )
    if optimizer is not None:
        raise ValueError(
            "The Trainer has both optimizer_cls_and_kwargs and an optimizer in optimizers. Pass "
            "one of them."
        )
    _refuse_closure("optimizer_cls_and_kwargs", cls_and_kwargs[0])


def _refuse_closure(place: str, cls: Any) -> None:
    try:
        inspect.signature(cls.step).bind("self")
    except (AttributeError, ValueError):  # it has no step that can be inspected
        return
    except TypeError:
        raise ValueError(
            f"{place} is {cls.__name__}, whose step needs a closure that computes the loss, "
            "perhaps several times. The training loop computes it once. Pass another optimizer."
        ) from None


def _check_loss_func(function: object, compute_loss: object) -> None:
    if function is None:
        return
    if compute_loss is not None:
        raise ValueError(
            "The Trainer got both a compute_loss, a function of the model and a batch, and a "
            "compute_loss_func, a function of the outputs and the labels. Pass one of them."
        )
    if not callable(function) or isinstance(function, type):
        raise TypeError(f"compute_loss_func is {kind_of(function)}, but must be a function.")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # not written in Python
        return
    try:
        signature.bind("outputs", "labels", num_items_in_batch=1)
    except TypeError as error:
        raise TypeError(
            "compute_loss_func is called with the outputs, the labels and num_items_in_batch, but "
            f"its parameters are {signature}: {error}. It must divide the sum of the losses by "
            "num_items_in_batch. For a mean over each batch, pass compute_loss."
        ) from None


def _check_model_and_args(model: object, args: object) -> TrainingArguments:
    if isinstance(args, nn.Module) or isinstance(model, TrainingArguments):
        raise TypeError(
            f"model is {kind_of(model)}, and args is {kind_of(args)}. The order is "
            "Trainer(model, args)."
        )
    if isinstance(model, type):
        raise TypeError(f"model is the class {model.__name__}. Pass an instance of it.")
    if model is None:
        raise TypeError("The Trainer has no model. Pass model or model_init.")
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is {kind_of(model)}, but must be a torch.nn.Module.")
    if isinstance(args, Mapping):
        raise TypeError("args is a dict. Pass TrainingArguments(**args).")
    if not isinstance(args, TrainingArguments):
        raise TypeError(f"args is {kind_of(args)}, but must be trainer_torch.TrainingArguments.")
    return args


def _check_optimizers(optimizers: Any) -> Any:
    if not isinstance(optimizers, (tuple, list)) or len(optimizers) != 2:
        what = kind_of(optimizers)
        if isinstance(optimizers, (tuple, list)):
            what = f"{what} of {len(optimizers)}"
        raise TypeError(
            f"optimizers is {what}, but must be a pair of an optimizer and a scheduler. Either may "
            "be None: (optimizer, None)."
        )
    if optimizers[0] is not None:
        check_optimizer("The first of optimizers", optimizers[0])
    return optimizers


def _check_evaluation(args: TrainingArguments, eval_dataset: object) -> None:
    evaluates = args.eval_strategy != IntervalStrategy.NO or args.eval_on_start
    if evaluates and not _has_data(eval_dataset):
        raise ValueError(
            f"eval_strategy is {args.eval_strategy!r} and eval_on_start {args.eval_on_start}, but "
            "there is no data to evaluate on. Give the Trainer an eval_dataset that is not empty, "
            "or turn both off."
        )
    if isinstance(eval_dataset, Mapping) and args.metric_for_best_model is not None:
        key = best_metric_key(args.metric_for_best_model)
        if not any(key.startswith(f"eval_{name}_") for name in eval_dataset):
            raise ValueError(
                f"metric_for_best_model is {args.metric_for_best_model!r}, but with several "
                "evaluation datasets it must start with the name of one: "
                + ", ".join(f"{name}_{args.metric_for_best_model}" for name in eval_dataset)
            )


def _has_data(dataset: object) -> bool:
    """Return whether `dataset`, or each one in a mapping, exists and is not known to be empty."""
    if isinstance(dataset, Mapping):
        return len(dataset) > 0 and all(_has_data(part) for part in dataset.values())
    return dataset is not None and not (isinstance(dataset, Sized) and len(dataset) == 0)


def _check_function(
    name: str, function: object, arguments: list[str], keywords: Sequence[str] = ()
) -> None:
    """Check that `function`, if there is one, can be called with `arguments` and `keywords`."""
    if function is None:
        return
    of: Any = function if hasattr(function, "__qualname__") else type(function)
    module = getattr(of, "__module__", None) or ""
    if not callable(function) or (isinstance(function, type) and module != "builtins"):
        raise TypeError(f"{name} is {kind_of(function)}, but must be a function.")
    if name == "compute_loss" and module.startswith("torch.nn."):
        raise TypeError(
            f"compute_loss is {of.__name__} of {module}, which takes predictions and labels. Write "
            "a function of the model and a batch that calls the model, and returns what "
            f"{of.__name__} makes of its predictions and the labels."
        )
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # not written in Python
        return
    try:
        signature.bind(*arguments, **dict.fromkeys(keywords))
    except TypeError as error:
        called = " and ".join([*arguments, *keywords])
        raise TypeError(
            f"{name} is called with {called}, but its parameters are {signature}: {error}."
        ) from None
