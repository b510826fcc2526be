"""`number_of_batches`: the length of data that may not know it."""

from __future__ import annotations

from typing import Any


def number_of_batches(dataloader: Any) -> int | None:
    """Return the number of batches in an epoch; `None` if the loader does not know it."""
    try:
        return len(dataloader)
    except (TypeError, NotImplementedError):  # torch's has a __len__ that raises
        return None
