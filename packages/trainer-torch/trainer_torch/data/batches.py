"""Batches: passes them to a model and to a device, and finds their labels."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from trainer_torch.wrapping import unwrap

_OTHER_LABELS: Final = frozenset(("label", "label_ids"))
_RENAMED: Final = " Call labels 'labels': only the default collator renames them."


def forward(model: nn.Module, batch: Any, **options: Any) -> Any:
    """Call `model` with `batch`: a mapping by keyword, a tuple or list by position.

    Args:
        model: The model.
        batch: The batch.
        options: Further arguments of the model.

    Raises:
        TypeError: The parameters of `forward` do not fit the batch.
    """
    args: Sequence[Any] = batch if isinstance(batch, (tuple, list)) else (batch,)
    kwargs: Mapping[str, Any] = {}
    if isinstance(batch, Mapping):
        args, kwargs = (), batch
    if isinstance(batch, PackedSequence):  # a named tuple, but one input
        args = (batch,)
    try:
        return model(*args, **kwargs, **options)
    except TypeError:
        _check_parameters(unwrap(model), batch, args, kwargs)
        raise


def to_device(batch: Any, device: torch.device) -> Any:
    """Return `batch` on `device`. Copies from pinned memory are asynchronous.

    Mappings, tuples, lists and data classes keep their types. Other objects that have a method `to`
    are moved by it.
    """

    def move(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device, non_blocking=True)
        moved = value.to(device) if _moves_itself(value) else value
        return value if moved is None else moved  # it may have moved in place

    return map_leaves(move, batch, is_leaf=_moves_itself)


def labels_of(batch: Any, label_names: Sequence[str] | None = None) -> Any:
    """Return the labels in `batch`, or `None` if there are none.

    They are the items or attributes called `labels`. Without such a name, a tuple or list of two or
    more has its labels last.

    Args:
        batch: A batch.
        label_names: The names of the labels instead of `labels`. For several names, the labels are
            a tuple, as in transformers. All of them must be there.
    """
    named = named_labels_of(batch, label_names)
    if named is not None or not isinstance(batch, (tuple, list)) or len(batch) < 2:
        return named
    has_names = hasattr(batch, "_fields")
    return None if has_names and label_names else batch[-1]


def named_labels_of(batch: Any, label_names: Sequence[str] | None) -> Any:
    """Return the labels in `batch` as `labels_of` does, but only those that have a name."""
    found = [_item(batch, name) for name in label_names or ("labels",)]
    if any(label is None for label in found):
        return None
    return found[0] if len(found) == 1 else tuple(found)


def without_labels(batch: Any, label_names: Sequence[str] | None = None) -> Any:
    """Return `batch` without the labels that `labels_of` finds in it, for a model that has no loss.

    Items of a mapping are left out, or the last item of a tuple or list. A single item that is left
    of these is returned itself. Other batches are returned as they are.
    """
    if isinstance(batch, Mapping):
        names = label_names or ("labels",)
        return {name: value for name, value in batch.items() if name not in names}
    if isinstance(batch, (tuple, list)) and not hasattr(batch, "_fields") and len(batch) > 1:
        return batch[0] if len(batch) == 2 else batch[:-1]
    return batch


def describe(value: Any) -> str:
    """Return what a batch or an output consists of, for messages."""
    if isinstance(value, Mapping):
        return f"{_class_of(value)} with {', '.join(map(repr, value)) or 'nothing in it'}"
    if names := field_names(value):
        return f"{_class_of(value)} with {', '.join(map(repr, names))}"
    if isinstance(value, (tuple, list)):
        names = [type(item).__name__ for item in value[:5]]
        more = ", …" if len(value) > 5 else ""
        return f"{_class_of(value)} of {len(value)} ({', '.join(names)}{more})"
    shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
    return f"{_class_of(value)}{shape}"


def _class_of(value: object) -> str:
    """Return the name of the class of `value`, with its article."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOaeiou' else 'a'} {name}"


def kind_of(value: object) -> str:
    """Return what `value` is, for messages: its type, or the class that it is."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    return f"a {name}"


def map_leaves(
    function: Callable[[Any], Any], value: Any, is_leaf: Callable[[Any], bool] = lambda _: False
) -> Any:
    """Return `value` with `function` applied to what its containers hold.

    Containers are mappings, tuples, lists and data classes. They keep their types.

    Args:
        function: Takes whatever is not a container.
        value: Anything.
        is_leaf: Whether a container is passed to `function` as a whole.
    """

    def mapped(item: Any) -> Any:
        return map_leaves(function, item, is_leaf)

    if isinstance(value, (Tensor, PackedSequence)) or is_leaf(value):
        return function(value)
    if isinstance(value, Mapping):
        return _like(value, {name: mapped(item) for name, item in value.items()})
    if isinstance(value, tuple) and hasattr(value, "_replace"):
        named: Any = value
        return named._replace(**dict(zip(named._fields, map(mapped, value), strict=True)))
    if isinstance(value, (tuple, list)):
        items = [mapped(item) for item in value]
        return items if type(value) is list else type(value)(items)
    if names := field_names(value):
        changed = copy.copy(value)
        for name in names:
            object.__setattr__(changed, name, mapped(getattr(value, name)))  # it may be frozen
        return changed
    return function(value)


def field_names(value: Any) -> list[str]:
    """Return the names of the fields of a data class or a named tuple; of others, none."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [field.name for field in dataclasses.fields(value) if hasattr(value, field.name)]
    return list(getattr(value, "_fields", ())) if isinstance(value, tuple) else []


def _moves_itself(value: Any) -> bool:
    return callable(getattr(value, "to", None)) and not isinstance(value, type)


def _like(mapping: Mapping[str, Any], items: dict[str, Any]) -> Any:
    """Return `items` as a mapping of the type of `mapping`, or as a dict if that is not possible.

    As in torch's `default_collate`, a copy is updated, because constructors differ.
    """
    if type(mapping) is dict:
        return items
    try:
        changed: Any = copy.copy(mapping)
        changed.update(items)
    except Exception:  # it cannot be copied, or not be changed
        return items
    return changed


def _item(batch: Any, name: str) -> Any:
    if isinstance(batch, Mapping):
        return batch.get(name)
    return None if isinstance(batch, Tensor) else getattr(batch, name, None)


def _check_parameters(
    model: nn.Module, batch: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    """Raise an error that explains why `batch` cannot be passed to `model`, if it cannot."""
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):  # not written in Python
        return
    called = f"{type(model).__name__}.forward{signature}"
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        if surplus := _surplus(signature, kwargs):
            renamed = _RENAMED if _OTHER_LABELS.intersection(surplus) else ""
            raise TypeError(
                f"{called} has no parameter for {', '.join(map(repr, surplus))} in the batch. "
                "Items are left out only by the default collator, and with remove_unused_columns: "
                "let your data_collator or loader leave out those that the model does not need, or "
                f"give forward a parameter **kwargs.{renamed}"
            ) from None
        raise TypeError(
            f"{called} cannot take a batch, which is {describe(batch)}: {error}. Without a "
            "compute_loss, the model receives the whole batch, labels included, and returns the "
            "loss. For a model that returns predictions, pass compute_loss to the Trainer: a "
            "function of the model and a batch that returns the loss, or the loss and the "
            "predictions."
        ) from None


def _surplus(signature: inspect.Signature, kwargs: Mapping[str, Any]) -> list[str]:
    """Return the items of a batch without which a model could be called, unless it needs labels."""
    taken = {name: value for name, value in kwargs.items() if name in signature.parameters}
    try:
        signature.bind(**taken)
    except TypeError:
        return []
    surplus = [name for name in kwargs if name not in taken]
    return [] if "labels" in surplus else surplus
