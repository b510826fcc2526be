"""The random numbers of data: what draws them, and their seeds."""

from __future__ import annotations

import random
from hashlib import blake2b
from typing import Any, Final

import numpy as np
import torch
from numpy.random import mtrand
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

_GENERATORS: Final = (torch.Generator, random.Random, np.random.RandomState, np.random.Generator)
_DATA: Final = (DataLoader, Dataset, Sampler)
_NUMPY: Final = np.random.MT19937(0)
"""Takes the place of numpy's global generator while data is loaded."""


def seed_of(*numbers: int) -> int:
    """Return a seed of 64 bits for `numbers`. Other numbers give an unrelated one."""
    return int.from_bytes(blake2b(repr(numbers).encode(), digest_size=8).digest())


def seed_globals(seed: int) -> None:
    """Seed the generators of Python and numpy, and torch's on the CPU. Others stay as they are."""
    random.seed(seed)
    mtrand.set_bit_generator(_NUMPY)
    np.random.seed(seed % 2**32)  # numpy accepts 32 bits only
    torch.default_generator.manual_seed(seed)


class Apart:
    """A context that restores on exit the generators that `seed_globals` seeds.

    numpy's generator is exchanged rather than copied, which takes a hundredth of the time. It then
    forgets the second of two normal numbers that `numpy.random.randn` draws at once.
    """

    __slots__ = ("_bits", "_cpu", "_python")

    def __enter__(self) -> None:
        """Keep the generators."""
        self._python = random.getstate()
        self._cpu = torch.default_generator.get_state()
        self._bits = mtrand.get_bit_generator()

    def __exit__(self, *error: object) -> None:
        """Restore them."""
        random.setstate(self._python)
        torch.default_generator.set_state(self._cpu)
        mtrand.set_bit_generator(self._bits)


def parts_of(*roots: Any) -> list[Any]:
    """Return `roots`, such as a loader, and what they consist of.

    These are the samplers and the dataset of a loader; and within each part, the attributes and the
    items of lists that are data, samplers, or callables such as transforms.
    """
    parts: list[Any] = []
    seen: set[int] = set()
    found = list(roots)
    while found:
        part = found.pop(0)
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        parts.append(part)
        if any(part is root for root in roots) or isinstance(part, _DATA):
            found += [getattr(part, name, None) for name in ("sampler", "batch_sampler", "dataset")]
        for value in getattr(part, "__dict__", {}).values():
            inner = value if isinstance(value, (list, tuple)) else [value]
            found += [one for one in inner if _may_draw(one)]
    return parts


def seed_generators(parts: list[Any], seed: int) -> None:
    """Seed the generators that are attributes of `parts`, under any name.

    A missing `generator` of a loader or a sampler of torch is made.
    """
    for part in parts:
        if isinstance(part, (DataLoader, Sampler)) and hasattr(part, "generator"):
            part.generator = part.generator or torch.Generator()
    seed_all(generators_of(parts), seed)


def seed_all(generators: list[Any], seed: int) -> None:
    """Seed `generators` of Python, numpy and torch."""
    for generator in generators:
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
        elif isinstance(generator, np.random.Generator):
            bits = generator.bit_generator
            bits.state = type(bits)(seed).state
        else:
            generator.seed(seed % 2**32)


def generators_of(parts: list[Any]) -> list[Any]:
    """Return the generators that are attributes of `parts`, each once."""
    values = (value for part in parts for value in getattr(part, "__dict__", {}).values())
    found = {id(value): value for value in values if isinstance(value, _GENERATORS)}
    return list(found.values())


def tell_epoch(parts: list[Any], epoch: int) -> None:
    """Call `set_epoch` of each of `parts` that has it."""
    for part in parts:
        if hasattr(part, "set_epoch"):
            part.set_epoch(epoch)


def _may_draw(value: Any) -> bool:
    """Return whether `value` may hold a generator: data, a sampler, or an object that is called."""
    return isinstance(value, _DATA) or (
        callable(value)
        and hasattr(value, "__dict__")
        and not isinstance(value, (type, nn.Module, *_GENERATORS))
    )
