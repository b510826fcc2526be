"""What callbacks change about a model besides its weights: frozen parameters, modes, and groups.

A checkpoint keeps it, because a callback that unfreezes layers or adds a parameter group in the
middle of a training does not do so again when the training is resumed after that.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from torch import nn

from trainer_torch.messages import listed
from trainer_torch.wrapping import plain_name

logger = logging.getLogger(__name__)


def describe(model: nn.Module, optimizer: Any, lr_scheduler: Any) -> dict[str, Any]:
    """Return the structure of a training as JSON can represent it.

    Returns:
        `frozen`: The names of the parameters that require no gradient. `evaluating`: the names of
        the modules in evaluation mode. `groups`: for each parameter group of the optimizer, the
        names of its parameters; `None` for a parameter that is not the model's. `optimizer` and
        `lr_scheduler`: their classes.
    """
    return {
        "frozen": [name for name, one in _parameters(model) if not one.requires_grad],
        "evaluating": [
            plain_name(name) for name, module in model.named_modules() if not module.training
        ],
        "groups": _names_in_groups(model, optimizer),
        "optimizer": _class_name(optimizer),
        "lr_scheduler": _class_name(lr_scheduler),
    }


def describe_options(model: nn.Module, optimizer: Any) -> list[Any]:
    """Return the names of the parameters in each group of `optimizer`, and the group's options."""
    names = _names_in_groups(model, optimizer)
    groups = getattr(optimizer, "param_groups", ())
    options = [
        {name: repr(value) for name, value in group.items() if name != "params"} for group in groups
    ]
    return list(zip(names, options, strict=True))


def check_classes(described: dict[str, Any], optimizer: Any, lr_scheduler: Any) -> None:
    """Check that optimizer and scheduler are of the classes that `describe` returned.

    Raises:
        ValueError: They are not, so that they could not continue from their states.
    """
    for kind, part in (("optimizer", optimizer), ("lr_scheduler", lr_scheduler)):
        if _class_name(part) != described[kind]:
            raise ValueError(
                f"The checkpoint has the state of another {kind}: {described[kind]} instead of "
                f"{_class_name(part)}. Set the same optim and lr_scheduler_type, pass the same "
                "optimizers to the Trainer, or train without resume_from_checkpoint."
            )


def freeze(model: nn.Module, described: dict[str, Any]) -> None:
    """Let those parameters require a gradient that did when `describe` was called.

    A warning names the parameters that change.
    """
    frozen = set(described["frozen"])
    changed = []
    for name, parameter in _parameters(model):
        if parameter.requires_grad == (name in frozen):
            parameter.requires_grad_(name not in frozen)
            changed.append(f"{name} ({'frozen' if name in frozen else 'trained'})")
    if changed:
        logger.warning(
            "Parameters are frozen or trained as in the checkpoint, which changes %d of them: %s.",
            len(changed),
            listed(changed),
        )


def set_modes(model: nn.Module, described: dict[str, Any]) -> None:
    """Put each module into the mode, training or evaluation, of the description."""
    evaluating = set(described["evaluating"])
    for name, module in model.named_modules():
        module.training = plain_name(name) not in evaluating


def regroup(model: nn.Module, optimizer: Any, described: dict[str, Any]) -> None:
    """Give the optimizer the parameter groups that it had when `describe` was called.

    Their options, such as the learning rate, are the optimizer's defaults until its state is
    loaded.

    Raises:
        ValueError: A group has a parameter that is not the model's, or no longer.
    """
    saved, current = described["groups"], _names_in_groups(model, optimizer)
    if saved == current:
        return
    known = dict(_parameters(model, remove_duplicate=False))
    groups = [group["params"] for group in optimizer.param_groups]
    wanted = []
    for number, names in enumerate(saved):
        if number < len(current) and names == current[number]:
            wanted.append(groups[number])
        elif unknown := [name for name in names if name not in known]:
            raise ValueError(
                f"The parameter group {number} of the checkpoint's optimizer cannot be made: it "
                f"has {len(unknown)} parameter(s) that the model does not have"
                f"{'' if None in unknown else f', such as {unknown[0]}'}. Let a callback add the "
                "group in on_train_begin, or pass an optimizer that has it."
            )
        else:
            wanted.append([known[name] for name in names])
    optimizer.param_groups.clear()
    for parameters in wanted:
        optimizer.add_param_group({"params": parameters})


def _names_in_groups(model: nn.Module, optimizer: Any) -> list[list[str | None]]:
    names = {id(parameter): name for name, parameter in _parameters(model)}
    groups = getattr(optimizer, "param_groups", ())
    return [[names.get(id(one)) for one in group["params"]] for group in groups]


def _parameters(model: nn.Module, **options: Any) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters of `model` under the names that they have if no part is compiled."""
    for name, parameter in model.named_parameters(**options):
        yield plain_name(name), parameter


def _class_name(part: Any) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"
