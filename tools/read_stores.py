"""Print the points in the stores of TensorBoard, MLflow and W&B below the working directory.

A line has the store, the name, the step and the value, with tabs between them.
"""

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[1]


def of_tensorboard() -> Iterator[tuple[str, int, float]]:
    """Yield the scalars of all runs, without those that a resumed training has purged."""
    for folder in sorted({file.parent for file in Path().rglob("events.out*")}):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        events.Reload()
        for name in events.Tags()["scalars"]:
            for event in events.Scalars(name):
                yield name, event.step, event.value


def of_mlflow() -> Iterator[tuple[str, int, float]]:
    """Yield the metrics of all runs in the database."""
    with closing(sqlite3.connect("mlflow.db")) as database:
        yield from database.execute("SELECT key, step, value FROM metrics")


def of_wandb() -> Iterator[tuple[str, int, float]]:
    """Yield the values of all offline runs.

    Each process writes a file of its own, and a resumed run is in the second one from its first
    row. The server takes each row once.
    """
    sys.path.insert(0, str(ROOT / "packages/callback-wandb/tests"))
    import recorded

    for folder in {path.parents[2] for path in Path().rglob("run-*.wandb")}:
        for run in recorded.runs(folder):
            found = {
                (name, row["train/global_step"]): value
                for row in run.rows
                for name, value in row.items()
                if "train/global_step" in row
            }
            for (name, step), value in found.items():
                yield name, step, value


def main() -> None:
    """Print all points."""
    for store, points in (
        ("TensorBoard", of_tensorboard()),
        ("MLflow", of_mlflow()),
        ("W&B", of_wandb()),
    ):
        for name, step, value in points:
            if isinstance(value, (int, float)):
                print(store, name, step, repr(value), sep="\t")


if __name__ == "__main__":
    main()
