"""The points that ClearML must have of a training."""

from __future__ import annotations

from trainer_torch import Trainer
from trainer_torch.testing import logged_points

SINGLE = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss")


def curves(trained: Trainer) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """Return the points by plot and curve, with single values in the plot `Summary`."""
    points: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for (name, step), value in logged_points(trained).items():
        plot, _, curve = name.partition("/")
        if curve in SINGLE:
            points["Summary", curve] = [(-(2**31), value)]
        else:
            points.setdefault((plot, curve), []).append((step, value))
    return points
