"""The default collator: batches of plain lists and numbers, and of what the model takes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate, get_worker_info

from trainer_torch.messages import listed
from trainer_torch.overrides import parameters_of

logger = logging.getLogger(__name__)

LABELS: Final = "labels"

_OTHER_LABELS: Final = ("label", "label_ids")
"""What transformers' default collator calls `labels` in a batch."""


def default_collator(samples: Sequence[Any]) -> Any:
    """Return a batch of `samples`, as torch's `default_collate` makes it of tensors.

    In samples that are mappings, lists of numbers become tensors first, and so do floating point
    numbers, in torch's default type. As in transformers, token ids as lists then give a tensor of
    shape (batch, length). torch would make a list of tensors for each position, and float64.
    """
    return default_collate([_with_tensors(sample) for sample in samples])


@dataclass(frozen=True)
class Collator:
    """Makes a batch of a list of samples, as `default_collator` does, of some of their items.

    Args:
        taken: The only names of a mapping that a batch has, or `None` for all of them. If a sample
            has none of them, the batch has all.
        renames: Whether the items `label` and `label_ids` are called `labels` in a batch, if these
            are missing.
        told: The names that are left out of batches and that a warning has named.
    """

    taken: frozenset[str] | None = None
    renames: bool = False
    told: set[str] = field(default_factory=set, compare=False)

    def __call__(self, samples: list[Any]) -> Any:
        """Return the batch of `samples`."""
        if not isinstance(samples[0], Mapping):
            return default_collator(samples)
        first = samples[0]
        names = {name: self._name_in_batch(name, first) for name in self._names(first)}
        if list(first) == list(names.values()):
            return default_collator(samples)
        return default_collator([{new: one[old] for old, new in names.items()} for one in samples])

    def _names(self, sample: Mapping[str, Any]) -> list[str]:
        """Return the names in `sample` that the batch has, and warn of those that it leaves out."""
        if self.taken is None:
            return list(sample)
        kept = [name for name in sample if self._name_in_batch(name, sample) in self.taken]
        left_out = [name for name in sample if name not in kept and name not in self.told]
        if not kept:
            return list(sample)
        worker = get_worker_info()
        if left_out and (worker is None or worker.id == 0):
            self.told.update(left_out)
            logger.warning(
                "The model's forward does not take %s, so these columns of the data are left out. "
                "With remove_unused_columns=False, they are passed to it.",
                listed(left_out),
            )
        return kept

    def _name_in_batch(self, name: str, sample: Mapping[str, Any]) -> str:
        return LABELS if self.renames and name in _OTHER_LABELS and LABELS not in sample else name


def collator_for(
    model: nn.Module,
    passes_batches: bool,
    has_loss_function: bool,
    label_names: Sequence[str] | None,
    removes_columns: bool,
    told: set[str],
) -> Collator:
    """Return the collator of a Trainer that was given none.

    Args:
        model: The model.
        passes_batches: Whether the Trainer itself passes each batch to the model, so that items
            that `forward` does not take would be errors.
        has_loss_function: Whether the labels go to a `compute_loss_func`, not to the model.
        label_names: The names of the labels, if they are not `labels`.
        removes_columns: Whether items that `forward` does not take may be left out.
        told: The names of items that a warning has named. Further ones are added to it.
    """
    forward = parameters_of(model.forward)
    if not passes_batches or not (forward.names or forward.takes_any):
        return Collator()
    labels = set(label_names or [LABELS])
    takes_labels = LABELS in (labels if has_loss_function else forward.names)
    renames = takes_labels and not label_names and not forward.names & {*_OTHER_LABELS}
    leaves_out = removes_columns and not forward.takes_any
    return Collator(forward.names | labels if leaves_out else None, renames, told)


def _with_tensors(sample: Any) -> Any:
    if not isinstance(sample, Mapping):
        return sample
    converted = {name: _tensor(value) for name, value in sample.items()}
    is_same = all(converted[name] is value for name, value in sample.items())
    return sample if is_same else converted


def _tensor(value: Any) -> Any:
    """Return a float, or a list of numbers, as a tensor; anything else as it is."""
    if type(value) is float or (isinstance(value, list) and value and _is_numeric(value)):
        try:
            made: Tensor = torch.tensor(value)
        except ValueError:  # its rows differ in length
            return value
        return made
    return value


def _is_numeric(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_numeric, value))
    return isinstance(value, Real)
