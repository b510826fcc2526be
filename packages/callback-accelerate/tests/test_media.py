from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import wandb

from callback_accelerate.media import pictures, table

PIXELS = np.zeros((2, 3, 4), dtype=np.uint8)


def test_wandb_gets_a_list_of_its_pictures() -> None:
    made = pictures("wandb", {"samples": [PIXELS, wandb.Image(PIXELS)]}, {"caption": "a"})
    assert made is not None
    assert [type(one) for one in made["samples"]] == [wandb.Image] * 2


def test_an_array_with_a_fourth_axis_is_several_pictures() -> None:
    made = pictures("mlflow", {"samples": np.stack([PIXELS, PIXELS])}, {})
    assert made is not None
    assert {name: type(one) for name, one in made.items()} == {
        "samples/0": mlflow.Image,
        "samples/1": mlflow.Image,
    }


def test_a_single_picture_keeps_its_name() -> None:
    assert list(pictures("mlflow", {"sample": PIXELS}, {}) or ()) == ["sample"]


def test_wandb_gets_a_table(tmp_path: Path) -> None:
    made = table("wandb", ["a", "b"], [(1, 2), (3, 4)], None, {})
    assert made.columns == ["a", "b"]
    assert made.data == [[1, 2], [3, 4]]


def test_others_take_neither() -> None:
    assert pictures("tensorboard", {"sample": PIXELS}, {}) is None
    assert table("mlflow", ["a"], [[1]], None, {}) is None
