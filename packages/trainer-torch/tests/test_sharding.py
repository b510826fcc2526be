"""Sharded models train as those of DDP do, and are saved by all processes together."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sharding_cases
import torch
import torch.distributed as dist
from interrupted_steps_cases import FailsInBackward
from launching import launch, reports
from safetensors.torch import load_file
from sharding_cases import Blocks, made, samples, seen
from test_failing_disk import MODES, Full, Limit
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from trainer_torch import Trainer, WeightAveragingCallback
from trainer_torch.checkpoints.selection import find_checkpoint
from trainer_torch.storage.checkpoint import find_fault, has_only_model, list_checkpoints

pytestmark = pytest.mark.slow

PARTS = ("loss", "grad_norm", "eval_loss", "eval_samples")


def ran(directory: Path, case: str, processes: int) -> list[Any]:
    """Return what each process of `case` reports."""
    done = launch(sharding_cases.__file__, case, directory, processes)
    assert done.returncode == 0, done.stderr
    return reports(directory, processes)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A training in four processes, and resumed in two."""
    directory = tmp_path_factory.mktemp("sharded")
    four = ran(directory / "four", "four", 4)
    return SimpleNamespace(
        directory=directory, four=four, resumed=ran(directory / "resumed", "resumed", 2)
    )


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What two processes report of many ways to train."""
    return ran(tmp_path_factory.mktemp("two"), "two", 2)


def test_four_processes_have_the_losses_and_the_clipped_norms_of_ddp(runs: Any) -> None:
    for rank in runs.four:
        assert len(rank["fsdp"]["loss"]) == 50
        assert rank["fsdp"]["loss"] == pytest.approx(rank["ddp"]["loss"], abs=1e-6)
        assert rank["fsdp"]["grad_norm"] == pytest.approx(rank["ddp"]["grad_norm"], rel=1e-4)
        assert min(rank["ddp"]["grad_norm"]) > 0.05  # so that all are clipped


def test_each_of_four_processes_keeps_less_than_a_third(runs: Any) -> None:
    for rank in runs.four:
        for own, whole in zip(rank["fsdp"]["kept"], rank["ddp"]["kept"], strict=True):
            assert 0 < own <= 0.3 * whole


def test_the_main_process_gathers_the_weights_that_ddp_has(runs: Any) -> None:
    whole, gathered = (
        load_file(runs.directory / "four" / f"{name}_weights" / "model.safetensors")
        for name in ("ddp", "fsdp")
    )
    assert whole.keys() == gathered.keys()
    for name, value in whole.items():
        torch.testing.assert_close(gathered[name], value, rtol=1e-4, atol=1e-5)


def test_nothing_large_is_written_by_one_process(runs: Any) -> None:
    checkpoint = runs.directory / "four" / "fsdp" / "checkpoint-25"
    files = {
        str(path.relative_to(checkpoint)): path.stat().st_size
        for path in checkpoint.rglob("*")
        if path.is_file()
    }
    parts = [size for name, size in files.items() if name.endswith(".distcp")]
    others = [size for name, size in files.items() if not name.endswith(".distcp")]
    assert max(others) < 1_000_000 < sum(parts)
    assert max(parts) <= 0.3 * sum(parts)


def test_two_processes_and_then_one_resume_what_four_have_saved(runs: Any, tmp_path: Path) -> None:
    expected = runs.four[0]["fsdp"]["loss"]
    for rank in runs.resumed:
        assert rank["loss"] == pytest.approx(expected, abs=1e-6)
    averaging = WeightAveragingCallback(0.5)
    alone = made(tmp_path, averaging, model=Blocks(96), max_steps=50)
    alone.train(runs.directory / "resumed" / "fsdp" / "checkpoint-35")
    assert seen(alone)["loss"] == pytest.approx(expected, abs=1e-6)
    whole = load_file(runs.directory / "four" / "ddp_weights" / "model.safetensors")
    for name, value in whole.items():  # the average, with which a training ends
        torch.testing.assert_close(alone.model.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_each_damaged_file_is_recognised(runs: Any) -> None:
    checkpoint = runs.directory / "four" / "fsdp" / "checkpoint-50"
    assert find_fault(checkpoint) is None
    assert not has_only_model(checkpoint)
    for path in [one for one in checkpoint.rglob("*") if one.is_file()]:
        before = path.read_bytes()
        for damaged in (before[:-1], b"", before[:20] + bytes([before[20] ^ 1]) + before[21:]):
            path.write_bytes(damaged)
            faults = [find_fault(checkpoint, part, 2) for part in range(2)]
            assert any(faults), path
        path.unlink()
        assert find_fault(checkpoint)
        path.write_bytes(before)
    assert find_fault(checkpoint) is None


WAYS = ["accumulated", "evaluated", "recomputed", "kept", "whole", "sgd", "skips"]


@pytest.mark.parametrize("way", WAYS)
def test_a_sharded_model_trains_as_with_ddp(two: Any, way: str) -> None:
    for rank in two:
        sharded, whole = rank["ways"][way]
        for part in PARTS:
            assert sharded[part] == pytest.approx(whole[part], rel=1e-4), part
        assert sharded["loss"] == pytest.approx(whole["loss"], abs=1e-6)


def test_an_average_of_sharded_weights_is_evaluated_as_with_ddp(two: Any) -> None:
    for rank in two:
        *sharded, whole = rank["averaged"]
        assert len(whole["eval_loss"]) == 4
        for each in sharded:
            assert each["loss"] == pytest.approx(whole["loss"], abs=1e-6)
            assert each["eval_loss"] == pytest.approx(whole["eval_loss"], abs=1e-6)


def test_an_error_in_the_evaluation_of_an_average_leaves_the_weights_of_the_training(
    two: Any,
) -> None:
    for rank in two:
        resumed, whole = rank["failed"]["resumed"], rank["failed"]["whole"]
        assert resumed["loss"] == pytest.approx(whole["loss"], abs=1e-6)


def test_evaluations_count_each_sample_once_although_processes_have_other_numbers_of_batches(
    two: Any,
) -> None:
    for rank in two:
        assert rank["ways"]["evaluated"][0]["eval_samples"] == [10, 10]


def test_a_model_is_evaluated_before_two_trainings(two: Any) -> None:
    for rank in two:
        loss, first, second, whole = rank["before"]
        assert loss > 0
        assert first == pytest.approx(whole, abs=1e-6)
        assert second[0] < first[0]  # the second training begins with the weights of the first


def test_a_model_that_the_user_has_sharded_is_trained_as_it_is(two: Any) -> None:
    for rank in two:
        assert rank["own"]["loss"] == pytest.approx(rank["usual"]["loss"], abs=1e-6)


def test_a_model_in_tensor_parallelism_is_trained_with_data_of_the_user(two: Any) -> None:
    for rank in two:
        losses = rank["in_parallel"]
        assert len(losses["parallel"]) == 8
        assert losses["whole"] == pytest.approx(losses["parallel"], abs=1e-5)


def test_a_sharded_checkpoint_that_was_written_beside_the_training_is_resumed(two: Any) -> None:
    for rank in two:
        assert rank["of_async"]["loss"] == pytest.approx(rank["usual"]["loss"], abs=1e-6)


def test_a_checkpoint_of_ddp_is_resumed_with_a_sharded_model(two: Any) -> None:
    for rank in two:
        assert rank["from_plain"]["loss"] == pytest.approx(rank["usual"]["loss"], abs=1e-6)


def test_the_best_model_is_loaded_from_shards(two: Any) -> None:
    for rank in two:
        assert rank["best"]["loaded"] == pytest.approx(rank["best"]["best"], abs=1e-6)


def test_a_training_goes_back_to_a_sharded_checkpoint(two: Any) -> None:
    for rank in two:
        assert rank["rollback"] == {"bad": 1, "step": 8, "is_finite": True}


def test_an_overflow_in_one_process_lowers_the_scale_in_all(two: Any) -> None:
    scales = [rank["half"]["scale"] for rank in two]
    assert scales[0] == scales[1] == 2.0**14  # in each of two steps


def test_processes_without_a_common_disk_are_named_before_they_train(two: Any) -> None:
    for rank in two:
        assert "rank 1" in rank["apart"]
        assert "host1" in rank["apart"]


def test_policies_choose_the_units(two: Any) -> None:
    blocks = ["blocks.0", "blocks.1", "blocks.2"]
    for rank in two:
        assert rank["units"]["class"] == ["", *blocks]
        halves = [f"{block}.{half}" for block in blocks for half in ("up", "down")]
        assert rank["units"]["size"] == ["", *halves]
        assert rank["units"]["function"] == ["", "blocks.1"]
        assert rank["units"]["absent"] == rank["units"]["tied"] == "ValueError"


def test_a_process_that_is_killed_while_saving_leaves_nothing_that_is_chosen(
    tmp_path: Path,
) -> None:
    assert launch(sharding_cases.__file__, "killed", tmp_path).returncode != 0
    assert [one.name for one in list_checkpoints(tmp_path)] == ["checkpoint-4"]
    assert find_checkpoint(True, tmp_path).name == "checkpoint-4"


def test_a_process_whose_disk_is_full_ends_the_save_in_all_and_not_the_training(
    tmp_path: Path,
) -> None:
    for step, failed, names in ran(tmp_path, "failing", 2):
        assert step == 8
        assert failed == [[4, errno.ENOSPC], [8, errno.ENOSPC]]
        assert not any("checkpoint" in name for name in names)


@pytest.mark.parametrize("case", ["all_raise", "one_raises"])
def test_a_checkpoint_that_is_being_written_when_an_error_comes_is_whole_in_the_end(
    tmp_path: Path, case: str
) -> None:
    assert launch(sharding_cases.__file__, case, tmp_path).returncode != 0
    assert find_checkpoint(True, tmp_path).name == "checkpoint-4"


def test_a_checkpoint_that_one_process_cannot_write_when_an_error_comes_is_told_and_removed(
    tmp_path: Path,
) -> None:
    done = launch(sharding_cases.__file__, "raises_after_a_failure", tmp_path)
    assert done.returncode != 0
    assert done.stderr.count("LookupError: broken on purpose") == 1
    assert not list(tmp_path.glob("*checkpoint*"))


@pytest.fixture
def group_of_one() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def sharded_by_user(out: Path, *callbacks: Any, **changed: Any) -> Trainer:
    """Return a trainer of a model that the user has sharded for a single process."""
    model = Blocks(64)
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    args = made(out, save_strategy="steps", **changed).args
    return Trainer(model, args, train_dataset=samples(600), callbacks=list(callbacks))


@MODES
@pytest.mark.usefixtures("group_of_one")
def test_a_single_process_resumes_a_model_that_the_user_has_sharded(
    tmp_path: Path, save_async: bool
) -> None:
    whole = sharded_by_user(tmp_path, save_async=save_async)
    whole.train()
    resumed = sharded_by_user(tmp_path, save_async=save_async)
    resumed.train(tmp_path / "checkpoint-4")
    assert seen(resumed) == seen(whole)


@MODES
@pytest.mark.usefixtures("group_of_one")
def test_a_disk_that_is_full_while_shards_are_written_ends_the_save_and_not_the_training(
    tmp_path: Path, save_async: bool
) -> None:
    limit = Limit()
    trained = sharded_by_user(tmp_path, Full(limit, 8), save_async=save_async, save_steps=8)
    limit.train(trained)
    assert trained.state.global_step == 8
    assert [one.step for one in trained.run.saves.failed] == [8]
    assert not list(tmp_path.glob("*checkpoint*"))


class RunsOutOfMemory(FailsInBackward):
    """Memory runs out in a backward pass."""

    error = torch.OutOfMemoryError("out of memory")


@pytest.mark.usefixtures("group_of_one")
def test_a_backward_pass_in_which_memory_runs_out_is_repeated_with_a_sharded_model(
    tmp_path: Path,
) -> None:
    model = RunsOutOfMemory()
    fully_shard(model.blocks[0], mesh=init_device_mesh("cpu", (1,)))
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    finds = made(tmp_path, model=model, auto_find_batch_size=True)
    whole = made(tmp_path)
    for each in (finds, whole):
        each.train()
    assert finds.run.args.per_device_train_batch_size == 4
    for name in ("loss", "grad_norm"):
        assert seen(finds)[name] == pytest.approx(seen(whole)[name], rel=1e-4)
