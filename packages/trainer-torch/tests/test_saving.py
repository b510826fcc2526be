"""When checkpoints are saved, where, and what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import EVERY_STEP
from safetensors.torch import load_file
from small import arguments, compute_loss, data, net, trainer
from torch import nn

from callback_core import TrainerCallback
from trainer_torch import LoopCallback, SafeTensors, Trainer
from trainer_torch.model.weights import MODEL
from trainer_torch.storage.checkpoint import list_checkpoints, read_json
from trainer_torch.testing import At

BEST: dict[str, Any] = {
    "save_strategy": "best",
    "eval_strategy": "steps",
    "eval_steps": 1,
    "metric_for_best_model": "score",
}


def scored(out: Path, *scores: float, callbacks: Any = None, **changed: Any) -> Trainer:
    """Return a trainer whose evaluations report `scores`, one after the other."""
    values = iter(scores)
    return Trainer(
        net(),
        arguments(out, **{"max_steps": len(scores), **BEST, **changed}),
        None,
        data(),
        data(9),
        compute_loss=compute_loss,
        compute_metrics=lambda _: {"score": next(values)},
        callbacks=callbacks,
    )


def steps_of(out: Path) -> list[int]:
    return [int(one.name.rpartition("-")[2]) for one in list_checkpoints(out)]


def test_best_saves_whenever_the_metric_is_better(tmp_path: Path) -> None:
    made = scored(tmp_path, 0.1, 0.3, 0.2, float("nan"), 0.4, 0.4)
    made.train()
    assert steps_of(tmp_path) == [1, 2, 5]
    assert made.state.best_model_checkpoint == str(tmp_path / "checkpoint-5")


def test_best_keeps_one_checkpoint_and_loads_it(tmp_path: Path) -> None:
    made = scored(
        tmp_path,
        0.3,
        0.1,
        0.2,
        greater_is_better=False,
        save_total_limit=1,
        load_best_model_at_end=True,
    )
    made.train()
    assert steps_of(tmp_path) == [2]
    saved = load_file(tmp_path / "checkpoint-2" / MODEL)
    assert all(torch.equal(one, saved[name]) for name, one in made.model.state_dict().items())


def test_best_saves_by_epoch_too(tmp_path: Path) -> None:
    made = scored(tmp_path, *([0.5] * 10), eval_strategy="epoch")
    made.train()
    assert steps_of(tmp_path) == [5]


def test_a_checkpoint_that_a_callback_asks_for_is_saved_beside_the_best(tmp_path: Path) -> None:
    class Asks(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_save = state.global_step == 3

    scored(tmp_path, 0.9, 0.1, 0.2, 0.3, callbacks=[Asks()]).train()
    assert steps_of(tmp_path) == [1, 3]


def test_a_resumed_training_knows_the_best_so_far(tmp_path: Path) -> None:
    scored(tmp_path, 0.1, 0.9).train()
    resumed = scored(tmp_path, 0.5, 0.95, max_steps=4)
    resumed.train(resume_from_checkpoint=True)
    assert steps_of(tmp_path) == [1, 2, 4]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"eval_strategy": "no"}, "eval_strategy"),
        ({"metric_for_best_model": None}, "metric_for_best_model"),
    ],
)
def test_best_needs_evaluations_and_a_metric(
    tmp_path: Path, changed: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        arguments(tmp_path, **{**BEST, **changed})


@pytest.mark.parametrize("name", ["eval_strategy", "logging_strategy"])
def test_only_saving_takes_best(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        arguments(tmp_path, **{name: "best"})


def test_best_does_not_ask_for_multiples_of_steps(tmp_path: Path) -> None:
    changed = {**BEST, "eval_steps": 3, "save_steps": 500, "load_best_model_at_end": True}
    assert arguments(tmp_path, **changed).save_strategy == "best"


def test_only_the_model_and_the_state_are_saved(tmp_path: Path) -> None:
    trainer(tmp_path, max_steps=1, save_only_model=True, **EVERY_STEP).train()
    names = {path.name for path in (tmp_path / "checkpoint-1").iterdir()}
    assert names == {MODEL, "trainer_state.json", "manifest.json"}


@pytest.mark.parametrize("named", [True, False])
def test_a_checkpoint_of_only_the_model_cannot_be_resumed(tmp_path: Path, named: bool) -> None:
    trainer(tmp_path, max_steps=2, save_only_model=True, **EVERY_STEP).train()
    where = tmp_path / "checkpoint-1" if named else True
    with pytest.raises(ValueError, match="save_only_model"):
        trainer(tmp_path).train(resume_from_checkpoint=where)


def test_an_older_checkpoint_with_the_optimizer_is_taken(tmp_path: Path) -> None:
    trainer(tmp_path, max_steps=2, **EVERY_STEP).train()
    made = trainer(tmp_path, max_steps=3, save_only_model=True, **EVERY_STEP)
    made.train(resume_from_checkpoint=True)
    resumed = trainer(tmp_path, max_steps=3)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.run.resumed_from == tmp_path / "checkpoint-2"


def test_the_best_of_checkpoints_of_only_the_model_is_loaded(tmp_path: Path) -> None:
    made = scored(
        tmp_path, 0.3, 0.9, 0.2, save_only_model=True, load_best_model_at_end=True, **EVERY_STEP
    )
    made.train()
    saved = load_file(tmp_path / "checkpoint-2" / MODEL)
    assert all(torch.equal(one, saved[name]) for name, one in made.model.state_dict().items())


def test_who_interrupts_is_not_told_to_resume_from_only_the_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    made = trainer(tmp_path, At(3, interrupt), save_only_model=True, **EVERY_STEP)
    with pytest.raises(KeyboardInterrupt):
        made.train()
    assert "resume_from_checkpoint" not in caplog.text
    assert "save_only_model" in caplog.text


@pytest.mark.parametrize(
    "changed", [{"save_strategy": "no"}, {"save_strategy": "steps", "save_only_model": True}]
)
def test_rollback_needs_whole_checkpoints(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="on_non_finite"):
        arguments(tmp_path, on_non_finite="rollback", **changed)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", []),
        (None, []),
        ("underflow_overflow", ["underflow_overflow"]),
        (["underflow_overflow"], ["underflow_overflow"]),
    ],
)
def test_debug_is_a_list_of_options(tmp_path: Path, given: Any, kept: list[str]) -> None:
    assert arguments(tmp_path, debug=given).debug == kept


@pytest.mark.parametrize(
    "changed",
    [{"debug": "tpu_metrics_debug"}, {"on_non_finite": "ignore"}, {"logging_nan_inf_filter": True}],
)
def test_what_is_not_done_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changed))):
        arguments(tmp_path, **changed)


class Keeps(LoopCallback):
    """Adds files to checkpoints, and collects what it reads from one."""

    def __init__(self, files: dict[str, Any]) -> None:
        self.files = files
        self.read: dict[str, Any] = {}

    def checkpoint_files(self, model: nn.Module) -> dict[str, Any]:
        return self.files

    def load_files(self, model: nn.Module, checkpoint: Path) -> None:
        self.read = {
            "json": read_json(checkpoint / "mine.json"),
            "pt": torch.load(checkpoint / "mine.pt", weights_only=True),
            "safetensors": load_file(checkpoint / "mine.safetensors"),
        }


def test_a_callback_reads_the_files_that_it_has_added_to_a_checkpoint(tmp_path: Path) -> None:
    ones = {"ones": torch.ones(2)}
    files = {"mine.json": [1, "a"], "mine.pt": ones, "mine.safetensors": SafeTensors(ones, {})}
    trainer(tmp_path, Keeps(files), **EVERY_STEP, max_steps=1).train()
    resumed = Keeps(files)
    trainer(tmp_path, resumed, **EVERY_STEP, max_steps=2).train(resume_from_checkpoint=True)
    assert resumed.read["json"] == [1, "a"]
    assert torch.equal(resumed.read["pt"]["ones"], ones["ones"])
    assert torch.equal(resumed.read["safetensors"]["ones"], ones["ones"])


def test_a_callback_cannot_replace_a_file_of_the_trainer(tmp_path: Path) -> None:
    training = trainer(tmp_path, Keeps({MODEL: SafeTensors({}, {})}), **EVERY_STEP)
    with pytest.raises(ValueError, match=MODEL):
        training.train()


def test_a_training_clears_what_a_kill_has_left_in_a_save(tmp_path: Path) -> None:
    trainer(tmp_path, **EVERY_STEP, max_steps=2).train()
    (tmp_path / "checkpoint-2").rename(tmp_path / ".checkpoint-2.replaced")
    (tmp_path / ".checkpoint-7.part").mkdir()
    resumed = trainer(tmp_path, **EVERY_STEP, max_steps=3)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.run.resumed_from == tmp_path / "checkpoint-2"
    assert not list(tmp_path.glob(".checkpoint-*"))


def test_a_checkpoint_that_was_replaced_is_not_put_back(tmp_path: Path) -> None:
    trainer(tmp_path, **EVERY_STEP, max_steps=2).train()
    (tmp_path / "checkpoint-1").rename(tmp_path / ".checkpoint-2.replaced")
    trainer(tmp_path, **EVERY_STEP, max_steps=3).train(resume_from_checkpoint=True)
    assert [one.name for one in list_checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-3"]
    assert not list(tmp_path.glob(".checkpoint-*"))
