"""`GivenOptimizers`: the optimizer and the scheduler of the user, in one training after another."""

from __future__ import annotations

from copy import deepcopy
from numbers import Real
from typing import Any, Final

from torch import nn
from torch.optim import Optimizer

from callback_core import json_value
from trainer_torch.model.structure import describe, describe_options, regroup

_CHANGING: Final = ("params", "initial_lr", "last_epoch", "fused", "_")
"""How the names of options begin that training changes, or that are none."""


class GivenOptimizers:
    """Tells what the user gave from what a training has created.

    Each training creates its optimizer and its scheduler again. Those that the user gave start in
    the state in which the first training found them, unless the user has changed the optimizer
    since.
    """

    def __init__(self) -> None:
        self._created: list[Any] = []
        self._found: tuple[Any, ...] | None = None  # by the first training
        self._states: list[dict[str, Any]] = []
        self._structure: dict[str, Any] = {}
        self._at_end: list[Any] | None = None

    def note_created(self, *parts: Any) -> None:
        """Note that the user has not given these parts."""
        self._created += parts

    def begin(self, model: nn.Module, optimizer: Any, lr_scheduler: Any) -> tuple[Any, Any]:
        """Return what the user gave of both, in the state of the beginning; else `None`."""
        is_given = [
            all(part is not made for made in self._created) for part in (optimizer, lr_scheduler)
        ]
        self._created.clear()
        given = optimizer if is_given[0] else None, lr_scheduler if is_given[1] else None
        self._renew(model, *(part for part in given if hasattr(part, "load_state_dict")))
        return given

    def note_end(self, model: nn.Module, optimizer: Any) -> None:
        """Note the optimizer at the end of a training, to see whether the user changes it then."""
        self._at_end = describe_options(model, optimizer)

    def options(self) -> dict[str, Any]:
        """Return the options of the optimizer and the scheduler that the user gave, by name.

        They are those before the training, which changes some of them.
        """
        options: dict[str, Any] = {}
        for state in self._states:
            for number, group in enumerate(state.get("param_groups", ())):
                named = {**group, "lr": group.get("initial_lr", group.get("lr"))}
                place = f" of group {number}" if number else ""
                options |= {f"{name}{place}": value for name, value in named.items()}
            options |= {name: value for name, value in state.items() if isinstance(value, Real)}
        return {
            name: json_value(value)
            for name, value in options.items()
            if not name.startswith(_CHANGING)
        }

    def _renew(self, model: nn.Module, *given: Any) -> None:
        """Restore the state in which the first training found `given`, or note that state."""
        optimizer = next((part for part in given if isinstance(part, Optimizer)), None)
        is_same = self._found is not None and [*map(id, given)] == [*map(id, self._found)]
        is_changed = optimizer is not None and describe_options(model, optimizer) != self._at_end
        if not is_same or is_changed:
            self._found = given
            self._states = [deepcopy(part.state_dict()) for part in given]
            self._structure = describe(model, optimizer, None)
            return
        if optimizer is not None:
            regroup(model, optimizer, self._structure)
        for part, state in zip(given, self._states, strict=True):
            part.load_state_dict(deepcopy(state))
