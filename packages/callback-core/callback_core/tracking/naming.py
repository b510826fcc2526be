"""What trackers call the values of a training."""

from __future__ import annotations

from typing import Final

SINGLE_VALUES: Final = (
    "train_runtime",
    "train_samples_per_second",
    "train_steps_per_second",
    "train_loss",
    "total_flos",
    "total_emissions_kg",
    "total_energy_kwh",
)
"""What a training has one of, logged at its end; for a summary rather than a curve."""

_MEASURED: Final = ("_runtime", "_per_second")


def tracked_name(name: str) -> str:
    """Return `name` with what it belongs to before a slash, as transformers rewrites it.

    `eval_loss` is `eval/loss`, `test_loss` is `test/loss`, all else is `train/…`.
    """
    for split in ("eval", "test"):
        if name.startswith(f"{split}_"):
            return f"{split}/{name[len(split) + 1 :]}"
    return f"train/{name}"


def is_measured(name: str) -> bool:
    """Return whether `name` is a measurement of time, which never comes out the same twice."""
    return name.endswith(_MEASURED)
