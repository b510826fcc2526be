"""Joins the predictions or labels of batches to those of all samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from trainer_torch.data.batches import field_names, map_leaves

PADDING: Final = -100
"""Fills batches up to the longest one, as in transformers. Losses of torch ignore it in labels."""

_IN_NUMPY: Final = (torch.float16, torch.float32, torch.float64)


class NamedPredictions(dict[str, Any]):
    """Several predictions, or labels, by name: arrays of shape (samples, ...)."""

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse to become an array, which would be one of a single object.

        Raises:
            TypeError: Always. It names the predictions.
        """
        raise TypeError(
            f"There are several predictions or labels, so choose one by its name: {list(self)}. "
            "If some of them are not predictions, let the model return them only in training, or "
            "let compute_loss leave them out."
        )


class SeveralPredictions(tuple[Any, ...]):
    """Several predictions: arrays of shape (samples, ...)."""

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse to become an array: metrics would compare all predictions with the same labels.

        Raises:
            TypeError: Always. It names the number of predictions.
        """
        raise TypeError(
            f"There are {len(self)} predictions, so choose one by its index: predictions[0]. If "
            "some of them are not predictions, let the model or compute_loss leave them out."
        )


def to_cpu(value: Any) -> Any:
    """Return `value` with its tensors detached, dense and on the CPU.

    Nested tensors become a list of their samples. A part of a tensor is copied, because it would
    keep the whole tensor in memory.
    """
    return map_leaves(_tensor_to_cpu, value)


def to_numpy(value: Any) -> Any:
    """Return `value` with arrays of numpy for its tensors, which are on the CPU.

    Types that numpy lacks, such as bfloat16, become float32.
    """
    return map_leaves(_leaf_to_numpy, value)


def repeated(loss: float | None, size: int | None) -> Tensor | None:
    """Return the mean loss of a batch once for each of its samples, or `None` without a loss.

    Raises:
        ValueError: The number of samples is unknown.
    """
    if loss is None:
        return None
    if size is None:
        raise ValueError(
            "include_for_metrics names 'loss', but the number of samples in a batch is unknown, so "
            "there is no loss for each of them. Override get_batch_size of the Trainer."
        )
    return torch.full((size,), loss)


def join(batches: Sequence[Any], sizes: Sequence[int | None]) -> Any:
    """Return the predictions or labels of all samples.

    Tensors and arrays become arrays of shape (samples, ...). Shorter batches are padded with
    `PADDING` at the end of each dimension. Lists that hold an item for each sample become one list.
    Mappings and data classes become dicts; other tuples and lists, tuples of their joined items.
    Anything else becomes a list with an item for each batch.

    Args:
        batches: The predictions or labels of each batch, on the CPU.
        sizes: The number of samples in each batch, if it is known.

    Raises:
        ValueError: The batches have different structures, or cannot be padded.
    """
    first = batches[0] if batches else None
    if all(batch is None for batch in batches):
        return None
    if all(isinstance(batch, (Tensor, np.ndarray)) for batch in batches):
        return _join_arrays([_array(batch) for batch in batches])
    if all(isinstance(batch, (tuple, list)) for batch in batches):
        return _join_lists(batches, sizes)
    names = {tuple(_names(batch)) for batch in batches}
    if len({type(batch) for batch in batches}) > 1 or len(names) > 1:
        kinds = sorted({_kind(batch) for batch in batches})
        raise ValueError(
            "The predictions or labels of all batches cannot be joined, because their structures "
            f"differ: {'; '.join(kinds)}. Return the same structure for each batch."
        )
    if _names(first):
        return NamedPredictions(
            {name: join([_item(batch, name) for batch in batches], sizes) for name in _names(first)}
        )
    return list(batches)


def _join_lists(batches: Sequence[Any], sizes: Sequence[int | None]) -> Any:
    if _are_of_samples(batches, sizes):
        return [to_numpy(item) for batch in batches for item in batch]
    lengths = sorted({len(batch) for batch in batches})
    if len(lengths) > 1:
        raise ValueError(
            "The predictions or labels of all batches cannot be joined: they are lists of "
            f"{', '.join(map(str, lengths))} items, which is neither one for each sample nor the "
            "same number for each batch."
        )
    joined = [join(parts, sizes) for parts in zip(*batches, strict=True)]
    first = batches[0]
    if hasattr(first, "_fields"):
        return first._replace(**dict(zip(first._fields, joined, strict=True)))
    return tuple(joined)


def _are_of_samples(batches: Sequence[Any], sizes: Sequence[int | None]) -> bool:
    """Return whether the lists `batches` have an item for each sample, not one for each part."""
    if any(hasattr(batch, "_fields") for batch in batches):
        return False
    items = [item for batch in batches for item in batch]
    if not any(
        isinstance(item, (Tensor, np.ndarray, tuple, list)) or _names(item) for item in items
    ):
        return True  # texts or numbers
    known = [(batch, size) for batch, size in zip(batches, sizes, strict=True) if size is not None]
    if any(len(batch) != size for batch, size in known):
        return False
    if all(_names(item) for item in items) or len({len(batch) for batch in batches}) > 1:
        return True
    # Each part is as long as its batch.
    lengths = {(_length(item), size) for batch, size in known for item in batch}
    differences = {length - size for length, size in lengths if length is not None}
    return len(known) == len(batches) and differences != {0}


def _join_arrays(arrays: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) == 1:
        return np.concatenate(arrays)
    numbers_of_dimensions = {len(shape) for shape in shapes}
    dtypes = sorted({array.dtype.name for array in arrays if array.dtype.kind not in "ifc"})
    if len(numbers_of_dimensions) > 1 or dtypes:
        found = sorted({array.shape for array in arrays})
        why = f"{', '.join(dtypes)} cannot hold {PADDING}" if dtypes else "dimensions differ"
        raise ValueError(
            f"The predictions or labels of all batches cannot be joined. They have the shapes "
            f"{found}, and they cannot be padded: {why}. Let data_collator pad all of them to one "
            "shape."
        )
    longest = np.max([array.shape for array in arrays], axis=0)[1:]
    return np.concatenate([_padded(array, longest) for array in arrays])


def _padded(array: np.ndarray[Any, Any], shape: Any) -> np.ndarray[Any, Any]:
    missing = [(0, 0), *((0, int(n) - m) for n, m in zip(shape, array.shape[1:], strict=True))]
    return np.pad(array, missing, constant_values=PADDING)


def _item(batch: Any, name: str) -> Any:
    return batch[name] if isinstance(batch, Mapping) else getattr(batch, name)


def _names(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return list(value)
    return [] if isinstance(value, tuple) else field_names(value)


def _kind(batch: Any) -> str:
    names = _names(batch)
    return (
        f"{type(batch).__name__} of {', '.join(map(str, names))}" if names else type(batch).__name__
    )


def _length(item: Any) -> int | None:
    if isinstance(item, (Tensor, np.ndarray)):
        return len(item) if item.ndim > 0 else None
    return len(item) if isinstance(item, (tuple, list)) else None


def _array(batch: Tensor | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.atleast_1d(_leaf_to_numpy(batch))


def _leaf_to_numpy(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    is_unknown = leaf.dtype.is_floating_point and leaf.dtype not in _IN_NUMPY  # such as bfloat16
    return leaf.to(torch.float32 if is_unknown else leaf.dtype).numpy(force=True)


def _tensor_to_cpu(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    if leaf.is_nested:
        return [_tensor_to_cpu(sample) for sample in leaf.unbind()]
    dense = leaf.detach() if leaf.layout is torch.strided else leaf.detach().to_dense()
    on_cpu = dense.to("cpu")
    return on_cpu.clone() if on_cpu.untyped_storage().nbytes() > on_cpu.nbytes else on_cpu
