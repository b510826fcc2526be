"""Copies of tensors that a thread writes while training continues."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from trainer_torch.model.shards import Shards
from trainer_torch.model.staging import Staged, Staging
from trainer_torch.ranks.world import SINGLE_PROCESS
from trainer_torch.storage.saves import Save
from trainer_torch.storage.sharded_writing import make_temporary_folder, write_own_part


@pytest.fixture
def group_of_one() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group_of_one")
def test_the_own_part_of_a_sharded_tensor_is_copied_into_memory_that_is_reused() -> None:
    mesh = init_device_mesh("cpu", (1,))
    values = torch.arange(8.0)
    sharded = distribute_tensor(values.clone(), mesh, [Shard(0)])
    staging = Staging()
    first: Any = staging.copy(Shards({"weight": sharded})).values.tensors["weight"]
    sharded.to_local().zero_()
    assert torch.equal(first.full_tensor(), values)
    assert (first.placements, first.device_mesh) == (sharded.placements, mesh)
    second: Any = staging.copy(Shards({"weight": sharded})).values.tensors["weight"]
    assert second.to_local().data_ptr() == first.to_local().data_ptr()
    assert not second.full_tensor().any()


def devices_in(file: Path) -> list[str]:
    """Return the devices that a file of `torch.save` names."""
    found: list[str] = []

    def note(storage: Any, device: str) -> Any:
        found.append(device)
        return storage

    torch.load(file, map_location=note)
    return found


def test_a_part_of_a_sharded_checkpoint_says_on_which_device_a_tensor_was(tmp_path: Path) -> None:
    tensor = torch.arange(8.0)
    staged = Staged({"own.pt": tensor}, {tensor.untyped_storage().data_ptr(): "cuda:1"})
    final = tmp_path / "checkpoint-1"
    begun = make_temporary_folder(final, SINGLE_PROCESS)
    save = Save(1, 1.0, final, finite=True, written=1.0, best=None)
    assert write_own_part(save, staged, SINGLE_PROCESS, begun)
    assert devices_in(final / "own.pt") == ["cuda:1"]
