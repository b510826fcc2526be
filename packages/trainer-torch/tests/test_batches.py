"""Batches reach the device and the model whatever they look like, and their labels are found."""

from __future__ import annotations

from collections import OrderedDict, UserDict, defaultdict, namedtuple
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from trainer_torch.data.batches import describe, forward, labels_of, map_leaves, to_device

ONE, TWO = torch.ones(4), torch.zeros(4)
Pair = namedtuple("Pair", ["x", "y"])
Labelled = namedtuple("Labelled", ["x", "labels", "weights"])
META = torch.device("meta")


@dataclass(frozen=True)
class Data:
    x: Tensor
    labels: Tensor
    name: str = "name"


class Graph:
    """An object that moves itself, as those of graph libraries do."""

    def __init__(self, nodes: Tensor) -> None:
        self.nodes = nodes

    def to(self, device: torch.device) -> Graph:
        return Graph(self.nodes.to(device))


class InPlace(Graph):
    def to(self, device: torch.device) -> None:  # type: ignore[override]
        self.nodes = self.nodes.to(device)


@pytest.mark.parametrize("batch", [{"a": 1, "b": 2}, (1, 2), [1, 2], Pair(1, 2)])
def test_a_batch_is_passed_by_keyword_or_by_position(batch: Any) -> None:
    class Model(nn.Module):
        def forward(self, a: int, b: int) -> tuple[int, int]:
            return a, b

    assert forward(Model(), batch) == (1, 2)


def test_packed_sequences_and_objects_are_one_input() -> None:
    for batch in (pack_sequence([ONE, TWO]), Data(ONE, TWO), Graph(ONE)):
        assert forward(nn.Identity(), batch) is batch


@pytest.mark.parametrize(
    ("batch", "names"),
    [((ONE, TWO), "Linear.*input"), ({"x": ONE, "labels": TWO}, "Linear.*labels")],
)
def test_a_model_that_does_not_take_the_batch_is_named_with_its_parameters(
    batch: Any, names: str
) -> None:
    with pytest.raises(TypeError, match=rf"(?s){names}.*compute_loss"):
        forward(nn.Linear(4, 3), batch)


def test_an_error_of_the_model_itself_stays_as_it_is() -> None:
    class Model(nn.Module):
        def forward(self, x: Any) -> Any:
            return x + "text"

    with pytest.raises(TypeError) as error:
        forward(Model(), {"x": 1})
    assert "compute_loss" not in str(error.value)


@pytest.mark.parametrize(
    "batch",
    [
        {"x": ONE, "n": 3},
        OrderedDict(x=ONE),
        defaultdict(lambda: ONE, x=ONE),
        UserDict(x=ONE),
        (ONE, "text", None),
        [ONE, [TWO]],
        Pair(ONE, (TWO,)),
        Data(ONE, TWO),
        pack_sequence([ONE, TWO]),
        Graph(ONE),
        InPlace(ONE),
        ONE,
        "text",
        None,
    ],
    ids=lambda batch: type(batch).__name__,
)
def test_a_batch_keeps_its_type_on_the_device(batch: Any) -> None:
    def devices(value: Any) -> set[str]:
        if isinstance(value, Tensor):
            return {value.device.type}
        if isinstance(value, (Graph, PackedSequence, Data)):
            return devices(
                getattr(value, "nodes", getattr(value, "data", getattr(value, "x", None)))
            )
        items = value.values() if hasattr(value, "values") else value
        found = items if isinstance(value, (tuple, list, dict, UserDict)) else ()
        return {device for item in found for device in devices(item)}

    moved = to_device(batch, META)
    assert type(moved) is type(batch)
    assert devices(moved) <= {"meta"}
    assert devices(moved) or batch in ("text", None)


def test_a_mapping_that_cannot_be_copied_becomes_a_dict() -> None:
    moved = to_device(MappingProxyType({"x": ONE}), META)
    assert moved["x"].device == META


def test_moving_a_batch_leaves_the_batch_itself_as_it_is() -> None:
    for batch in (OrderedDict(x=ONE), Data(ONE, TWO)):
        to_device(batch, META)
        found = batch["x"] if isinstance(batch, OrderedDict) else batch.x
        assert found.device.type == "cpu"


def test_leaves_are_mapped_wherever_they_are() -> None:
    def name(leaf: Any) -> Any:
        return leaf.shape if isinstance(leaf, Tensor) else leaf

    assert map_leaves(name, {"a": [ONE, "text"], "b": Pair(ONE, 1)}) == {
        "a": [(4,), "text"],
        "b": Pair((4,), 1),
    }


@pytest.mark.parametrize(
    "batch",
    [{"x": 1, "labels": 2}, (1, 2), [1, 2], Pair(1, 2), Labelled(1, 2, 3), Data(1, 2)],  # type: ignore[arg-type]
)
def test_labels_are_named_or_last(batch: Any) -> None:
    assert labels_of(batch) == 2


@pytest.mark.parametrize("batch", [(1,), {"x": 1, "target": 2}, ONE, "text", None, Graph(ONE)])
def test_a_batch_may_have_no_labels(batch: Any) -> None:
    assert labels_of(batch) is None


def test_label_names_say_which_items_are_the_labels() -> None:
    assert labels_of({"x": 1, "target": 2}, ["target"]) == 2
    assert labels_of({"x": 1, "start": 2, "end": 3}, ["start", "end"]) == (2, 3)
    assert labels_of({"x": 1, "start": 2}, ["start", "end"]) is None
    assert labels_of(Labelled(1, 2, 3), ["weights"]) == 3
    assert labels_of(Labelled(1, 2, 3), ["target"]) is None
    assert labels_of((1, 2), ["target"]) == 2


def test_an_item_of_a_batch_that_the_model_has_no_parameter_for_is_named() -> None:
    class Model(nn.Module):
        def forward(self, a: int, b: int = 0) -> int:
            return a

    with pytest.raises(TypeError, match="'index', 'text'") as error:
        forward(Model(), {"a": 1, "index": 2, "text": "three"})
    assert all(name in str(error.value) for name in ("data_collator", "kwargs"))
    assert "compute_loss" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "described"),
    [(1, "an int"), (ONE, "a Tensor of shape (4,)"), (OrderedDict(x=1), "an OrderedDict with 'x'")],
)
def test_a_value_is_described_with_its_article(value: Any, described: str) -> None:
    assert describe(value) == described
