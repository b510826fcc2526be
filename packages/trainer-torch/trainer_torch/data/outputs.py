"""Outputs of a model: finds the loss and the predictions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from numbers import Real
from typing import Any, Final, Self

import torch
from torch import Tensor, nn

from callback_core import scalar
from trainer_torch.data.batches import describe, field_names

ComputeLoss = Callable[..., Any]
"""Takes the model and a batch on its device, and `num_items_in_batch` if it has that parameter.
Returns the loss, or the loss and predictions."""

ComputeLossFunc = Callable[..., Tensor]
"""Takes the outputs of the model, the labels and `num_items_in_batch`. Returns the loss."""

_CACHES: Final = ("past_key_values", "cache_params", "mems")
_INTERNALS: Final = ("hidden_states", "attentions", "encoder_last_hidden_state")


class NamedOutputs(tuple[Any, ...]):
    """Several outputs of a model: a tuple as in transformers, whose items also have names.

    Args:
        items: The outputs by name.
    """

    _fields: tuple[str, ...]  # as in named tuples

    def __new__(cls, items: Mapping[str, Any]) -> Self:
        """Make a tuple of the values of `items`."""
        outputs = super().__new__(cls, items.values())
        outputs._fields = tuple(items)
        return outputs

    def __getitem__(self, key: Any) -> Any:
        """Return the output of a name, or at an index.

        Raises:
            KeyError: There is no output of that name.
        """
        if not isinstance(key, str):
            return super().__getitem__(key)
        if key not in self._fields:
            raise KeyError(f"{key!r} is none of the outputs {list(self._fields)}")
        return super().__getitem__(self._fields.index(key))

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse to become an array: metrics would compare all outputs with the same labels.

        Raises:
            TypeError: Always. It names the outputs.
        """
        raise TypeError(
            f"There are several predictions, so choose one by its name or index: {[*self._fields]}."
            " If some of them are not predictions, name these in ignore_keys, let the model return "
            "them only in training, or let compute_loss leave them out."
        )

    def __reduce__(self) -> Any:
        """Return what pickle makes a copy of."""
        return type(self), (dict(zip(self._fields, self, strict=True)),)

    def _replace(self, **items: Any) -> Self:
        return type(self)(items)

    def keys(self) -> tuple[str, ...]:
        """Return the names, so that `dict` of this has the outputs by name."""
        return self._fields


def split_output(output: Any, ignored: Collection[str] = ()) -> tuple[Tensor | None, Any]:
    """Return the loss and the predictions in what a model or a `compute_loss` returned.

    The loss is the output itself, its first item, `output["loss"]` or `output.loss`, if that is one
    number. The predictions are the rest, or `None` if there is no rest. Of an output with names,
    other losses, caches, hidden states and attentions are not predictions. It may also be the
    second item, after the loss.

    Args:
        output: A tensor, a mapping, a tuple, a list, a data class, or an object with a `loss`.
        ignored: Names of further items that are not predictions.

    Raises:
        ValueError: What is called `loss` is not one number.
    """
    loss = _loss_in(output)
    named = _named(output)
    if named is not None:
        return loss, _named_predictions(named, ignored)
    parts = tuple(output) if isinstance(output, (tuple, list)) else (output,)
    rest = tuple(part for part in parts[loss is not None :] if part is not None)
    if len(rest) != 1:
        return loss, rest or None
    # The whole output of the model beside its loss, as in transformers' `return loss, outputs`.
    if type(rest[0]) is tuple and rest[0] and rest[0][0] is loss:
        return split_output(rest[0], ignored)
    named = _named(rest[0])
    return loss, rest[0] if named is None else _named_predictions(named, ignored)


def ignored_outputs(model: nn.Module) -> Collection[str]:
    """Return the names of outputs that are not predictions according to the model's `config`.

    They are its `keys_to_ignore_at_inference`, as in transformers.
    """
    return getattr(getattr(model, "config", None), "keys_to_ignore_at_inference", None) or ()


def require_loss(output: Any, returned_by: Callable[[], str], batch: Any) -> Tensor:
    """Return the loss in `output`, after checking that it can be trained on.

    Args:
        output: What a model or a `compute_loss` returned for a training batch.
        returned_by: Names the model or function that returned it, for the message.
        batch: The batch, for the message.

    Raises:
        ValueError: There is no loss, or it has no gradient.
    """
    loss = find_loss(output, returned_by, batch)
    if not loss.requires_grad:
        raise ValueError(
            f"The loss that {returned_by()} returned has no gradient: it was detached, converted "
            "to a number, or computed under torch.no_grad()."
        )
    return loss


def find_loss(output: Any, returned_by: Callable[[], str], batch: Any) -> Tensor:
    """Return the loss in `output`.

    Args:
        output: What a model or a `compute_loss` returned for a batch.
        returned_by: Names the model or function that returned it, for the message.
        batch: The batch, for the message.

    Raises:
        ValueError: There is no loss.
    """
    loss = _loss_in(output)
    if loss is None:
        what = f"{describe(output)}, which has no loss" if output is not None else "None"
        raise ValueError(
            f"For a batch, {describe(batch)}, {returned_by()} returned {what}. Return the "
            "loss as a scalar tensor: alone, as the first item of a tuple, as ['loss'] or as "
            ".loss. Or pass compute_loss to the Trainer, a function of the model and a batch."
        )
    return loss


def plain_number(name: str, value: Any) -> Any:
    """Return the Python number in `value`, if it is an array or tensor of one number.

    Args:
        name: The name that the value is logged under, for the message.
        value: Anything. Values without an `item` method are returned as they are.

    Raises:
        TypeError: `value` holds several numbers or none.
    """
    if not hasattr(value, "item"):
        return value
    try:
        return scalar(value)
    except TypeError as error:
        raise TypeError(
            f"{name} is not a single number, and only these are logged: {error}."
        ) from None


def _named(output: Any) -> dict[str, Any] | None:
    """Return the items of `output` by name, or `None` if they have no names."""
    if isinstance(output, (Mapping, NamedOutputs)):
        return dict(output)
    names = field_names(output)
    if isinstance(output, tuple) and "loss" not in names:
        return None  # a named tuple whose loss has another name, if it has one
    if not names and not hasattr(output, "loss"):
        return None
    if not names:
        attributes = [name for name in getattr(output, "__dict__", ()) if not name.startswith("_")]
        names = list(dict.fromkeys([*attributes, "loss", "logits"]))
    return {name: getattr(output, name, None) for name in names}


def _named_predictions(named: Mapping[str, Any], ignored: Collection[str]) -> Any:
    """Return what in `named` is a prediction: the only one itself, several by name, or `None`."""
    predictions = {
        name: value
        for name, value in named.items()
        if value is not None and name not in ignored and _is_prediction(name)
    }
    if len(predictions) > 1:
        return NamedOutputs(predictions)
    return next(iter(predictions.values()), None)


def _is_prediction(name: str) -> bool:
    if {"loss", "losses"} & set(str(name).split("_")):
        return False
    return name not in _CACHES and not str(name).endswith(_INTERNALS)


def _loss_in(output: Any) -> Tensor | None:
    """Return the loss in what a model or a `compute_loss` returned, as `split_output` says."""
    if isinstance(output, Tensor):
        return _loss(output)
    named = output if isinstance(output, Mapping) else _named(output)
    if named is not None:
        return _named_loss(named.get("loss"), output)
    if isinstance(output, (tuple, list)):
        return _loss(output[0]) if output else None
    return _loss(output)


def _loss(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value if value.ndim == 0 else None
    is_number = isinstance(value, Real) and not isinstance(value, (bool, int))
    return torch.tensor(float(value)) if is_number else None


def _named_loss(value: Any, output: Any) -> Tensor | None:
    if value is None:
        return None
    if isinstance(value, Tensor) and value.numel() == 1:
        return value if value.ndim == 0 else value.reshape(())
    loss = _loss(value)
    if loss is None:
        shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
        raise ValueError(
            f"The loss in {describe(output)} is a {type(value).__name__}{shape}, not one number. "
            "Return a scalar tensor, for example the mean."
        )
    return loss
