"""A model that is given in a wrapper trains in it, and is saved, evaluated and shown without it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small import Net, arguments, data, logged, net, trainer
from torch import distributed as dist
from torch import nn
from torch._dynamo import register_backend
from torch.nn.parallel import DistributedDataParallel

from callback_core import TrainerCallback
from trainer_torch.ranks.distributed import DistributedWorld
from trainer_torch.wrapping import distributed_part, unwrap


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


def test_the_model_is_found_in_its_wrappers() -> None:
    model = net()
    for wrapped in (model, compiled(model)):
        assert unwrap(wrapped) is model
        assert distributed_part(wrapped) is None


@pytest.fixture
def group(tmp_path: Path) -> Any:
    """A group of this process alone, which DistributedDataParallel needs."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(
    "wrap",
    [
        DistributedDataParallel,
        lambda model: compiled(DistributedDataParallel(model)),
        lambda model: DistributedDataParallel(compiled(model)),
    ],
    ids=["distributed", "compiled outside", "compiled inside"],
)
def test_a_model_that_is_distributed_and_compiled_is_not_wrapped_again(
    tmp_path: Path, group: None, wrap: Any
) -> None:
    model = net()
    wrapped = wrap(model)
    world = DistributedWorld(arguments(tmp_path))
    assert unwrap(wrapped) is model
    assert world.wrap(wrapped) is wrapped
    part = distributed_part(wrapped)
    assert isinstance(part, DistributedDataParallel)
    world.average_gradients(wrapped, False)
    assert not part.require_backward_grad_sync


class Sees(TrainerCallback):
    def __init__(self) -> None:
        self.models: list[Any] = []

    def on_step_end(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        self.models.append(model)


@pytest.mark.parametrize("by_model", [True, False])
def test_a_compiled_model_trains_compiled_and_is_saved_under_its_own_names(
    tmp_path: Path, by_model: bool
) -> None:
    class WithLoss(Net):
        def forward(self, features: Any, labels: Any = None) -> Any:
            scores = super().forward(features)
            return (
                scores if labels is None else (nn.functional.cross_entropy(scores, labels), scores)
            )

    def results(name: str, wrap: Any) -> Any:
        torch.manual_seed(1)
        model, looks = WithLoss(), Sees()
        given: dict[str, Any] = {"model": wrap(model)}
        if by_model:
            given["compute_loss"] = None
        made = trainer(
            tmp_path / name, looks, given=given, save_strategy="epoch", eval_strategy="epoch"
        )
        made.train()
        assert made.model is model
        assert all(seen is model for seen in looks.models)
        saved = load_file(tmp_path / name / "checkpoint-10" / "model.safetensors")
        assert set(saved) == set(model.state_dict())
        return logged(made, "eval_loss")

    assert results("compiled", compiled) == results("plain", lambda model: model)


def test_a_compiled_model_resumes_from_the_checkpoint_of_a_plain_one(tmp_path: Path) -> None:
    trainer(tmp_path, save_strategy="epoch", num_train_epochs=1).train()
    given = {"model": compiled(net())}
    made = trainer(tmp_path, given=given, save_strategy="epoch", num_train_epochs=2)
    assert made.train(resume_from_checkpoint=True).global_step == 10


def with_compiled_parts() -> Any:
    model = net()
    model.layers[0] = compiled(model.layers[0])
    model.layers[3] = compiled(model.layers[3])
    return model


@pytest.mark.parametrize(
    ("first", "second"), [(net, with_compiled_parts), (with_compiled_parts, net)]
)
def test_a_part_that_is_compiled_is_saved_under_its_own_names_and_loaded_from_them(
    tmp_path: Path, first: Any, second: Any
) -> None:
    trainer(tmp_path, given={"model": first()}, save_strategy="epoch", num_train_epochs=1).train()
    saved = load_file(tmp_path / "checkpoint-5" / "model.safetensors")
    assert set(saved) == set(net().state_dict())
    made = trainer(tmp_path, given={"model": second()}, save_strategy="epoch", max_steps=5)
    made.train(resume_from_checkpoint=True)
    weights = [parameter.detach() for parameter in made.model.parameters()]
    assert all(torch.equal(*pair) for pair in zip(weights, in_order(saved), strict=True))


def in_order(saved: dict[str, Any]) -> list[Any]:
    return [saved[name] for name in net().state_dict()]


def test_what_is_frozen_stays_frozen_where_parts_are_compiled_since(tmp_path: Path) -> None:
    def frozen(model: nn.Module) -> list[bool]:
        return [not parameter.requires_grad for parameter in model.parameters()]

    first, second = net(), with_compiled_parts()
    first.layers[0].requires_grad_(False)
    second.layers[0].requires_grad_(False)
    trainer(tmp_path, given={"model": first}, save_strategy="epoch", num_train_epochs=1).train()
    made = trainer(tmp_path, given={"model": second}, save_strategy="epoch")
    made.train(resume_from_checkpoint=True)
    assert frozen(second) == frozen(first) == [True, True, False, False]


def test_a_model_for_several_gpus_is_saved_under_its_own_names(tmp_path: Path) -> None:
    model = net()
    trainer(tmp_path, given={"model": nn.DataParallel(model)}, save_strategy="epoch").train()
    saved = load_file(tmp_path / "checkpoint-10" / "model.safetensors")
    assert set(saved) == set(model.state_dict())


def test_a_compiled_model_computes_its_losses_compiled(tmp_path: Path) -> None:
    calls: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        calls.append(1)
        return graph.forward

    trainer(tmp_path, given={"model": torch.compile(net(), backend=backend)}).train()
    assert calls


class Counts:
    """A backend that counts the graphs that it is given, and runs them as they are."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


@pytest.fixture(scope="module")
def registered() -> Counts:
    """A backend that is registered under the name `counts`."""
    backend = Counts()
    register_backend(backend, name="counts")
    return backend


@pytest.fixture
def counts(registered: Counts) -> Iterator[Counts]:
    """The backend `counts`, without what other tests have compiled."""
    torch.compiler.reset()
    registered.graphs = 0
    yield registered
    torch.compiler.reset()


class Keeps(TrainerCallback):
    """Copies and pickles the model during the training."""

    def on_step_end(self, *given: Any, model: Any, **parts: Any) -> None:
        self.copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]


def test_torch_compile_compiles_in_place_under_the_names_of_the_model(
    tmp_path: Path, counts: Counts
) -> None:
    keeps = Keeps()
    made = trainer(tmp_path, keeps, torch_compile_backend="counts", save_strategy="epoch")
    assert made.args.torch_compile
    made.train()
    assert counts.graphs > 0
    names = list(net().state_dict())
    assert set(load_file(tmp_path / "checkpoint-10" / "model.safetensors")) == set(names)
    assert [list(one.state_dict()) for one in (made.model, *keeps.copies)] == [names] * 3
    for one in keeps.copies:
        one(torch.ones(2, 4))


def test_a_short_last_batch_is_compiled_once_more_at_most_twice(
    tmp_path: Path, counts: Counts
) -> None:
    given = {"train_dataset": data(18)}
    trainer(tmp_path, given=given, torch_compile_backend="counts", num_train_epochs=1).train()
    assert 1 <= counts.graphs <= 3


def test_evaluations_between_epochs_do_not_compile_again(tmp_path: Path, counts: Counts) -> None:
    options = {"torch_compile_backend": "counts", "eval_strategy": "epoch"}
    trainer(tmp_path / "two", **options, num_train_epochs=2).train()
    graphs = counts.graphs
    torch.compiler.reset()
    trainer(tmp_path / "six", **options, num_train_epochs=6).train()
    assert counts.graphs == 2 * graphs


def test_checkpointed_activations_are_compiled_with_the_same_result(tmp_path: Path) -> None:
    def losses(**changed: Any) -> list[float]:
        made = trainer(
            tmp_path,
            activation_checkpointing=True,
            activation_checkpointing_kwargs={"modules": ["Sequential"]},
            **changed,
        )
        made.train()
        return logged(made, "loss")

    assert losses(torch_compile_backend="aot_eager") == pytest.approx(losses(), rel=1e-5)


@pytest.mark.parametrize("make", [compiled, lambda model: with_compiled_parts()])
def test_a_model_that_is_compiled_already_is_not_compiled_again(
    tmp_path: Path, counts: Counts, caplog: pytest.LogCaptureFixture, make: Any
) -> None:
    trainer(tmp_path, given={"model": make(net())}, torch_compile_backend="counts").train()
    assert "torch_compile" in caplog.text
    assert counts.graphs == 0


def test_an_unknown_backend_is_an_error_before_training(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no_such_backend"):
        trainer(tmp_path, torch_compile_backend="no_such_backend")
