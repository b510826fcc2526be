"""Finding loss, predictions, labels and sizes in what people's models and data look like."""

from __future__ import annotations

from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trainer_torch.outputs import batch_size_of, forward, labels_of, map_tensors, split_output

LOSS, SCORES = torch.tensor(0.5), torch.zeros(4, 3)
Point = namedtuple("Point", ["x", "y"])


@pytest.mark.parametrize(
    "output",
    [
        (LOSS, SCORES),
        [LOSS, SCORES],
        {"loss": LOSS, "logits": SCORES},
        SimpleNamespace(loss=LOSS, logits=SCORES),
    ],
    ids=["tuple", "list", "mapping", "attributes"],
)
def test_loss_and_predictions_are_found(output: Any) -> None:
    loss, predictions = split_output(output)
    assert loss is not None
    assert loss.item() == 0.5
    assert predictions is SCORES


@pytest.mark.parametrize("output", [LOSS, (LOSS,), {"loss": LOSS}, torch.tensor([0.5])[0]])
def test_a_loss_alone_has_no_predictions(output: Any) -> None:
    loss, predictions = split_output(output)
    assert loss is not None
    assert predictions is None


@pytest.mark.parametrize(
    "output", [SCORES, (SCORES,), {"logits": SCORES}, {"loss": SCORES}, (), None, 3]
)
def test_what_is_not_one_number_is_no_loss(output: Any) -> None:
    assert split_output(output)[0] is None


def test_several_predictions_stay_together() -> None:
    assert split_output((LOSS, SCORES, LOSS))[1] == (SCORES, LOSS)
    assert split_output({"loss": LOSS, "a": SCORES, "b": LOSS})[1] == {"a": SCORES, "b": LOSS}


@pytest.mark.parametrize("batch", [{"a": 1, "b": 2}, (1, 2), [1, 2]])
def test_a_batch_is_passed_by_keyword_or_by_position(batch: Any) -> None:
    assert forward(lambda a, b: (a, b), batch) == (1, 2)  # type: ignore[arg-type]


def test_labels_are_named_or_last() -> None:
    assert labels_of({"x": 1, "labels": 2}) == 2
    assert labels_of((1, 2)) == 2
    assert labels_of((1,)) is None
    assert labels_of({"x": 1}) is None


@pytest.mark.parametrize("batch", [SCORES, (SCORES, LOSS), {"x": SCORES}, [{"x": SCORES}, 1]])
def test_the_size_of_a_batch_is_that_of_its_first_tensor(batch: Any) -> None:
    assert batch_size_of(batch) == 4


def test_tensors_are_mapped_wherever_they_are_and_containers_kept() -> None:
    mapped = map_tensors(lambda tensor: tensor.item(), {"a": [LOSS, "text"], "b": Point(LOSS, 1)})
    assert mapped == {"a": [0.5, "text"], "b": Point(0.5, 1)}
