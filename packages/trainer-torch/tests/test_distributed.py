"""Several processes under torchrun: they train as a single one would, and act together."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import distributed_cases
import numpy as np
import pytest
import torch
from distributed_cases import Stream, curve, results
from launching import launch, reports
from resuming import EVERY_STEP
from small import arguments, data, logged, trainer
from test_checkpoint import steps_of
from token_models import Mean, gradients_of
from torch import nn
from torch.utils.data.distributed import DistributedSampler

from trainer_torch.data.data_loaders import train_dataloader
from trainer_torch.data.position import LoopPosition
from trainer_torch.data.reading import begin_epoch
from trainer_torch.data.samplers import EpochSampler, RoundRobinSampler
from trainer_torch.ranks.distributed import find_world
from trainer_torch.ranks.world import SINGLE_PROCESS, World
from trainer_torch.storage.checkpoint import find_fault

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What two processes report of all that they do together, after two of them were killed."""
    directory = tmp_path_factory.mktemp("runs")
    killed = launch(distributed_cases.__file__, "killed", directory / "killed")
    steps_of_killed = steps_of(directory / "killed")
    single: dict[str, Any] = {"per_device_train_batch_size": 2, "max_steps": 5, **EVERY_STEP}
    trainer(directory / "single", **single).train()
    done = launch(distributed_cases.__file__, "together", directory / "together")
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(
        killed=killed,
        steps_of_killed=steps_of_killed,
        directory=directory,
        stdout=done.stdout,
        ranks=reports(directory / "together"),
    )


@pytest.mark.parametrize(
    ("name", "changed"),
    [("curve", {}), ("accumulated", {"gradient_accumulation_steps": 3})],
)
def test_two_processes_train_as_one_with_batches_of_double_the_size(
    runs: Any, tmp_path: Path, name: str, changed: dict[str, Any]
) -> None:
    alone = curve(tmp_path, 2 if changed else 4, **changed)
    for rank in runs.ranks:
        for part in ("losses", "grad_norms", "train_loss", "eval_losses", "accuracies", "epochs"):
            assert rank[name][part] == pytest.approx(alone[part], rel=1e-4), part
        for tensor, expected in zip(rank[name]["weights"], alone["weights"], strict=True):
            np.testing.assert_allclose(tensor, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("way", [0, 1])
def test_two_processes_give_the_gradient_of_all_their_padded_labels(
    runs: Any, tmp_path: Path, way: int
) -> None:
    changed = {"per_device_train_batch_size": 4}
    gradients, losses = gradients_of(tmp_path, lambda: {"model": Mean()}, **changed)
    alone = [torch.cat([part.flatten() for part in step]).tolist() for step in gradients]
    for rank in runs.ranks:
        assert rank["tokens"][way]["losses"] == pytest.approx(losses, rel=1e-6)
        for one, other in zip(rank["tokens"][way]["gradients"], alone, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_an_embedding_whose_gradients_are_sparse_trains_like_another_one(runs: Any) -> None:
    for rank in runs.ranks:
        sparse, dense = rank["rows"]
        assert sparse == pytest.approx(dense, rel=1e-5)


def test_both_processes_have_the_same_weights_and_the_same_losses(runs: Any) -> None:
    main, other = (rank["curve"] for rank in runs.ranks)
    assert {**main, "predictions": None, "labels": None} == other
    assert runs.ranks[0]["whole"]["weights"] == runs.ranks[1]["whole"]["weights"]
    assert runs.ranks[0]["whole"]["losses"] == runs.ranks[1]["whole"]["losses"]


def test_predictions_in_the_main_process_are_those_of_all_samples_in_their_order(
    runs: Any, tmp_path: Path
) -> None:
    alone = curve(tmp_path, 4)
    of_main = runs.ranks[0]["curve"]
    np.testing.assert_allclose(of_main["predictions"], alone["predictions"], rtol=1e-3)
    assert of_main["labels"] == data(9)[:][1].tolist()


def test_each_process_draws_its_own_random_numbers(runs: Any) -> None:
    assert runs.ranks[0]["whole"]["noise"] != runs.ranks[1]["whole"]["noise"]


def test_an_overflow_in_one_process_leaves_the_step_out_in_all(runs: Any) -> None:
    first, second = (rank["half"] for rank in runs.ranks)
    assert first["weights"] == second["weights"]
    assert first["scale"] == second["scale"] == 2.0**15
    assert first["rate"] == second["rate"] == pytest.approx(0.05 / 5)  # one step was left out


def test_several_processes_do_not_look_for_a_batch_size(runs: Any) -> None:
    assert all("auto_find_batch_size" in rank["half"]["refused"] for rank in runs.ranks)


def test_a_killed_training_resumes_to_the_bit(runs: Any) -> None:
    assert runs.killed.returncode != 0
    assert runs.steps_of_killed == [1, 2, 3, 4]
    for rank in runs.ranks:
        assert rank["resumed"] == rank["whole"]


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has no Muon")
def test_muon_and_a_schedule_of_a_metric_are_the_same_in_both_and_resume_to_the_bit(
    runs: Any,
) -> None:
    weights = [rank["muon"]["whole"]["weights"] for rank in runs.ranks]
    assert weights[0] == weights[1]
    for rank in runs.ranks:
        assert rank["muon"]["resumed"] == rank["muon"]["whole"]


@pytest.mark.parametrize(
    ("name", "happened", "step"),
    [
        ("stop", [["epoch", 2]], 2),
        ("epoch", [["epoch", 2], ["epoch", 4]], 4),
        ("save", [["save", 2], ["epoch", 3], ["epoch", 4]], 4),
        ("evaluate", [["evaluate", 2], ["epoch", 3], ["epoch", 4]], 4),
        ("log", [["log", 2], ["epoch", 3], ["epoch", 4]], 4),
        ("substep", [["epoch", 1]], 1),
        ("at log", [["log", 2], ["evaluate", 2], ["epoch", 3], ["log", 4], ["epoch", 4]], 4),
        ("at evaluate", [["epoch", 3], ["evaluate", 3]], 3),
        ("at epoch end", [["epoch", 3], ["save", 3], ["epoch", 4]], 4),
    ],
)
def test_what_one_process_asks_for_both_do_at_the_same_step(
    runs: Any, name: str, happened: list[Any], step: int
) -> None:
    for rank in runs.ranks:
        assert rank["flags"][name]["happened"] == happened
        assert rank["flags"][name]["step"] == step


def test_a_request_of_another_process_says_whose_it_is(runs: Any) -> None:
    of_main, of_other = (rank["flags"]["stop"]["requests"] for rank in runs.ranks)
    assert of_main == ["rank 1: Asks asked for should_training_stop at step 2"]
    assert of_other == ["Asks asked for should_training_stop at step 2"]
    [saved] = runs.ranks[0]["flags"]["save"]["saved"]["attributes"]["requests"]
    assert saved == {"flag": "should_save", "by": "rank 1: Asks", "step": 2, "reason": None}


def test_the_loss_is_given_the_wrapped_model_and_callbacks_the_bare_one(runs: Any) -> None:
    for rank in runs.ranks:
        assert rank["wrapping"]["given"] == ["DistributedDataParallel"]
        assert rank["wrapping"]["evaluated"] == rank["wrapping"]["seen"] == ["Plain"]
        assert rank["wrapping"]["wrapped"] == "Plain"  # after the training


def test_gradients_are_averaged_once_in_an_update_step(runs: Any) -> None:
    for rank in runs.ranks:
        assert rank["wrapping"]["averaging"] == [False, False, False, True] * 2


def test_a_model_that_is_wrapped_already_stays_so(runs: Any) -> None:
    assert [rank["wrapping"]["own"] for rank in runs.ranks] == [["Plain", 1]] * 2


def test_the_main_process_alone_shows_a_bar_and_logs(runs: Any) -> None:
    assert [rank["wrapping"]["bars"] for rank in runs.ranks] == [[True], [False]]
    assert [rank["wrapping"]["main"] for rank in runs.ranks] == [[True, True], [False, False]]
    assert runs.stdout.count("the bar") == runs.stdout.count("the printer") == 1


def test_a_checkpoint_is_whole_and_has_the_random_generators_of_each(runs: Any) -> None:
    checkpoint = runs.directory / "together" / "whole" / "checkpoint-5"
    assert find_fault(checkpoint) is None
    names = {path.name for path in checkpoint.iterdir()}
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= names
    assert "rng_state.pth" not in names
    assert (runs.directory / "together" / "wrapping" / "weights" / "model.safetensors").exists()


def test_an_epoch_ends_for_both_where_one_has_no_more_data(runs: Any) -> None:
    for rank in runs.ranks:  # 6 batches and 4: a step of three batches, and one of one
        assert rank["streams"]["uneven"] == [5, [["epoch", 2], ["epoch", 4], ["epoch", 5]]]


def test_of_an_iterable_dataset_each_takes_a_batch_in_turn_and_only_whole_turns(runs: Any) -> None:
    labels = data()[:][1].tolist()
    batches = [labels[first : first + 2] for first in range(0, 12, 2)]
    assert runs.ranks[0]["streams"]["taken"] == batches[2::2]
    assert runs.ranks[1]["streams"]["taken"] == batches[3::2]


def test_an_iterable_dataset_is_evaluated_to_its_end(runs: Any) -> None:
    main, other = (rank["streams"] for rank in runs.ranks)
    assert main["labels"] == data()[:5][1].tolist()
    assert main["prediction of one"] == data()[:1][1].tolist()
    assert main["eval_loss"] == other["eval_loss"]


def test_metrics_and_what_follows_from_them_are_those_of_the_main_process(runs: Any) -> None:
    main, other = (rank["evaluations"] for rank in runs.ranks)
    assert main == other
    assert [metrics["eval_score"] for metrics in main["metrics"]] == [0.0, 0.0]
    assert main["best"][0] == 0.0
    assert steps_of(runs.directory / "together" / "evaluations") == [2]


def test_a_signal_to_one_process_ends_all_after_the_same_step_with_one_checkpoint(
    runs: Any,
) -> None:
    for rank in runs.ranks:
        assert rank["signal"] == {
            "code": 128 + signal.SIGTERM,
            "step": 3,
            "saved": [3],
            "reasons": ["SIGTERM was received by rank 1"],
        }


def test_a_checkpoint_that_cannot_be_written_is_an_error_in_each_process(runs: Any) -> None:
    error = "OSError('no space left on device')"
    assert runs.ranks[0]["failing save"] == error
    assert error in runs.ranks[1]["failing save"]
    assert "Rank 0" in runs.ranks[1]["failing save"]


def test_a_training_goes_on_in_more_processes_and_says_so_once(runs: Any) -> None:
    main, other = (rank["more"] for rank in runs.ranks)
    assert main["warned"] == [[1, 2]]
    assert other["warned"] == []
    # 4 of 10 batches are 2 of the 5 in each process; the next step does the third
    assert main["epoch"] == pytest.approx(3 / 5)
    assert main["step"] == 4 + 8  # 2 of the 10 steps of two epochs are done


def test_a_training_goes_on_in_fewer_processes(
    runs: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = runs.directory / "together" / "whole" / "checkpoint-2"
    resumed = trainer(tmp_path, per_device_train_batch_size=2)
    resumed.train(resume_from_checkpoint=checkpoint)
    assert [record.args for record in caplog.records if record.args == (2, 1)] == [(2, 1)]
    assert resumed.state.global_step == 2 + 16  # 4 of 20 batches had been done, in 2 steps
    first = next(entry for entry in resumed.state.log_history if entry["step"] == 3)
    assert first["epoch"] == pytest.approx(5 / 10)


class Of(World):
    """One of several processes, as far as the data is concerned."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


@pytest.mark.parametrize("samples", [1, 2, 9, 10])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_samples_are_shared_as_torch_shares_them(samples: int, size: int) -> None:
    for rank in range(size):
        ours = EpochSampler(range(samples), seed=3, world=Of(rank, size))
        torchs: Any = DistributedSampler(data(samples), size, rank, seed=3)
        ours.set_epoch(2)
        torchs.set_epoch(2)
        assert list(ours) == list(torchs)
        assert len(ours) == len(torchs)
        whole = list(ours)
        assert ours.after(1) == whole[1:]


@pytest.mark.parametrize("samples", [0, 1, 4, 9, 12])
def test_every_sample_is_evaluated_once_in_batches_of_consecutive_ones(samples: int) -> None:
    samplers = [RoundRobinSampler(range(samples), 2, Of(rank, 3)) for rank in range(3)]
    assert sorted(index for sampler in samplers for index in sampler) == list(range(samples))
    assert list(samplers[1])[:2] == list(range(samples))[2:4]
    assert sum(len(sampler) for sampler in samplers) == samples


def test_one_process_alone_reads_an_iterable_dataset_as_it_is(tmp_path: Path) -> None:
    args = arguments(tmp_path, per_device_train_batch_size=2)
    position = LoopPosition(torch.device("cpu"))
    batches = begin_epoch(train_dataloader(Stream(5), None, args), args, position)
    assert [len(batch[1]) for batch in batches] == [2, 2, 1]


def test_one_process_under_torchrun_is_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert find_world(arguments(tmp_path)) is SINGLE_PROCESS
    trained = trainer(tmp_path)
    trained.train()
    assert len(results(trained)["losses"]) == len(logged(trained, "loss")) == 10


def test_a_world_size_without_a_launcher_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(
        RuntimeError, match=r"WORLD_SIZE is 2.* LOCAL_RANK, MASTER_ADDR, MASTER_PORT"
    ):
        trainer(tmp_path, given={"model": nn.Linear(4, 3)})
