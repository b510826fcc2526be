"""Muon for hidden matrices, beside AdamW for all the rest, in one optimizer."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import THREE_EPOCHS, Unfreezes, assert_exact, backbone_frozen
from small import Net, net, trainer
from torch import Tensor, nn
from torch.optim import AdamW

from trainer_torch import Trainer, TrainingArguments
from trainer_torch.optimizers.muon import MuonWithAdamW, hidden_matrices

pytestmark = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has no Muon")


class Block(nn.Module):
    """A block with what looks like a head, but is a part of its attention."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2)
        self.heads = nn.ModuleList([nn.Linear(4, 4, bias=False)])
        self.norm = nn.LayerNorm(4)
        self.conv = nn.Conv1d(4, 4, 3)
        self.gate = nn.Parameter(torch.zeros(4, 4))


class Language(nn.Module):
    """A model of text, whose head may share its weight with the embedding."""

    def __init__(self, head: str = "lm_head", is_tied: bool = False) -> None:
        super().__init__()
        self.wte = nn.Embedding(8, 4)
        self.pos_emb = nn.Parameter(torch.zeros(6, 4))
        made = nn.Linear(4, 8, bias=False)
        if is_tied:
            made.weight = self.wte.weight
        setattr(self, head, made)
        self.blocks = nn.ModuleList([Block()])


HIDDEN = {
    f"blocks.0.{name}"
    for name in ("attention.in_proj_weight", "attention.out_proj.weight", "heads.0.weight", "gate")
}


@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize("head", ["lm_head", "head", "classifier", "output", "cls_head"])
def test_embeddings_and_heads_are_no_hidden_matrices(head: str, is_tied: bool) -> None:
    assert set(hidden_matrices(Language(head, is_tied))) == HIDDEN


def test_the_last_linear_is_the_head_if_none_has_such_a_name() -> None:
    assert set(hidden_matrices(net())) == {"layers.0.weight"}


def test_a_tied_matrix_is_the_head_whatever_its_name() -> None:
    tied = hidden_matrices(Language("to_logits", is_tied=True))
    assert set(tied) == HIDDEN


def test_the_model_says_which_its_head_is() -> None:
    class Says(Net):
        def get_output_embeddings(self) -> nn.Module:
            return self.layers[0]

    assert set(hidden_matrices(Says())) == {"layers.3.weight"}


def pair(model: Net) -> tuple[AdamW, Any]:
    rest = [model.layers[0].bias, *model.layers[3].parameters()]
    adamw = AdamW(rest, lr=0.01, weight_decay=0.0, fused=True)
    muon = torch.optim.Muon(
        [model.layers[0].weight], lr=0.02, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
    )
    return adamw, muon


def gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_it_trains_as_two_optimizers_would() -> None:
    one, other = net(), net()
    made = MuonWithAdamW(
        one.parameters(), [one.layers[0].weight], lr=0.01, muon_lr=0.02, fused=True
    )
    both = pair(other)
    for seed in range(3):
        gradients(one, seed)
        gradients(other, seed)
        made.step()
        for optimizer in both:
            optimizer.step()
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_copy_goes_on_as_the_optimizer_itself() -> None:
    model = net()
    made = MuonWithAdamW(model.parameters(), [model.layers[0].weight], lr=0.01)
    gradients(model, 1)
    made.step()
    same_model, same = copy.deepcopy((model, made))
    gradients(model, 2)
    gradients(same_model, 2)
    made.step()
    same.step()
    for mine, theirs in zip(model.parameters(), same_model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_matrix_of_three_dimensions_is_refused() -> None:
    model = nn.Conv1d(2, 2, 3)
    with pytest.raises(ValueError, match="2D"):
        MuonWithAdamW(model.parameters(), [model.weight])


def test_the_groups_have_their_rates_decays_and_options(tmp_path: Path) -> None:
    made = trainer(tmp_path, optim="muon", optim_args="lr=0.5,momentum=0.8", weight_decay=0.1)
    made.create_optimizer()
    hidden = made.get_optimizer_group("layers.0.weight")
    assert (hidden["use_muon"], hidden["lr"], hidden["weight_decay"]) == (True, 0.5, 0.1)
    assert (hidden["momentum"], hidden["adjust_lr_fn"]) == (0.8, "match_rms_adamw")
    head, bias = (made.get_optimizer_group(f"layers.3.{name}") for name in ("weight", "bias"))
    assert (head["use_muon"], head["lr"], head["weight_decay"]) == (False, 0.05, 0.1)
    assert (bias["use_muon"], bias["lr"], bias["weight_decay"]) == (False, 0.05, 0.0)
    assert head["fused"] is True


def test_the_log_says_which_matrices_it_trains(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "trainer_torch"):
        trainer(tmp_path, optim="muon").create_optimizer()
    [told] = [record.getMessage() for record in caplog.records if "Muon" in record.getMessage()]
    assert "layers.0.weight" in told
    assert "layers.3.weight" in told


def test_a_model_without_hidden_matrices_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer(tmp_path, optim="muon", given={"model": nn.Linear(4, 3)}).create_optimizer()
    [told] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "Muon" in told.getMessage()


class AddsMatrices(Unfreezes):
    """Tells Muon which parameter of the layer is its own."""

    def groups(self, layer: nn.Module) -> Iterable[dict[str, Any]]:
        matrix, bias = layer.parameters()
        yield {"params": [matrix], "use_muon": True}
        yield {"params": [bias]}


def test_groups_that_a_callback_adds_resume_to_the_bit(tmp_path: Path) -> None:
    def make(output_dir: Path) -> Trainer:
        given = {"model": backbone_frozen()}
        return trainer(output_dir, AddsMatrices, given=given, optim="muon", **THREE_EPOCHS)

    assert_exact(tmp_path, make, 3, 5, 7, 12)


def test_a_subclass_chooses_the_matrices(tmp_path: Path) -> None:
    class Own(Trainer):
        @staticmethod
        def get_optimizer_cls_and_kwargs(
            args: TrainingArguments, model: nn.Module | None = None
        ) -> tuple[Any, dict[str, Any]]:
            cls, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
            assert isinstance(model, Net)
            return cls, options | {"matrices": [model.layers[3].weight]}

    made = Own(net(), trainer(tmp_path, optim="muon").args)
    made.create_optimizer()
    assert made.get_optimizer_group("layers.3.weight")["use_muon"] is True
    assert made.get_optimizer_group("layers.0.weight")["use_muon"] is False


def test_the_matrices_need_a_model() -> None:
    with pytest.raises(ValueError, match="model"):
        Trainer.get_optimizer_cls_and_kwargs(TrainingArguments(optim="muon"))


def test_a_closure_computes_the_loss_once() -> None:
    model = net()
    made = MuonWithAdamW(model.parameters(), [model.layers[0].weight], lr=0.01)
    losses: list[Tensor] = []

    def closure() -> Any:
        losses.append(model(torch.ones(2, 4)).sum())
        losses[-1].backward()
        return losses[-1]

    assert made.step(closure) is losses[0]
    assert len(losses) == 1
