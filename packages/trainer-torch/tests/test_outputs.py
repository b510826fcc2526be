"""Finding loss and predictions in what people's models return."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer_torch.data.outputs import ignored_outputs, split_output

LOSS, SCORES, HIDDEN = torch.tensor(0.5), torch.zeros(4, 3), torch.ones(4, 5)
Named = namedtuple("Named", ["logits", "loss"])
Unnamed = namedtuple("Unnamed", ["error", "scores"])


@dataclass
class Output:
    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    past_key_values: Any = None


class Slots:
    __slots__ = ("logits", "loss")

    def __init__(self, loss: Tensor, logits: Tensor) -> None:
        self.loss, self.logits = loss, logits


@pytest.mark.parametrize(
    "output",
    [
        (LOSS, SCORES),
        [LOSS, SCORES],
        (LOSS, None, SCORES),
        (0.5, SCORES),
        {"loss": LOSS, "logits": SCORES},
        {"logits": SCORES, "loss": LOSS.reshape(1)},
        {"loss": 0.5, "logits": SCORES},
        {"loss": LOSS, "scores": SCORES, "attentions": None},
        SimpleNamespace(loss=LOSS, logits=SCORES),
        SimpleNamespace(loss=LOSS, scores=SCORES),
        Slots(LOSS, SCORES),
        Named(SCORES, LOSS),
        Unnamed(LOSS, SCORES),
        Output(LOSS, SCORES),
        Output(LOSS, SCORES, (HIDDEN,), object()),
        (LOSS, {"loss": LOSS, "logits": SCORES, "past_key_values": object()}),
        (LOSS, {"scores": SCORES}),
        (LOSS, Output(LOSS, SCORES, (HIDDEN,))),
        (LOSS, SimpleNamespace(loss=LOSS, logits=SCORES)),
    ],
    ids=lambda output: f"{type(output).__name__}",
)
def test_loss_and_predictions_are_found(output: Any) -> None:
    loss, predictions = split_output(output)
    assert loss is not None
    assert loss.item() == 0.5
    assert loss.ndim == 0
    assert predictions is SCORES


@pytest.mark.parametrize(
    "output",
    [
        LOSS,
        (LOSS,),
        (LOSS, None),
        {"loss": LOSS},
        torch.tensor([0.5])[0],
        Output(LOSS),
        {"loss": LOSS, "loss_of_boxes": LOSS, "aux_loss": LOSS},
    ],
)
def test_a_loss_alone_has_no_predictions(output: Any) -> None:
    loss, predictions = split_output(output)
    assert loss is not None
    assert predictions is None


@pytest.mark.parametrize(
    "output",
    [SCORES, (SCORES,), {"logits": SCORES}, (), None, 3, (3, SCORES), Output(None, SCORES)],
)
def test_what_is_not_one_number_is_no_loss(output: Any) -> None:
    assert split_output(output)[0] is None


@pytest.mark.parametrize("loss", [SCORES, "0.5", [LOSS, LOSS]])
def test_what_is_called_the_loss_must_be_one_number(loss: Any) -> None:
    with pytest.raises(ValueError, match="'loss'"):
        split_output({"loss": loss, "logits": SCORES})


def test_several_predictions_stay_together() -> None:
    assert split_output((LOSS, SCORES, LOSS))[1] == (SCORES, LOSS)
    named = split_output({"loss": LOSS, "a": SCORES, "b": LOSS})[1]
    assert isinstance(named, tuple)
    assert named == (SCORES, LOSS) == (named[0], named["b"])
    assert dict(named) == {"a": SCORES, "b": LOSS}
    with pytest.raises(KeyError, match=r"'c'.*'a', 'b'"):
        named["c"]


@pytest.mark.parametrize(
    "name",
    [
        "past_key_values",
        "cache_params",
        "mems",
        "hidden_states",
        "decoder_hidden_states",
        "cross_attentions",
        "encoder_last_hidden_state",
    ],
)
def test_caches_hidden_states_and_attentions_are_no_predictions(name: str) -> None:
    assert split_output({"loss": LOSS, "logits": SCORES, name: (HIDDEN,)})[1] is SCORES


def test_a_model_s_config_names_further_outputs_that_are_no_predictions() -> None:
    model = nn.Linear(1, 1)
    model.config = SimpleNamespace(keys_to_ignore_at_inference=["memory"])  # type: ignore[assignment]
    output = {"loss": LOSS, "logits": SCORES, "memory": HIDDEN}
    assert split_output(output, ignored_outputs(model))[1] is SCORES
    several = split_output(output, ignored_outputs(nn.Linear(1, 1)))[1]
    assert dict(several) == {"logits": SCORES, "memory": HIDDEN}
