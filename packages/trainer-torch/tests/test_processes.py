"""What arguments say of the processes, and the options of DistributedDataParallel."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed_cases
import pytest
import torch.distributed as dist
from distributed_cases import Plain
from launching import launch, reports
from small import arguments, net, trainer
from torch.nn.parallel import DistributedDataParallel

from trainer_torch.ranks.distributed import DistributedWorld, find_world


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What two processes report of their roles."""
    directory = tmp_path_factory.mktemp("roles")
    done = launch(distributed_cases.__file__, "roles", directory)
    assert done.returncode == 0, done.stderr
    return reports(directory)


@pytest.mark.slow
def test_processes_know_their_roles_before_and_after_they_are_connected(ranks: Any) -> None:
    for rank in range(2):
        assert ranks[rank]["known"] == ranks[rank]["connected"] == [rank, rank, 2]
        assert ranks[rank]["flags"] == [rank == 0, rank == 0, "distributed"]


@pytest.mark.slow
def test_the_main_process_goes_first_and_the_others_find_what_it_did(ranks: Any) -> None:
    assert [rank["seen"] for rank in ranks] == [[False, False], [True, True]]


@pytest.mark.slow
def test_a_static_graph_and_small_buckets_train_alike(ranks: Any) -> None:
    for rank in ranks:
        for part in ("losses", "grad_norms"):
            assert rank["optimized"][part] == pytest.approx(rank["usual"][part], rel=1e-5)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A group of this process alone, which DistributedDataParallel needs."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_the_options_of_ddp_are_those_of_the_arguments(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "ddp_find_unused_parameters": True,
        "ddp_bucket_cap_mb": 3,
        "ddp_broadcast_buffers": False,
    }
    wrapped: Any = DistributedWorld(arguments(tmp_path, **options)).wrap(Plain(norm=True))
    assert (wrapped.find_unused_parameters, wrapped.static_graph) == (True, False)
    assert not wrapped.will_sync_module_buffers()
    assert wrapped.bucket_bytes_cap == 3 * 1024 * 1024


@pytest.mark.usefixtures("group")
def test_the_options_of_ddp_are_its_defaults_without_arguments(tmp_path: Path) -> None:
    wrapped: Any = DistributedWorld(arguments(tmp_path)).wrap(Plain(norm=True))
    plain: Any = DistributedDataParallel(Plain(norm=True))
    assert wrapped.will_sync_module_buffers()
    for name in ("find_unused_parameters", "static_graph", "bucket_bytes_cap"):
        assert getattr(wrapped, name) == getattr(plain, name)


@pytest.mark.usefixtures("group")
def test_options_that_a_model_wrapped_by_the_user_does_not_get_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = DistributedWorld(arguments(tmp_path, ddp_bucket_cap_mb=3))
    world.wrap(DistributedDataParallel(net()))
    [record] = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert "ddp_bucket_cap_mb" in record.getMessage()


@pytest.mark.parametrize(
    "wrong",
    [{"ddp_bucket_cap_mb": 0}, {"ddp_broadcast_buffers": "no"}, {"ddp_static_graph": 2}],
)
def test_wrong_options_of_ddp_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        arguments(tmp_path, **wrong)


@pytest.fixture
def under_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what torchrun sets."""
    variables = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    for name, value in {**variables, "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("under_torchrun")
def test_a_backend_that_torch_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ddp_backend is 'smoke'"):
        find_world(arguments(tmp_path, ddp_backend="smoke"))


@pytest.mark.usefixtures("group")
def test_a_backend_other_than_that_of_connected_processes_is_refused(tmp_path: Path) -> None:
    find_world(arguments(tmp_path, ddp_backend="gloo"))
    with pytest.raises(ValueError, match=r"ddp_backend is 'nccl'.*gloo"):
        find_world(arguments(tmp_path, ddp_backend="nccl"))


def test_a_single_process_needs_no_backend(tmp_path: Path) -> None:
    assert trainer(tmp_path, ddp_backend="smoke", max_steps=1).train().global_step == 1
