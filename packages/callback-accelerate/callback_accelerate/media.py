"""Turns pictures and tables into the types of the SDKs that take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any


def pictures(
    tracker: str | None, values: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return pictures as the tracker's own type, by name; `None` if it takes no pictures.

    Args:
        tracker: The name of the tracker.
        values: By name, one picture or several.
        options: Passed to that type.
    """
    if tracker == "wandb":
        wandb = import_module("wandb")
        return {
            name: [
                one if isinstance(one, wandb.Image) else wandb.Image(one, **options)
                for one in _each(value)
            ]
            for name, value in values.items()
        }
    if tracker == "mlflow":
        mlflow = import_module("mlflow")
        made = {}
        for name, value in values.items():
            several = _each(value)
            for number, one in enumerate(several):
                is_made = isinstance(one, mlflow.Image)
                key = name if len(several) == 1 else f"{name}/{number}"
                made[key] = one if is_made else mlflow.Image(one, **options)
        return made
    return None


def table(
    tracker: str | None,
    columns: Sequence[str] | None,
    data: Sequence[Sequence[Any]] | None,
    dataframe: Any,
    options: Mapping[str, Any],
) -> Any:
    """Return a table as the tracker's own type; `None` if it takes no tables."""
    if tracker != "wandb":
        return None
    wandb = import_module("wandb")
    rows = [list(row) for row in data] if data is not None else None
    given = {"columns": columns, "data": rows, "dataframe": dataframe}
    return wandb.Table(
        **{name: value for name, value in given.items() if value is not None}, **options
    )


def _each(value: Any) -> Sequence[Any]:
    """Return the pictures in `value`: a list, an array of pictures, or a single picture."""
    if isinstance(value, (list, tuple)):
        return value
    return list(value) if getattr(value, "ndim", 0) == 4 else [value]
