"""Errors in the input are raised before training starts, and name the part that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small import Net, arguments, compute_loss, data, net, trainer
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, TensorDataset

from callback_core import TrainerCallback
from trainer_torch import Trainer, TrainingArguments


class Started(TrainerCallback):
    """Knows whether training has begun."""

    begun = False

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        Started.begun = True


@pytest.fixture(autouse=True)
def not_begun() -> Any:
    Started.begun = False
    yield
    assert not Started.begun


class Silent(nn.Module):
    """Returns no loss."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, features: Any, labels: Any) -> Any:
        return {"scores": self.layer(features)}


def test_a_model_that_returns_no_loss(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Silent .*compute_loss"):
        trainer(tmp_path, Started, given={"model": Silent(), "compute_loss": None}).train()


class Returns(nn.Module):
    """Returns what a function makes of its scores."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.layer, self.function = nn.Linear(4, 3), function

    def forward(self, features: Any, labels: Any) -> Any:
        return self.function(self.layer(features))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda scores: (scores, 1), r"Returns .*\['loss'\]"),
        (lambda scores: scores.sum().detach(), "Returns .*no_grad"),
        (lambda scores: scores.sum(), "compute_metrics .*predictions"),
    ],
    ids=["not one number", "detached", "no predictions"],
)
def test_a_model_whose_output_cannot_be_used(tmp_path: Path, function: Any, message: str) -> None:
    given = {"model": Returns(function), "compute_loss": None, "compute_metrics": lambda _: {}}
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, Started, given=given).train()


def test_an_empty_dataset(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train_dataset"):
        trainer(tmp_path, Started, given={"train_dataset": data(0)}).train()


def test_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train_dataset"):
        trainer(tmp_path, Started, given={"train_dataset": None}).train()


@pytest.mark.parametrize("wanted", [{"eval_strategy": "epoch"}, {"eval_on_start": True}])
@pytest.mark.parametrize("dataset", [None, {}, data(0), {"a": data(3), "b": data(0)}])
def test_evaluation_without_data(tmp_path: Path, wanted: dict[str, Any], dataset: Any) -> None:
    with pytest.raises(ValueError, match=r"eval_strategy .*eval_on_start .*eval_dataset"):
        trainer(tmp_path, Started, given={"eval_dataset": dataset}, **wanted)


def test_a_metric_of_several_datasets_that_names_none_of_them(tmp_path: Path) -> None:
    given = {"eval_dataset": {"near": data(3), "far": data(3)}}
    with pytest.raises(ValueError, match="near_loss, far_loss"):
        trainer(tmp_path, Started, given=given, eval_strategy="epoch", metric_for_best_model="loss")


def test_a_schedule_of_another_optimizer(tmp_path: Path) -> None:
    model = net()
    schedule = StepLR(SGD(model.parameters(), lr=0.1), 1)
    for optimizer in (None, SGD(model.parameters(), lr=0.1)):
        with pytest.raises(ValueError, match="optimizers"):
            trainer(tmp_path, Started, given={"model": model, "optimizers": (optimizer, schedule)})


def test_an_output_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(ValueError, match=r"output_dir .*taken"):
        trainer(tmp_path / "taken", Started, save_strategy="epoch").train()


def test_a_model_whose_state_cannot_be_saved(tmp_path: Path) -> None:
    class Extra(Net):
        def get_extra_state(self) -> Any:
            return "text"

    with pytest.raises(ValueError, match="'_extra_state'"):
        trainer(tmp_path, Started, given={"model": Extra()}, save_strategy="epoch").train()


def test_shares_of_all_steps_that_leave_a_checkpoint_unevaluated(tmp_path: Path) -> None:
    steps = {"max_steps": 11, "eval_steps": 0.3, "save_steps": 0.6}
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps"}
    with pytest.raises(ValueError, match=r"save_steps\D+7\D+eval_steps\D+4"):
        trainer(tmp_path, Started, **best, **steps).train()


def test_saving_before_there_is_a_training(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="save_model"):
        trainer(tmp_path, Started).save_checkpoint()


def test_a_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="checkpoint-7"):
        trainer(tmp_path, Started).train(resume_from_checkpoint=tmp_path / "checkpoint-7")
    with pytest.raises(FileNotFoundError, match=tmp_path.name):
        trainer(tmp_path, Started).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("wrong", [dict, object(), "tensorboard"])
def test_a_callback_that_is_none(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"callback"):
        trainer(tmp_path, wrong)


def test_a_tracker_that_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ledger"):
        trainer(tmp_path, Started, report_to="ledger")


def test_a_frozen_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="parameter"):
        trainer(tmp_path, Started, given={"model": net().requires_grad_(False)}).train()


def test_a_plateau_schedule_without_a_metric(tmp_path: Path) -> None:
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    given = {"model": model, "optimizers": (optimizer, ReduceLROnPlateau(optimizer))}
    with pytest.raises(ValueError, match="metric_for_best_model"):
        trainer(tmp_path, Started, given=given).train()


def test_an_optimizer_of_another_model(tmp_path: Path) -> None:
    given = {"optimizers": (SGD(net().parameters(), lr=0.1), None)}
    with pytest.raises(ValueError, match=r"optimizer.*Net"):
        trainer(tmp_path, Started, given=given).train()


def test_a_model_that_is_replaced_after_its_optimizer_was_made(tmp_path: Path) -> None:
    model = net()
    given = {"model": model, "optimizers": (SGD(model.parameters(), lr=0.1), None)}
    made = trainer(tmp_path, Started, given=given)
    made.model = Net()
    with pytest.raises(ValueError, match=r"optimizer.*Net"):
        made.train()


@pytest.mark.parametrize(
    ("metric", "nearest"), [("los", "eval_loss"), ("eval_los", "eval_loss"), ("accuracy", "")]
)
def test_a_metric_that_no_evaluation_can_report(tmp_path: Path, metric: str, nearest: str) -> None:
    usual = {"eval_strategy": "epoch", "metric_for_best_model": metric}
    with pytest.raises(ValueError) as error:
        trainer(tmp_path, Started, **usual).train()
    for name in (f"'{metric}'", "compute_metrics", "eval_loss", nearest):
        assert name in str(error.value)


def test_a_misspelt_metric_of_one_of_several_datasets(tmp_path: Path) -> None:
    given = {"eval_dataset": {"near": data(3), "far": data(3)}}
    usual = {"eval_strategy": "epoch", "metric_for_best_model": "far_los"}
    with pytest.raises(ValueError, match="'eval_far_loss'"):
        trainer(tmp_path, Started, given=given, **usual).train()


def build(tmp_path: Path, **given: Any) -> Any:
    return trainer(tmp_path, Started, given=given)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"model": Net}, "class Net"),
        ({"model": None}, "Pass model or model_init"),
        ({"model": lambda batch: batch}, "model.*function"),
        ({"train_dataset": DataLoader(data())}, "train_dataset.*DataLoader.*get_train_dataloader"),
        ({"eval_dataset": DataLoader(data())}, "eval_dataset.*DataLoader.*get_eval_dataloader"),
        ({"eval_dataset": {"a": data(), "b": DataLoader(data())}}, r"eval_dataset\['b'\]"),
        ({"train_dataset": {"train": data(), "test": data()}}, "train_dataset.*'train', 'test'"),
        ({"train_dataset": tuple(data()[:])}, "train_dataset.*TensorDataset"),
        ({"train_dataset": "data.csv"}, "train_dataset.*str"),
        ({"train_dataset": TensorDataset}, "train_dataset.*TensorDataset"),
        ({"train_dataset": (number for number in range(9))}, "train_dataset.*generator"),
        ({"compute_loss": nn.CrossEntropyLoss()}, "compute_loss.*CrossEntropyLoss"),
        ({"compute_loss": nn.functional.mse_loss}, "compute_loss.*mse_loss"),
        ({"compute_loss": lambda outputs: 0}, "compute_loss.*the model"),
        ({"compute_loss": "cross_entropy"}, "compute_loss.*str"),
        ({"compute_metrics": "accuracy"}, "compute_metrics.*str"),
        ({"compute_metrics": lambda predictions, labels: {}}, "compute_metrics.*EvalPrediction"),
        ({"data_collator": lambda: None}, "data_collator.*samples"),
        ({"data_collator": Net}, "data_collator.*class Net"),
        ({"optimizers": SGD(net().parameters())}, r"optimizers.*SGD.*optimizer, None"),
        ({"optimizers": (SGD(net().parameters()),)}, r"optimizers.*1.*optimizer, None"),
        ({"optimizers": (SGD, None)}, r"optimizers.*class SGD"),
        ({"callbacks": Started()}, "Started.*list"),
        ({"callbacks": Started}, "Started.*list"),
        ({"callbacks": "tensorboard"}, "tensorboard.*list"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_a_part_of_a_wrong_type(tmp_path: Path, given: dict[str, Any], named: str) -> None:
    with pytest.raises(TypeError, match=f"(?s){named}"):
        build(tmp_path, **given)


def test_arguments_that_are_none(tmp_path: Path) -> None:
    args: Any = arguments(tmp_path)
    for given, named in [
        ((args, net()), r"TrainingArguments.*Net.*Trainer\(model, args\)"),
        ((net(), args.to_dict()), "args.*TrainingArguments"),
        ((net(), {}), "args.*TrainingArguments"),
        ((net(), "output"), "args.*str"),
        ((net(), TrainingArguments), "args.*TrainingArguments"),
        ((net(), data()), "args.*TensorDataset"),
        ((net(), net()), "args.*Net"),
    ]:
        with pytest.raises(TypeError, match=named):
            Trainer(*given)


def test_a_class_of_callbacks_that_needs_arguments(tmp_path: Path) -> None:
    class Patient(TrainerCallback):
        def __init__(self, patience: int) -> None:
            self.patience = patience

    with pytest.raises(TypeError, match=r"Patient.*instance.*patience"):
        trainer(tmp_path, Started, Patient)


@pytest.mark.parametrize("function", [list, tuple, dict.fromkeys, lambda samples, more=None: 1])
def test_functions_that_fit_are_taken(tmp_path: Path, function: Any) -> None:
    build(tmp_path, data_collator=function)


def as_mapping(dataset: TensorDataset) -> list[dict[str, Any]]:
    return [{"input": x, "labels": y} for x, y in zip(*dataset[:], strict=True)]


@pytest.mark.parametrize("dataset", [data(), as_mapping(data())], ids=["tuple", "mapping"])
def test_a_plain_model_without_a_loss(tmp_path: Path, dataset: Any) -> None:
    given = {"model": nn.Linear(4, 3), "compute_loss": None, "train_dataset": dataset}
    with pytest.raises(TypeError, match=r"Linear.*input.*compute_loss") as error:
        build(tmp_path, **given).train()
    assert any("check" in note for note in error.value.__notes__)
    with pytest.raises(TypeError, match=r"Linear.*compute_loss"):
        build(tmp_path, **given).evaluate(dataset)


def test_a_plain_model_of_which_a_batch_asks_nothing_but_its_input(tmp_path: Path) -> None:
    given = {"model": nn.Linear(4, 3), "compute_loss": None, "train_dataset": data()[:][0]}
    with pytest.raises(ValueError, match=r"Linear.*\(4, 3\).*compute_loss"):
        build(tmp_path, **given).train()


def test_lazy_parameters(tmp_path: Path) -> None:
    model = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())
    with pytest.raises(ValueError, match=r"0\.weight.*1\.running_mean"):
        build(tmp_path, model=model).train()


def test_label_names_that_are_no_list(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"label_names.*'target'"):
        arguments(tmp_path, label_names="target")


@pytest.mark.parametrize("returned", [None, 0.5])
def test_a_training_step_must_return_a_tensor(tmp_path: Path, returned: Any) -> None:
    class Own(Trainer):
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            super().training_step(*args, **kwargs)
            return returned

    made = Own(net(), arguments(tmp_path), None, data(), compute_loss=compute_loss)
    with pytest.raises(TypeError, match="training_step"):
        made.train()


def test_a_step_without_any_gradient_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Own(Trainer):
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            return self.compute_loss(model, inputs).detach()

    Own(net(), arguments(tmp_path), None, data(), compute_loss=compute_loss).train()
    (told,) = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert "gradient" in told
    assert "backward" in told


def test_loaders_that_are_none_are_refused_by_the_name_of_their_method(tmp_path: Path) -> None:
    class Own(Trainer):
        def get_train_dataloader(self) -> Any:
            return None

        def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
            return None

    made = Own(net(), arguments(tmp_path), None, data(), data(), compute_loss=compute_loss)
    with pytest.raises(TypeError, match="get_train_dataloader"):
        made.train()
    with pytest.raises(TypeError, match="get_eval_dataloader"):
        made.evaluate()
