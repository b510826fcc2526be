"""What a training tells of itself: its sizes, tokens, operations and memory."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import EVERY_STEP, StopAt
from small import Net, arguments, logged, net, trainer
from torch import Tensor, nn
from torch.utils.data import Dataset

from callback_core import TrainerCallback, TrainerState
from trainer_torch import Trainer, TrainingArguments
from trainer_torch.model.operations import MOST_SHAPES, OperationCounter
from trainer_torch.ranks.world import SINGLE_PROCESS
from trainer_torch.run.usage import Usage


class Tokens(Dataset[Any]):
    """Sequences of five tokens. The last ones of each are padding, 0 to 4 of them."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        ids = torch.arange(1, 6) + index % 3
        ids[5 - index % 5 :] = 0
        return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": ids}


class Language(nn.Module):
    """A bigram model."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embedding, self.head = nn.Embedding(10, 4), nn.Linear(4, 10)

    def forward(self, input_ids: Tensor, labels: Tensor, attention_mask: Any = None) -> Any:
        scores = self.head(self.embedding(input_ids))
        return nn.functional.cross_entropy(scores.flatten(0, 1), labels.flatten()), scores


def language(output_dir: Path, *callbacks: Any, data: Any = None, **changed: Any) -> Trainer:
    given = {"model": Language(), "compute_loss": None, "train_dataset": data or Tokens()}
    given |= {"eval_dataset": Tokens(), "callbacks": callbacks}
    return trainer(output_dir, given=given, **changed)


class Seen(TrainerCallback):
    """Notes the tokens that the state has at the end of each step."""

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.tokens.append(state.num_input_tokens_seen)


@pytest.mark.parametrize(("included", "in_epoch"), [("all", 100), (True, 100), ("non_padding", 60)])
def test_the_tokens_of_the_input_are_counted(tmp_path: Path, included: Any, in_epoch: int) -> None:
    seen = Seen()
    trained = language(tmp_path, seen, include_num_input_tokens_seen=included)
    output = trained.train()
    assert trained.state.num_input_tokens_seen == seen.tokens[-1] == 2 * in_epoch
    assert seen.tokens[4] == in_epoch
    assert logged(trained, "num_input_tokens_seen") == [*seen.tokens, 2 * in_epoch]
    assert output.metrics["train_tokens_per_second"] > 0


@pytest.mark.parametrize("included", ["no", False])
def test_tokens_are_not_counted_unless_asked_for(tmp_path: Path, included: Any) -> None:
    trained = language(tmp_path, include_num_input_tokens_seen=included)
    trained.train()
    assert trained.state.num_input_tokens_seen == 0
    assert logged(trained, "num_input_tokens_seen") == []


def test_without_a_mask_the_token_of_the_processing_class_is_padding(tmp_path: Path) -> None:
    class Unmasked(Tokens):
        def __getitem__(self, index: int) -> dict[str, Tensor]:
            item = super().__getitem__(index)
            return {name: item[name] for name in ("input_ids", "labels")}

    trained = language(tmp_path, data=Unmasked(), include_num_input_tokens_seen="non_padding")
    trained.callback_handler.processing_class = type("Tokenizer", (), {"pad_token_id": 0})()
    trained.train()
    assert trained.state.num_input_tokens_seen == 120


def test_who_asks_for_tokens_that_cannot_be_counted_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = trainer(tmp_path, include_num_input_tokens_seen="all")
    trained.train()
    told = [one.getMessage() for one in caplog.records if "main_input_name" in one.getMessage()]
    assert len(told) == 1
    assert trained.state.num_input_tokens_seen == 0


def test_the_model_names_its_input(tmp_path: Path) -> None:
    trained = language(tmp_path, include_num_input_tokens_seen="all")
    trained.model.main_input_name = "labels"  # type: ignore[assignment]
    trained.train()
    assert trained.state.num_input_tokens_seen == 200


def test_counts_resume_exactly_and_a_second_training_begins_with_none(tmp_path: Path) -> None:
    class Counted(Trainer):
        def floating_point_ops(self, inputs: Any) -> float:
            return float(inputs["input_ids"].numel())

    def counted(*callbacks: Any) -> Trainer:
        made = language(tmp_path, *callbacks, include_num_input_tokens_seen="all", **EVERY_STEP)
        made.__class__ = Counted
        return made

    counted(StopAt(3)).train()
    resumed = counted()
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.num_input_tokens_seen == resumed.state.total_flos == 200
    assert logged(resumed, "total_flos") == [200]
    resumed.train()
    assert resumed.state.num_input_tokens_seen == resumed.state.total_flos == 200


def test_the_arguments_are_those_of_transformers() -> None:
    args = TrainingArguments(include_num_input_tokens_seen=True)
    assert args.include_num_input_tokens_seen == "all"
    for name in ("include_num_input_tokens_seen", "log_level", "log_level_replica"):
        with pytest.raises(ValueError, match=name):
            arguments(Path("run"), **{name: "some"})


def test_the_log_at_the_end_has_the_memory_if_asked_for(tmp_path: Path) -> None:
    trained = trainer(tmp_path, skip_memory_metrics=False)
    metrics = trained.train().metrics
    assert metrics["train_mem_cpu_peaked_delta"] >= 0
    assert isinstance(metrics["train_mem_cpu_alloc_delta"], int)
    assert "train_mem_cpu_alloc_delta" in trained.state.log_history[-1]
    assert not any("mem" in name for name in trainer(tmp_path).train().metrics)


def test_the_sizes_of_a_training_are_told_at_info(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = trainer(tmp_path, gradient_accumulation_steps=2)
    trained.model.get_submodule("layers.0").requires_grad_(False)
    caplog.set_level(logging.INFO, "trainer_torch")
    trained.train()
    [told] = [one.getMessage() for one in caplog.records if "Running" in one.getMessage()]
    for size in ("samples: 20", "epochs: 2", "device: 4", "total batch size: 8"):
        assert size in told
    for size in ("update steps: 6", "trainable parameters: 27", "processes: 1"):
        assert size in told


class LevelSeen(TrainerCallback):
    """Notes the levels of the loggers during a training."""

    def __init__(self) -> None:
        self.levels: list[int] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        names = ("trainer_torch.loop.training_loop", "callback_core.handler")
        self.levels = [logging.getLogger(name).getEffectiveLevel() for name in names]


@pytest.mark.parametrize(
    ("environment", "changed", "level"),
    [
        ({}, {"log_level": "info"}, logging.INFO),
        ({}, {"log_level": "error"}, logging.ERROR),
        ({"RANK": "1", "LOCAL_RANK": "1"}, {"log_level": "info"}, logging.WARNING),
        ({"RANK": "8", "LOCAL_RANK": "0"}, {"log_level": "info"}, logging.INFO),
        (
            {"RANK": "8", "LOCAL_RANK": "0"},
            {"log_level": "info", "log_on_each_node": False, "log_level_replica": "critical"},
            logging.CRITICAL,
        ),
    ],
)
def test_the_level_of_messages_holds_during_the_training(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    changed: dict[str, Any],
    level: int,
) -> None:
    seen = LevelSeen()
    trained = trainer(tmp_path, seen, **changed)
    for name, value in {**environment, "WORLD_SIZE": "16" if environment else "1"}.items():
        monkeypatch.setenv(name, value)
    assert trained.args.get_process_log_level() == level
    before = [logging.getLogger(name).level for name in ("trainer_torch", "callback_core")]
    trained.train()
    assert seen.levels == [level, level]
    loggers = [logging.getLogger(name) for name in ("trainer_torch", "callback_core")]
    assert [one.level for one in loggers] == before
    assert all(one.handlers == [] for one in loggers)


def test_a_passive_level_is_that_of_the_program(tmp_path: Path) -> None:
    seen = LevelSeen()
    logging.getLogger("trainer_torch").setLevel(logging.ERROR)
    try:
        trained = trainer(tmp_path, seen)
        trained.train()
        assert trained.args.get_process_log_level() == logging.ERROR
        assert seen.levels[0] == logging.ERROR
    finally:
        logging.getLogger("trainer_torch").setLevel(logging.NOTSET)


def test_messages_at_info_are_shown_where_the_program_has_set_up_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    trainer(tmp_path, log_level="info").train()
    assert "Running training" in capsys.readouterr().err


def test_operations_are_counted_once_for_each_shape() -> None:
    model, counter = nn.Linear(4, 3), OperationCounter()

    def step(size: int) -> None:
        batch = torch.randn(size, 4)
        with counter.counting(batch):
            model(batch).sum().backward()

    step(2)
    step(8)
    # The gradient of the input is not needed: two products of 2 x 4 x 3 each sample.
    assert [counter.of(torch.zeros(size, 4)) for size in (2, 8)] == [96, 384]
    restored = OperationCounter()
    restored.load_state_dict(counter.state_dict())
    assert restored.of({"x": torch.zeros(2, 4)}) == 96


def test_the_operations_of_many_shapes_are_estimated_and_that_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, counter = nn.Linear(4, 3), OperationCounter()
    for size in range(1, MOST_SHAPES + 4):
        batch = torch.randn(size, 4)
        with counter.counting(batch):
            model(batch).sum().backward()
        assert counter.of(batch) == 48 * size
    assert len(caplog.records) == 1


def test_the_operations_of_a_trainer_are_those_that_a_subclass_says(tmp_path: Path) -> None:
    class Counted(Trainer):
        def floating_point_ops(self, inputs: Any) -> float:
            return 10.0

    trained = trainer(tmp_path)
    trained.__class__ = Counted
    assert trained.train().metrics["total_flos"] == 100
    assert trainer(tmp_path, given={"model": net()}).train().metrics.get("total_flos") is None
    assert isinstance(trained.model, Net)


def test_tokens_on_a_device_are_read_at_logs_only(tmp_path: Path) -> None:
    args = arguments(tmp_path, include_num_input_tokens_seen="non_padding")
    usage, state = Usage(args, SINGLE_PROCESS, pytest.fail, measures=True), TrainerState()
    unreadable = torch.ones(2, 5, device="meta")  # as a device that must not be waited for
    usage.add({"input_ids": unreadable, "attention_mask": unreadable}, 2, 0.0)
    usage.end_step(state)
    assert state.num_input_tokens_seen == 0
    with pytest.raises(RuntimeError, match="meta"):
        usage.publish(state)
