"""Checkpoints: resuming is exact, and incomplete checkpoints are never used."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from resuming import EVERY_STEP, StopAt, weights
from safetensors.torch import load_file
from small import Net, compute_loss, data, logged, net, trainer
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from callback_core import (
    EarlyStoppingCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)
from trainer_torch import Trainer
from trainer_torch.model.weights import MODEL
from trainer_torch.storage.checkpoint import MANIFEST, OPTIMIZER, find_fault, list_checkpoints


class Noisy(Dataset[Any]):
    """Samples with noise from every generator that people draw from."""

    def __init__(self) -> None:
        self.clean = data()

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        features, label = self.clean[index]
        return features + 0.1 * torch.randn(
            4
        ) + 0.1 * random.random() + 0.1 * np.random.rand(), label


def steps_of(output_dir: Path) -> list[int]:
    return [int(checkpoint.name.rpartition("-")[2]) for checkpoint in list_checkpoints(output_dir)]


@pytest.mark.parametrize("step", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_training_equals_an_undisturbed_one_to_the_bit(
    tmp_path: Path, step: int, accumulate: int
) -> None:
    usual = {"gradient_accumulation_steps": accumulate, "logging_steps": 3, **EVERY_STEP}
    whole = trainer(tmp_path / "whole", given={"train_dataset": Noisy()}, **usual)
    whole.train()
    trainer(tmp_path, StopAt(step), given={"train_dataset": Noisy()}, **usual).train()
    torch.rand(5)
    resumed = trainer(tmp_path, given={"model": Net(), "train_dataset": Noisy()}, **usual)
    resumed.train(resume_from_checkpoint=True)
    assert all(
        torch.equal(one, other) for one, other in zip(weights(whole), weights(resumed), strict=True)
    )
    for name in ("loss", "grad_norm", "learning_rate", "train_loss", "epoch"):
        assert logged(resumed, name) == logged(whole, name)


def test_a_checkpoint_can_be_named(tmp_path: Path) -> None:
    trainer(tmp_path, **EVERY_STEP).train()
    resumed = trainer(tmp_path)
    assert resumed.train(resume_from_checkpoint=tmp_path / "checkpoint-4").global_step == 10
    assert logged(resumed, "learning_rate") == pytest.approx(
        [0.05 * (10 - step) / 10 for step in range(10)]
    )


def test_a_directory_of_checkpoints_can_be_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer(tmp_path / "before", max_steps=4, **EVERY_STEP).train()
    (tmp_path / "before" / "checkpoint-4" / OPTIMIZER).unlink()
    resumed = trainer(tmp_path / "now", max_steps=4)
    resumed.train(resume_from_checkpoint=tmp_path / "before")
    assert "checkpoint-4" in caplog.text
    assert "optimizer.pt" in caplog.text
    assert [entry["step"] for entry in resumed.state.log_history if "loss" in entry] == [1, 2, 3, 4]
    for step in (1, 2, 3):
        (tmp_path / "before" / f"checkpoint-{step}" / MANIFEST).unlink()
    with pytest.raises(FileNotFoundError, match=r"\bbefore\b"):
        trainer(tmp_path / "now").train(resume_from_checkpoint=str(tmp_path / "before"))


@pytest.mark.parametrize("changed", [{}, {"max_steps": 3}])
def test_resuming_a_training_that_is_done_trains_no_more(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    trainer(tmp_path, **EVERY_STEP, **changed).train()
    resumed = trainer(tmp_path, given={"model": Net()}, **EVERY_STEP, **changed)
    before = load_file(list_checkpoints(tmp_path)[-1] / MODEL)
    output = resumed.train(resume_from_checkpoint=True)
    assert output.global_step == changed.get("max_steps", 10)
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in resumed.model.state_dict().items()
    )


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda path: (path / MANIFEST).unlink(), "manifest.json"),
        (lambda path: (path / OPTIMIZER).unlink(), "optimizer.pt"),
        (lambda path: (path / MODEL).write_bytes(b"torn"), "model.safetensors"),
        (lambda path: _flip_a_bit(path / OPTIMIZER), "optimizer.pt"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any, fault: str
) -> None:
    trainer(tmp_path, max_steps=4, **EVERY_STEP).train()
    damage(tmp_path / "checkpoint-4")
    resumed = trainer(tmp_path, max_steps=4)
    resumed.train(resume_from_checkpoint=True)
    assert fault in caplog.text
    assert "checkpoint-4" in caplog.text
    assert [entry["step"] for entry in resumed.state.log_history if "loss" in entry] == [1, 2, 3, 4]
    with pytest.raises(FileNotFoundError, match=fault):
        trainer(tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_a_checkpoint_that_was_never_finished_is_not_seen(tmp_path: Path) -> None:
    class Unwritable(Net):
        def state_dict(self, *args: Any, **kwargs: Any) -> Any:
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        trainer(tmp_path, given={"model": Unwritable()}, **EVERY_STEP).train()
    assert list_checkpoints(tmp_path) == []


def test_training_from_the_beginning_replaces_the_checkpoints_of_an_older_run(
    tmp_path: Path,
) -> None:
    trainer(tmp_path, max_steps=2, **EVERY_STEP).train()
    trainer(tmp_path, max_steps=2, seed=1, **EVERY_STEP).train()
    assert steps_of(tmp_path) == [1, 2]
    assert all(find_fault(checkpoint) is None for checkpoint in list_checkpoints(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "checkpoint-2"]


def test_a_file_that_is_named_like_a_checkpoint_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-1").write_text("")
    trainer(tmp_path, save_total_limit=1, save_strategy="steps", save_steps=2, max_steps=4).train()
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == [
        "checkpoint-1",
        "checkpoint-4",
    ]


def test_only_so_many_checkpoints_are_kept(tmp_path: Path) -> None:
    trainer(tmp_path, save_total_limit=2, **EVERY_STEP).train()
    assert steps_of(tmp_path) == [9, 10]


class Scores(TrainerCallback):
    """Notes the weights at each evaluation."""

    def __init__(self) -> None:
        self.weights: dict[int, Tensor] = {}

    def on_evaluate(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        self.weights[state.global_step] = model.layers[0].weight.detach().clone()


def best_trainer(output_dir: Path, values: list[float], *callbacks: Any, **changed: Any) -> Trainer:
    """Return a trainer whose evaluations, one a step, give these values as their score."""
    scores = iter(values)
    return trainer(
        output_dir,
        *callbacks,
        given={"compute_metrics": lambda evaluated: {"score": next(scores)}},
        max_steps=len(values),
        eval_strategy="steps",
        eval_steps=1,
        metric_for_best_model="score",
        load_best_model_at_end=True,
        **{**EVERY_STEP, **changed},
    )


def test_the_best_model_is_loaded_at_the_end(tmp_path: Path) -> None:
    seen = Scores()
    trained = best_trainer(tmp_path, [0.1, 0.9, 0.2, 0.3], seen)
    trained.train()
    assert (trained.state.best_metric, trained.state.best_global_step) == (0.9, 2)
    assert trained.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    assert torch.equal(trained.model.layers[0].weight, seen.weights[2])


def test_the_best_of_the_saved_models_is_loaded_when_the_best_was_not_saved(tmp_path: Path) -> None:
    seen = Scores()
    trained = best_trainer(tmp_path, [0.9, 0.5, 0.8, 0.3], seen, save_steps=2)
    trained.train()
    assert trained.state.best_global_step == 1
    assert torch.equal(trained.model.layers[0].weight, seen.weights[2])


def test_the_best_checkpoint_is_kept_beside_the_newest_and_alone_at_the_end_of_a_limit_of_one(
    tmp_path: Path,
) -> None:
    best_trainer(tmp_path / "two", [0.1, 0.9, 0.2, 0.3], save_total_limit=2).train()
    assert steps_of(tmp_path / "two") == [2, 4]
    best_trainer(tmp_path / "one", [0.1, 0.9, 0.2, 0.3], save_total_limit=1).train()
    assert steps_of(tmp_path / "one") == [2]


def test_a_score_that_is_not_a_number_is_never_the_best(tmp_path: Path) -> None:
    trained = best_trainer(tmp_path, [float("nan"), 0.2, float("nan")])
    trained.train()
    assert (trained.state.best_metric, trained.state.best_global_step) == (0.2, 2)


def test_saved_weights_are_safetensors_that_anyone_reads_also_where_they_are_tied(
    tmp_path: Path,
) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight

        def forward(self, features: Tensor) -> Tensor:
            return self.second(self.first(features))

    saved = trainer(tmp_path, given={"model": Tied()}, **EVERY_STEP)
    saved.save_model(tmp_path / "weights")
    [kept] = {"first.weight", "second.weight"} & set(load_file(tmp_path / "weights" / MODEL))
    assert torch.equal(load_file(tmp_path / "weights" / MODEL)[kept], saved.model.first.weight)
    saved.train()
    resumed = trainer(tmp_path, given={"model": Tied()})
    resumed.train(resume_from_checkpoint=True)
    assert resumed.model.second.weight is resumed.model.first.weight
    assert torch.equal(resumed.model.first.weight, saved.model.first.weight)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    trainer(tmp_path, max_steps=1, **EVERY_STEP).train()
    with pytest.raises(ValueError) as error:
        trainer(tmp_path, given={"model": nn.Sequential(nn.Linear(4, 3))}).train(
            resume_from_checkpoint=True
        )
    for name in (str(tmp_path / "checkpoint-1"), "Sequential", "0.weight", "layers.0.weight"):
        assert name in str(error.value)


def test_weights_of_another_shape_are_refused_with_both_shapes(tmp_path: Path) -> None:
    trainer(tmp_path, max_steps=1, **EVERY_STEP).train()
    other = Net()
    other.layers[3] = nn.Linear(8, 5)
    with pytest.raises(ValueError, match=r"layers\.3\.weight \(3, 8\).*\(5, 8\)"):
        trainer(tmp_path, given={"model": other}).train(resume_from_checkpoint=True)


def test_callbacks_are_told_where_the_checkpoint_is_when_it_is_complete(tmp_path: Path) -> None:
    class Sees(TrainerCallback):
        def on_save(
            self, args: Any, state: Any, control: Any, checkpoint_dir: str = "", **kwargs: Any
        ) -> None:
            faults.append((Path(checkpoint_dir).name, find_fault(Path(checkpoint_dir))))

    faults: list[Any] = []
    trainer(tmp_path, Sees, max_steps=2, **EVERY_STEP).train()
    assert faults == [("checkpoint-1", None), ("checkpoint-2", None)]


def test_a_checkpoint_holds_the_model_and_not_the_network_it_began_with(tmp_path: Path) -> None:
    trained = trainer(tmp_path, max_steps=1, **EVERY_STEP)
    trained.train()
    saved = load_file(tmp_path / "checkpoint-1" / MODEL)
    assert all(
        torch.equal(saved[name], tensor) for name, tensor in trained.model.state_dict().items()
    )
    assert not torch.equal(saved["layers.0.weight"], net().layers[0].weight)


def test_the_newest_checkpoint_is_that_of_the_newest_run_and_not_of_the_longest(
    tmp_path: Path,
) -> None:
    trainer(tmp_path, max_steps=6, **EVERY_STEP).train()
    trainer(tmp_path, max_steps=3, save_total_limit=2, seed=1, **EVERY_STEP).train()
    assert steps_of(tmp_path) == [2, 3]
    resumed = trainer(tmp_path, max_steps=3, seed=1)
    assert resumed.train(resume_from_checkpoint=True).global_step == 3


def test_auto_resumes_if_there_is_a_checkpoint(tmp_path: Path) -> None:
    first = trainer(tmp_path, max_steps=2, resume_from_checkpoint="auto", **EVERY_STEP)
    first.train()
    assert first.run.resumed_from is None
    (tmp_path / "checkpoint-2" / MANIFEST).unlink()
    resumed = trainer(tmp_path, max_steps=3, **EVERY_STEP)
    resumed.train(resume_from_checkpoint="auto")
    assert resumed.run.resumed_from == tmp_path / "checkpoint-1"


def test_auto_does_not_start_over_beside_damaged_checkpoints(tmp_path: Path) -> None:
    trainer(tmp_path, max_steps=1, **EVERY_STEP).train()
    (tmp_path / "checkpoint-1" / MANIFEST).unlink()
    with pytest.raises(FileNotFoundError, match="checkpoint"):
        trainer(tmp_path, max_steps=1).train(resume_from_checkpoint="auto")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"files": 3}'])
def test_a_torn_manifest_is_a_fault_and_no_error(tmp_path: Path, content: str) -> None:
    trainer(tmp_path, max_steps=2, **EVERY_STEP).train()
    (tmp_path / "checkpoint-2" / MANIFEST).write_text(content)
    assert MANIFEST in str(find_fault(tmp_path / "checkpoint-2"))
    assert trainer(tmp_path, max_steps=2).train(resume_from_checkpoint=True).global_step == 2


def test_what_a_killed_save_left_behind_is_no_obstacle(tmp_path: Path) -> None:
    for kind in ("part", "replaced"):
        leftover = tmp_path / f".checkpoint-1.{kind}"
        leftover.mkdir()
        (leftover / "torn").write_text("")
    trainer(tmp_path, max_steps=1, **EVERY_STEP).train()
    trainer(tmp_path, max_steps=1, **EVERY_STEP).train()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


def test_a_moved_run_finds_its_best_checkpoint(tmp_path: Path) -> None:
    best_trainer(tmp_path / "old", [0.9, 0.1]).train()
    (tmp_path / "old").rename(tmp_path / "new")
    resumed = best_trainer(tmp_path / "new", [0.9, 0.1])
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.best_model_checkpoint == str(tmp_path / "new" / "checkpoint-1")


def test_a_best_checkpoint_that_is_gone_is_named_and_forgotten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    best_trainer(tmp_path, [0.9, 0.1]).train()
    shutil.rmtree(tmp_path / "checkpoint-1")
    resumed = best_trainer(tmp_path, [0.9, 0.1])
    resumed.train(resume_from_checkpoint=True)
    assert "checkpoint-1" in [
        Path(str(record.args[0])).name for record in caplog.records if record.args
    ]
    assert resumed.state.best_model_checkpoint is None


def test_a_warning_names_the_metric_if_there_is_no_best_model_to_load(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    best_trainer(tmp_path, [float("nan")] * 2).train()
    assert "'score'" in caplog.text


class StopEpochAt(TrainerCallback):
    """Cuts the epoch short after a step."""

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        control.should_epoch_stop |= state.global_step == 2


class EpochEnds(TrainerCallback):
    """Notes the steps at which epochs end."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps.append(state.global_step)


@pytest.mark.parametrize("step", [2, 3])
def test_resuming_does_not_continue_an_epoch_that_was_cut_short(tmp_path: Path, step: int) -> None:
    whole = trainer(tmp_path / "whole", StopEpochAt, save_strategy="epoch")
    whole.train()
    trainer(tmp_path, StopEpochAt, StopAt(step), save_strategy="epoch").train()
    resumed = trainer(tmp_path, StopEpochAt, given={"model": Net()}, save_strategy="epoch")
    resumed.train(resume_from_checkpoint=True)
    assert logged(resumed, "loss") == logged(whole, "loss")
    assert resumed.state.global_step == whole.state.global_step == 7


def test_resuming_fires_the_end_of_an_epoch_that_a_kill_prevented(tmp_path: Path) -> None:
    trainer(tmp_path, **EVERY_STEP).train()
    ends = EpochEnds()
    trainer(tmp_path, ends).train(resume_from_checkpoint=tmp_path / "checkpoint-5")
    assert ends.steps == [5, 10]


def test_resuming_fires_the_end_of_the_last_epoch_and_does_what_it_asks_for(tmp_path: Path) -> None:
    usual = {**EVERY_STEP, "eval_strategy": "epoch"}
    whole = trainer(tmp_path, **usual)
    whole.train()
    ends = EpochEnds()
    resumed = trainer(tmp_path, ends, **usual)
    resumed.train(resume_from_checkpoint=tmp_path / "checkpoint-10")
    assert ends.steps == [10]
    assert logged(resumed, "eval_loss") == logged(whole, "eval_loss")


def test_an_evaluation_on_start_is_not_repeated_when_resuming(tmp_path: Path) -> None:
    usual = {"eval_on_start": True, **EVERY_STEP}
    trainer(tmp_path, StopAt(2), **usual).train()
    resumed = trainer(tmp_path, **usual)
    resumed.train(resume_from_checkpoint=True)
    assert [entry["step"] for entry in resumed.state.log_history if "eval_loss" in entry] == [0]


def test_data_without_a_length_goes_on_where_it_was_also_with_more_steps(tmp_path: Path) -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            yield from data()

    def seen(resume: bool, **changed: Any) -> list[Any]:
        batches: list[Any] = []

        def loss_of(model: nn.Module, batch: Any) -> Any:
            batches.append(batch[1].tolist())
            return compute_loss(model, batch)

        given = {"train_dataset": Stream(), "compute_loss": loss_of}
        trainer(tmp_path, given=given, **EVERY_STEP, **changed).train(resume)
        return batches

    expected = [data()[:][1].tolist()[index : index + 4] for index in (0, 4, 8, 12, 16)]
    assert seen(False, max_steps=3) == expected[:3]
    assert seen(True, max_steps=5) == expected[3:]


def test_early_stopping_goes_on_counting_after_a_resumption(tmp_path: Path) -> None:
    values = [0.9, 0.5, 0.4, 0.3, 0.2, 0.1]
    best_trainer(tmp_path, values, EarlyStoppingCallback(4), StopAt(3)).train()
    resumed = best_trainer(tmp_path, values, EarlyStoppingCallback(4))
    resumed.train(resume_from_checkpoint=tmp_path / "checkpoint-3")
    assert resumed.state.global_step == 5


def test_the_checkpoint_says_who_asked_to_stop_and_why(tmp_path: Path) -> None:
    class Asks(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 2:
                control.request_stop("enough")

    trainer(tmp_path, Asks, **EVERY_STEP).train()
    state = TrainerState.load_from_json(tmp_path / "checkpoint-2" / "trainer_state.json")
    requests = state.stateful_callbacks["TrainerControl"]["attributes"]["requests"]
    asked = {"flag": "should_training_stop", "by": "Asks", "step": 2, "reason": "enough"}
    assert asked in requests


def steps_then_epochs(output_dir: Path, *callbacks: Any, **changed: Any) -> Trainer:
    """Return a trainer that saves at steps and evaluates after each of 4 epochs of 5 steps."""
    scores = {5: 0.9, 10: 0.1, 15: 0.2, 20: 0.3}
    made = trainer(
        output_dir,
        *callbacks,
        given={"compute_metrics": lambda _: {"score": scores.get(made.state.global_step, 0.0)}},
        num_train_epochs=4,
        eval_strategy="epoch",
        metric_for_best_model="score",
        **{"save_strategy": "steps", "save_steps": 5, "save_total_limit": 2, **changed},
    )
    return made


@pytest.mark.parametrize("limit", [1, 2, None])
def test_a_checkpoint_that_is_evaluated_after_it_was_saved_can_be_the_best(
    tmp_path: Path, limit: int | None
) -> None:
    trained = steps_then_epochs(tmp_path, save_total_limit=limit)
    trained.train()
    assert trained.state.best_model_checkpoint == str(tmp_path / "checkpoint-5")
    assert steps_of(tmp_path) == ([5, 20] if limit else [5, 10, 15, 20])


@pytest.mark.parametrize("step", [5, 7])
def test_a_resumed_training_knows_the_best_checkpoint_that_was_saved_before_its_evaluation(
    tmp_path: Path, step: int
) -> None:
    usual = {"save_steps": 1 if step == 7 else 5}
    steps_then_epochs(tmp_path, StopAt(step), **usual).train()
    resumed = steps_then_epochs(tmp_path, **usual)
    resumed.train(resume_from_checkpoint=tmp_path / f"checkpoint-{step}")
    assert resumed.state.best_model_checkpoint == str(tmp_path / "checkpoint-5")
    assert (tmp_path / "checkpoint-5").is_dir()


def test_a_checkpoint_elsewhere_is_not_this_training_s_best(tmp_path: Path) -> None:
    steps_then_epochs(tmp_path / "old", StopAt(5)).train()
    resumed = steps_then_epochs(tmp_path / "new")
    resumed.train(resume_from_checkpoint=tmp_path / "old" / "checkpoint-5")
    assert resumed.state.best_model_checkpoint == str(tmp_path / "new" / "checkpoint-20")


def test_the_best_model_that_was_saved_before_its_evaluation_is_loaded(tmp_path: Path) -> None:
    class SavesToo(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_save |= state.global_step % 5 == 0

        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_save = False

    trained = steps_then_epochs(
        tmp_path, SavesToo, save_strategy="epoch", load_best_model_at_end=True
    )
    trained.train()
    saved = load_file(tmp_path / "checkpoint-5" / MODEL)
    assert all(
        torch.equal(tensor, saved[name]) for name, tensor in trained.model.named_parameters()
    )


@pytest.mark.parametrize("disable_tqdm", [True, False])
def test_a_resumed_training_says_from_where_and_if_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], disable_tqdm: bool
) -> None:
    def lines(checkpoint: Any) -> list[str]:
        capsys.readouterr()
        trainer(tmp_path, disable_tqdm=disable_tqdm).train(checkpoint)
        return [line for line in capsys.readouterr().out.splitlines() if not line.startswith("{")]

    trainer(tmp_path, **EVERY_STEP).train()
    assert lines(None) == []
    [resumed] = lines(tmp_path / "checkpoint-4")
    assert str(tmp_path / "checkpoint-4") in resumed
    assert "step 4 of 10" in resumed
    [done] = lines(True)
    assert str(tmp_path / "checkpoint-10") in done
    assert "step 10 of 10" in done
    assert {"max_steps", "num_train_epochs"} <= set(done.replace(".", " ").split())


def test_callbacks_are_told_from_which_checkpoint_a_training_resumes(tmp_path: Path) -> None:
    class Sees(TrainerCallback):
        def on_train_begin(self, *args: Any, checkpoint_dir: Any = "", **kwargs: Any) -> None:
            seen.append(checkpoint_dir)

    seen: list[Any] = []
    trained = trainer(tmp_path, Sees, **EVERY_STEP)
    for checkpoint in (None, True, None):
        trained.train(checkpoint)
    assert seen == [None, str(tmp_path / "checkpoint-10"), None]


def test_paths_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    trained = trainer(Path("~/run"), max_steps=2, **EVERY_STEP)
    trained.train()
    trained.save_model("~/weights")
    trained.save_model(Path("~/again"))
    for named in ("~/run", Path("~/run/checkpoint-1"), "~/run/checkpoint-2/"):
        resumed = trainer(tmp_path / "other", max_steps=3)
        assert resumed.train(resume_from_checkpoint=named).global_step == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "run", "weights"]
