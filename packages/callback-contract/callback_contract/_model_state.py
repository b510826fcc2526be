"""What a callback must not change in a model, its optimizer and its schedule."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from callback_contract._training import Training


def model_state(training: Training) -> dict[str, Any]:
    """Return what a callback must not change in the model, its optimizer and its schedule."""
    model = training.model
    found: dict[str, Any] = {"its configuration": _configuration(model)}
    if not hasattr(model, "named_modules"):
        own = {n: v for n, v in vars(model).items() if n not in ("training", "config")}
        return found | {f"its {name}": deepcopy(value) for name, value in own.items()}
    found |= {f"the weights {name}": value for name, value in weights_of(training).items()}
    for name, weight in model.named_parameters():
        grad = None if weight.grad is None else weight.grad.detach().tolist()
        found |= {f"the gradient of {name}": grad, f"{name}.requires_grad": weight.requires_grad}
    for name, module in model.named_modules():
        public = {n for n in vars(module) if not n.startswith("_") and n != "training"}
        found[f"the attributes of {name or 'the model'}"] = sorted(public)
        found[f"the modules of {name or 'the model'}"] = [
            (child, id(part)) for child, part in module.named_children()
        ]
    optimizer, schedule = training.learner.optimizer, training.learner.lr_scheduler
    groups = optimizer.param_groups
    found["the optimizer's groups"] = [
        {name: value for name, value in group.items() if name != "params"} for group in groups
    ]
    found["the optimizer's parameters"] = [[id(p) for p in group["params"]] for group in groups]
    found["the optimizer's state"] = _listed(optimizer.state_dict()["state"])
    found["the schedule"] = repr(schedule.state_dict())
    return found


def _listed(state: Any) -> Any:
    """Return a state with a list for each tensor, whose text would take long to make."""
    if isinstance(state, dict):
        return {name: _listed(value) for name, value in state.items()}
    return state.tolist() if hasattr(state, "tolist") else repr(state)


def weights_of(training: Training) -> dict[str, Any]:
    """Return copies of all weights and buffers of the model."""
    model = training.model
    if not hasattr(model, "state_dict"):
        return {"weights": deepcopy(model.weights)}
    return {name: value.tolist() for name, value in model.state_dict().items()}


def modes(training: Training) -> dict[str, bool]:
    """Return for each module of the model whether it is in training mode."""
    model = training.model
    if hasattr(model, "named_modules"):
        return {name or "the model": module.training for name, module in model.named_modules()}
    return {"the model": model.training}


def model_hooks(training: Training) -> dict[str, int]:
    """Return the number of hooks on the model, its weights and its optimizer, by kind."""
    model = training.model
    found: dict[str, int] = {}
    if not hasattr(model, "named_modules"):
        return found
    for name, module in model.named_modules():
        found |= _hook_counts(module, name or "the model")
        found[f"the forward of {name or 'the model'}"] = id(module.__dict__.get("forward"))
    for name, weight in model.named_parameters():
        for kind in ("_backward_hooks", "_post_accumulate_grad_hooks"):
            found[f"{kind} of {name}"] = len(getattr(weight, kind, None) or ())
    return found | _hook_counts(training.learner.optimizer, "the optimizer")


def _hook_counts(owner: Any, name: str) -> dict[str, int]:
    return {
        f"{kind} of {name}": len(hooks)
        for kind, hooks in vars(owner).items()
        if kind.endswith("hooks") and hasattr(hooks, "__len__")
    }


def _configuration(model: Any) -> Any:
    config = getattr(model, "config", None)
    return deepcopy(vars(config)) if hasattr(config, "__dict__") else repr(config)
