"""What a checkpoint was saved with can be loaded, and a failed save leaves nothing behind."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small import compute_loss, data, logged, net, trainer
from torch import Tensor, nn
from torch.optim import SGD, SparseAdam
from torch.optim.lr_scheduler import LambdaLR

from callback_core import TrainerCallback
from trainer_torch.model.weights import MODEL, load_model, save_model
from trainer_torch.optimizers.gradients import clip_gradients
from trainer_torch.storage.checkpoint import list_checkpoints

EVERY_STEP = {"save_strategy": "steps", "save_steps": 1, "max_steps": 4}


class OwnState(LambdaLR):
    """A schedule that keeps something in its state."""

    def __init__(self, optimizer: Any, kept: Any) -> None:
        self.kept = kept
        super().__init__(optimizer, lambda step: np.cos(step))


def with_schedule(output_dir: Path, make: Any) -> Any:
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=np.float64(0.9))
    given = {"model": model, "optimizers": (optimizer, make(optimizer))}
    return trainer(output_dir, given=given, **EVERY_STEP)


@pytest.mark.parametrize(
    "make",
    [
        lambda optimizer: LambdaLR(optimizer, lambda step: np.cos(step)),
        lambda optimizer: LambdaLR(optimizer, lambda step: np.float32(0.5)),
        lambda optimizer: OwnState(optimizer, {"history": [np.int64(3), (np.bool_(True),)]}),
        lambda optimizer: OwnState(optimizer, np.arange(6.0).reshape(2, 3)),
        lambda optimizer: OwnState(optimizer, {np.int64(1): np.zeros(2), "name": np.str_("x")}),
    ],
)
def test_numbers_and_arrays_of_numpy_in_a_schedule(tmp_path: Path, make: Any) -> None:
    whole = with_schedule(tmp_path, make)
    whole.train()
    resumed = with_schedule(tmp_path / "resumed", make)
    resumed.train(tmp_path / "checkpoint-2")
    assert logged(resumed, "loss") == logged(whole, "loss")
    if isinstance(resumed.lr_scheduler, OwnState):
        one, other = whole.lr_scheduler.kept, resumed.lr_scheduler.kept
        assert type(one) is type(other)
        np.testing.assert_equal(one, other)


def test_a_state_that_could_not_be_loaded_is_an_error_before_training(tmp_path: Path) -> None:
    class Object:
        pass

    with pytest.raises(TypeError, match=r"\['kept'\]\[1\].*Object"):
        with_schedule(tmp_path, lambda optimizer: OwnState(optimizer, [1, Object()])).train()
    assert not list(tmp_path.rglob("*checkpoint*"))


def test_metrics_with_arrays_are_saved_as_lists(tmp_path: Path) -> None:
    metrics = {
        "per_class": {"f1": np.array([0.25, 0.5]), "count": torch.tensor([1, 2])},
        "rows": [np.array([1, 2]), np.float32(0.5)],
    }
    usual: Any = {
        "given": {"compute_metrics": lambda evaluated: metrics},
        "eval_strategy": "steps",
        "eval_steps": 1,
    }
    trainer(tmp_path, **usual, **EVERY_STEP).train()
    resumed = trainer(tmp_path, **usual, **EVERY_STEP)
    resumed.train(tmp_path / "checkpoint-2")
    assert logged(resumed, "eval_per_class") == [{"f1": [0.25, 0.5], "count": [1, 2]}] * 4
    assert logged(resumed, "eval_rows") == [[[1, 2], 0.5]] * 4


class Holds(TrainerCallback):
    """Has a state that JSON does not have."""

    def state_dict(self) -> dict[str, Any]:
        return {"held": [object()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load nothing."""


def test_a_callback_s_state_that_cannot_be_saved_is_an_error_before_training(
    tmp_path: Path,
) -> None:
    with pytest.raises(TypeError, match=r"Holds.*held"):
        trainer(tmp_path, Holds(), **EVERY_STEP).train()
    assert list(tmp_path.iterdir()) == []


class HoldsLater(Holds):
    """Has a state from the first step on."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.held = [object()]

    def state_dict(self) -> dict[str, Any]:
        return {"held": self.held}


def test_a_save_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"HoldsLater.*held"):
        trainer(tmp_path, HoldsLater(), **EVERY_STEP).train()
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_is_interrupted_leaves_no_folder(tmp_path: Path) -> None:
    class Interrupts(HoldsLater):
        def state_dict(self) -> dict[str, Any]:
            if self.held:
                raise KeyboardInterrupt
            return {}

    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, Interrupts(), **EVERY_STEP).train()
    assert list_checkpoints(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


class Flat(nn.Module):
    """A GRU whose parameters are slices of one buffer, as cuDNN packs them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.gru, self.head = nn.GRU(4, 6, batch_first=True), nn.Linear(6, 3)
        parameters = list(self.gru.parameters())
        buffer = torch.cat([parameter.detach().flatten() for parameter in parameters])
        start = 0
        for parameter in parameters:
            parameter.data = buffer[start : start + parameter.numel()].view(parameter.shape)
            start += parameter.numel()

    def forward(self, features: Tensor) -> Tensor:
        return self.head(self.gru(features[:, None])[0][:, 0])


def test_weights_that_are_slices_of_one_buffer(tmp_path: Path) -> None:
    whole = trainer(tmp_path, given={"model": Flat()}, **EVERY_STEP)
    whole.train()
    resumed = trainer(tmp_path / "resumed", given={"model": Flat()}, **EVERY_STEP)
    resumed.train(tmp_path / "checkpoint-2")
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    storages = {p.untyped_storage().data_ptr() for p in resumed.model.gru.parameters()}
    assert len(storages) == 1


class Shares(nn.Module):
    """Tensors that share memory in several ways."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        whole = torch.randn(4, 6, generator=generator)
        self.whole = nn.Parameter(whole)
        self.tied = self.whole
        self.register_buffer("view", self.whole.detach()[1:3])
        self.register_buffer("transposed", self.whole.detach().T)
        self.register_buffer("flat", self.whole.detach().view(-1))
        self.register_buffer("overlapping", self.whole.detach()[2:])
        self.register_buffer("expanded", torch.randn(1, generator=generator).expand(5))
        self.register_buffer("empty", torch.empty(0))
        self.register_buffer("scalar", torch.randn((), generator=generator))
        self.register_buffer("strided", torch.randn(6, 6, generator=generator)[::2, ::3])


def test_tensors_that_share_memory_are_loaded_as_they_were(tmp_path: Path) -> None:
    saved, loaded = Shares(1), Shares(2)
    save_model(saved, tmp_path)
    load_model(loaded, tmp_path)
    for name, value in saved.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    assert loaded.tied is loaded.whole
    assert len({"whole", "tied"} & set(load_file(tmp_path / MODEL))) == 1


def test_weights_that_were_tied_when_saved_fit_a_model_whose_weights_are_not(
    tmp_path: Path,
) -> None:
    class Two(nn.Module):
        def __init__(self, is_tied: bool) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(2, 2), nn.Linear(2, 2)
            if is_tied:
                self.two.weight = self.one.weight

    tied, apart = Two(True), Two(False)
    save_model(tied, tmp_path)
    load_model(apart, tmp_path)
    assert torch.equal(apart.two.weight, tied.one.weight)


class Rows(nn.Module):
    """An embedding with sparse gradients, and a layer with dense ones."""

    def __init__(self, is_sparse: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.rows, self.head = nn.Embedding(5, 4, sparse=is_sparse), nn.Linear(4, 3)

    def forward(self, features: Tensor) -> Tensor:
        numbers = (features[:, :2].abs() * 2).long().clamp(max=4)  # rows come several times
        return self.head(self.rows(numbers).mean(1) * 9)


@pytest.mark.parametrize("max_grad_norm", [0, 0.1, 100.0])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_sparse_gradients_train_as_dense_ones(
    tmp_path: Path, max_grad_norm: float, accumulate: int
) -> None:
    trained = []
    for is_sparse in (True, False):
        model = Rows(is_sparse)
        given = {"model": model, "optimizers": (SGD(model.parameters(), lr=0.5), None)}
        trained.append(
            trainer(
                tmp_path,
                given=given,
                max_grad_norm=max_grad_norm,
                gradient_accumulation_steps=accumulate,
            )
        )
        trained[-1].train()
    for name in ("loss", "grad_norm"):
        assert logged(trained[0], name) == pytest.approx(logged(trained[1], name), rel=1e-5)


def test_a_model_of_sparse_gradients_only(tmp_path: Path) -> None:
    class Only(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.EmbeddingBag(5, 3, sparse=True)

        def forward(self, features: Tensor) -> Tensor:
            return self.rows((features.abs() * 2).long().clamp(max=4))

    model = Only()
    given = {"model": model, "optimizers": (SparseAdam(model.parameters(), lr=0.1), None)}
    trained = trainer(tmp_path, given=given, **EVERY_STEP)
    trained.train()
    resumed = trainer(tmp_path / "resumed", given=given, **EVERY_STEP)
    resumed.train(tmp_path / "checkpoint-2")
    assert logged(resumed, "loss") == logged(trained, "loss")


def test_clipping_scales_sparse_and_dense_gradients_alike() -> None:
    model = Rows(True)
    loss, _ = compute_loss(model, list(data()[:]))
    loss.backward()
    before = clip_gradients(model.parameters(), 0.5).item()
    assert before > 0.5
    gradients = [parameter.grad for parameter in model.parameters()]
    norm = math.sqrt(sum(float(g.to_dense().square().sum()) for g in gradients if g is not None))
    assert norm == pytest.approx(0.5, rel=1e-4)


def test_sparse_gradients_with_the_default_optimizer_are_refused_before_training(
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match=r"rows.*AdamW.*optimizers"):
        trainer(tmp_path, given={"model": Rows(True)}).train()


@pytest.mark.parametrize("changed", [{"logging_strategy": "epoch"}, {"logging_steps": 4}])
def test_the_first_log_after_a_resumption_has_all_that_it_has_without(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    """The checkpoint is that of the last step before a log, and resuming makes no further step."""
    changed = {**changed, "save_strategy": "steps", "save_steps": 5, "learning_rate": 0.1}
    whole = trainer(tmp_path / "whole", **changed)
    whole.train()
    for step in (5, 10):
        resumed = trainer(tmp_path / "resumed", **changed)
        resumed.train(resume_from_checkpoint=tmp_path / "whole" / f"checkpoint-{step}")
        for name in ("loss", "grad_norm", "learning_rate"):
            assert logged(resumed, name) == logged(whole, name)


class Growing(nn.Module):
    """Keeps what it has seen in a buffer, and makes room for a saved one when it is loaded."""

    def __init__(self, fits: bool = True) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.fits = fits
        self.register_buffer("seen", torch.empty(0))

    def forward(self, features: Tensor) -> Tensor:
        self.seen = torch.cat([self.seen, features[:, 0].detach()])
        return self.layer(features)

    def load_state_dict(self, state_dict: Any, strict: bool = True) -> Any:
        if self.fits:
            self.seen = torch.empty_like(state_dict["seen"])
        return super().load_state_dict(state_dict, strict=strict)


def test_a_model_may_make_room_for_its_saved_state_when_it_is_loaded(tmp_path: Path) -> None:
    whole = trainer(tmp_path, given={"model": Growing()}, **EVERY_STEP)
    whole.train()
    resumed = trainer(tmp_path / "resumed", given={"model": Growing()}, **EVERY_STEP)
    resumed.train(tmp_path / "checkpoint-2")
    assert torch.equal(resumed.model.seen, whole.model.seen)


def test_a_model_that_makes_no_room_is_an_error_that_names_the_state(tmp_path: Path) -> None:
    trainer(tmp_path, given={"model": Growing()}, **EVERY_STEP).train()
    resumed = trainer(tmp_path / "resumed", given={"model": Growing(fits=False)}, **EVERY_STEP)
    with pytest.raises(ValueError, match="seen"):
        resumed.train(tmp_path / "checkpoint-2")
