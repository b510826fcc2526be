"""The names under which trackers show values and trainings."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Final

_SUMMARY: Final = (
    "train_runtime",
    "train_samples_per_second",
    "train_steps_per_second",
    "total_flos",
)
"""What the Trainer logs once, at the end. It belongs in a summary, not in a curve."""

_MEASURED: Final = ("_runtime", "_per_second")


def tracked_name(name: str) -> str:
    """Return `name` as transformers rewrites it: a group, a slash and the rest.

    `eval_loss` becomes `eval/loss`, `test_loss` `test/loss`, and every other name `train/…`.
    """
    for split in ("eval", "test"):
        if name.startswith(f"{split}_"):
            return f"{split}/{name[len(split) + 1 :]}"
    return f"train/{name}"


def once_logged(names: Collection[str]) -> Collection[str]:
    """Return which names in a log belong in a summary, because the Trainer logs them once.

    Its `train_loss` comes with its `train_runtime`. A loop of one's own may log a `train_loss` at
    each epoch, which is a curve.
    """
    return (*_SUMMARY, "train_loss") if "train_runtime" in names else _SUMMARY


def summary_name(tracked: str) -> str:
    """Return the name in a summary of a value with the name `tracked`.

    `train/train_loss` becomes `train_loss`. A name of more parts stays, because another value may
    have the rest of it: `train/eval/loss`.
    """
    group, _, rest = tracked.partition("/")
    return rest if group == "train" and "/" not in rest else tracked


def is_measured(name: str) -> bool:
    """Return whether `name` measures time, so that it never comes out the same twice."""
    return name.endswith(_MEASURED)


class TrainingNumbers:
    """Numbers the trainings that share a run that the user opened, so that their names differ."""

    def __init__(self) -> None:
        self._trainings: dict[Hashable, list[str]] = {}

    def suffix(self, run: Hashable, training: str) -> str:
        """Return `_2` for the second training in `run`, and so on; nothing for the first.

        Args:
            run: The user's run.
            training: `Opening.training`; one that is opened again keeps its number.
        """
        trainings = self._trainings.setdefault(run, [])
        if training not in trainings:
            trainings.append(training)
        number = trainings.index(training) + 1
        return f"_{number}" if number > 1 else ""
