"""The states of callbacks in a checkpoint, in the format that transformers writes and reads.

`TrainerState.stateful_callbacks` maps a class's name to `{"args": ..., "attributes": ...}`, or to a
list of these for several callbacks of the class, in their order. In such a list, `None` stands for
a callback whose state could not be saved.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from callback_core.class_names import has_base_named
from callback_core.failures import isolating
from callback_core.state_file import snapshot

logger = logging.getLogger(__name__)


class ExportableState:
    """An object whose state a checkpoint keeps, like transformers' class of this name.

    Override `state`. A resumed training sets the attributes on the existing object, which keeps the
    arguments that the program passes now. If `state` has no attributes, or if `from_state` is
    overridden, the state is in the arguments: the object then becomes what `from_state` makes of
    them.
    """

    def state(self) -> dict[str, Any]:
        """Return `{"args": arguments of the constructor, "attributes": attributes to set}`."""
        raise NotImplementedError(f"{type(self).__name__} must implement state().")

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Any:
        """Return a new object with the state that `state` returned."""
        made = cls(**state["args"])
        for name, value in state["attributes"].items():
            setattr(made, name, value)
        return made


def has_state(owner: Any) -> bool:
    """Return whether `owner` has `state_dict` and `load_state_dict`, or is an `ExportableState`.

    A method `state` of any other class does not count: many callbacks use that name for themselves.

    Raises:
        TypeError: `owner` has one of the two methods without the other.
    """
    has = {name: callable(getattr(owner, name, None)) for name in ("state_dict", "load_state_dict")}
    if len({*has.values()}) > 1:
        there, missing = sorted(has, key=has.__getitem__, reverse=True)
        raise TypeError(
            f"{type(owner).__name__} has {there} but no {missing}, so its state could be saved "
            "or restored, but not both. Define both, or neither."
        )
    return has["state_dict"] or has_base_named(owner, "ExportableState")


def export_states(owners: Iterable[Any], kept: dict[str, Any]) -> dict[str, Any]:
    """Return the states of `owners` by class name, for a checkpoint.

    Args:
        owners: The callbacks and the control. Those without a state are skipped.
        kept: The states of the last checkpoint. Those that belong to no owner are kept. If the
            state of an isolated callback cannot be saved now, its previous one is kept too.

    Raises:
        TypeError: A state holds a value of a type that JSON does not have; the message says where.
        ValueError: A state contains itself, is nested too deeply, or has an integer with too many
            digits.
    """
    before = {name: _as_list(found) for name, found in kept.items()}
    states: dict[str, list[Any]] = {}
    for owner in filter(has_state, owners):
        name = type(owner).__name__
        found = states.setdefault(name, [])
        previous = before.get(name, [])[len(found) :]
        state = previous[0] if previous else None
        with isolating(owner, "its state could not be saved"):
            state = snapshot(_export(owner), f"The state of {name}")
        found.append(state)
    for name, found in states.items():
        found.extend(before.get(name, [])[len(found) :])
    return {
        **kept,
        **{
            name: found[0] if len(found) == 1 else found
            for name, found in states.items()
            if any(state is not None for state in found)
        },
    }


def restore_states(owners: Iterable[Any], states: dict[str, Any]) -> None:
    """Give each of `owners` its state from `states`, in place and in order.

    A warning names each state without an owner and each owner without a state. Objects of two
    classes with the same name are told apart only by their order.

    Raises:
        ValueError: A state has another format, or its owner refuses it; the message names the
            owner's class.
    """
    left = {name: _as_list(found) for name, found in states.items()}
    without = []
    for owner in filter(has_state, owners):
        name = type(owner).__name__
        state = left[name].pop(0) if left.get(name) else None
        if state is None:
            without.append(name)
        else:
            with isolating(owner, "its state could not be restored"):
                _restore(owner, state)
    unknown = sorted(name for name, found in left.items() if any(found))
    if unknown:
        logger.warning(
            "The checkpoint has states of callbacks that this training does not have. The next "
            "checkpoints keep them: %s.",
            ", ".join(unknown),
        )
    if without:
        logger.warning(
            "The checkpoint has no state of these callbacks, so they start fresh: %s.",
            ", ".join(without),
        )


def _as_list(found: Any) -> list[Any]:
    return list(found) if isinstance(found, list) else [found]


def _export(owner: Any) -> Any:
    if callable(getattr(owner, "state_dict", None)):
        return {"args": {}, "attributes": owner.state_dict()}
    return owner.state()


def _restore(owner: Any, state: Any) -> None:
    cls = f"{type(owner).__module__}.{type(owner).__qualname__}"
    if not isinstance(state, dict) or "attributes" not in state:
        raise ValueError(
            f"The checkpoint's state of {cls} is not "
            f'{{"args": {{…}}, "attributes": {{…}}}}, but {state!r}.'
        )
    try:
        if callable(getattr(owner, "load_state_dict", None)):
            owner.load_state_dict(state["attributes"])
        else:
            _set_state(owner, state)
    except Exception as error:
        raise ValueError(
            f"{cls} could not be restored from its state in the checkpoint: {error!r}"
        ) from error


def _set_state(owner: Any, state: dict[str, Any]) -> None:
    """Give the `ExportableState` `owner` what its `state` returned when it was saved."""
    # transformers makes a new object. The existing one keeps its place among the callbacks, and
    # what it was given since it was made, such as the trainer.
    args, attributes = state.get("args") or {}, state["attributes"] or {}
    if attributes and not _has_own_from_state(owner):
        for name, value in attributes.items():
            setattr(owner, name, value)
        _name_other_arguments(owner, args)
    elif _has_own_from_state(owner) or not _accepts(owner, args):
        for name, value in vars(type(owner).from_state(state)).items():
            if value is not None or not hasattr(owner, name):
                setattr(owner, name, value)


def _has_own_from_state(owner: Any) -> bool:
    """Return whether another class than our or transformers' `ExportableState` has `from_state`."""
    first = next(base for base in type(owner).__mro__ if "from_state" in vars(base))
    return first.__name__ != ExportableState.__name__


def _accepts(owner: Any, args: dict[str, Any]) -> bool:
    """Set the attributes that are called like `args`, and return whether `state` has them now."""
    with suppress(AttributeError):
        for name, value in args.items():
            setattr(owner, name, value)
    return _args_of(owner) == args


def _name_other_arguments(owner: Any, args: dict[str, Any]) -> None:
    """Log which arguments of `owner` differ from `args`, those of the checkpoint."""
    today = _args_of(owner)
    differ = [
        f"{name} is {today[name]!r} and was {value!r}"
        for name, value in args.items()
        if name in today and today[name] != value
    ]
    if differ:
        logger.warning(
            "The arguments of %s differ from the checkpoint's, and the current ones hold: %s.",
            type(owner).__name__,
            ", ".join(differ),
        )


def _args_of(owner: Any) -> dict[str, Any]:
    """Return the arguments in the state of `owner`, as they are read from a file."""
    args: dict[str, Any] = snapshot(owner.state().get("args", {}), type(owner).__name__)
    return args
