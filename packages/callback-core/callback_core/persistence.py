"""The state of callbacks inside a checkpoint, in the shape that transformers writes and reads.

`TrainerState.stateful_callbacks` maps a class's name to `{"args": ..., "attributes": ...}`, or to a
list of these where there are several callbacks of the class, in their order.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from callback_core.failures import costs_what_it_may

logger = logging.getLogger(__name__)


class ExportableState:
    """What has a state to keep, as transformers' class of this name.

    Override `state`. Restoring sets the attributes on the object that is there; `from_state` makes
    a new one, as transformers does.
    """

    def state(self) -> dict[str, Any]:
        """Return `{"args": arguments of the constructor, "attributes": attributes to set}`."""
        raise NotImplementedError(f"{type(self).__name__} must implement state().")

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Any:
        """Return a new object in the state that `state` returned."""
        made = cls(**state["args"])
        for name, value in state["attributes"].items():
            setattr(made, name, value)
        return made


def export_states(owners: Iterable[Any], kept: dict[str, Any]) -> dict[str, Any]:
    """Return the states of `owners` by their class's name.

    Args:
        owners: Callbacks, and the control. Those with a `state_dict` or a `state` have a state.
        kept: States that were there before. What belongs to no owner stays as it is.
    """
    states: dict[str, list[Any]] = {}
    for owner in owners:
        if _has_state(owner):
            with costs_what_it_may(owner, "its state could not be saved"):
                exported = _export(owner)
                states.setdefault(type(owner).__name__, []).append(exported)
    return {
        **kept,
        **{name: found[0] if len(found) == 1 else found for name, found in states.items()},
    }


def restore_states(owners: Iterable[Any], states: dict[str, Any]) -> None:
    """Give each of `owners` its state in `states`, in place and in order.

    A state without an owner and an owner without a state are named in a warning.
    """
    left = {
        name: list(found) if isinstance(found, list) else [found] for name, found in states.items()
    }
    without = []
    for owner in owners:
        if not _has_state(owner):
            continue
        name = type(owner).__name__
        if left.get(name):
            with costs_what_it_may(owner, "its state could not be restored"):
                _restore(owner, left[name].pop(0))
        else:
            without.append(name)
    unknown = sorted(name for name, found in left.items() if found)
    if unknown:
        logger.warning(
            "The checkpoint has states of callbacks that are not there now; they are kept in the "
            "checkpoints to come: %s.",
            ", ".join(unknown),
        )
    if without:
        logger.warning(
            "The checkpoint has no state of these callbacks, which begin anew: %s.",
            ", ".join(without),
        )


def _has_state(owner: Any) -> bool:
    # Of its class: many a callback keeps the trainer's state as its own attribute of that name.
    return hasattr(owner, "state_dict") or callable(getattr(type(owner), "state", None))


def _export(owner: Any) -> dict[str, Any]:
    if hasattr(owner, "state_dict"):
        return {"args": {}, "attributes": owner.state_dict()}
    exported: dict[str, Any] = owner.state()
    return exported


def _restore(owner: Any, state: dict[str, Any]) -> None:
    if hasattr(owner, "load_state_dict"):
        owner.load_state_dict(state["attributes"])
        return
    for name, value in state["attributes"].items():
        setattr(owner, name, value)
