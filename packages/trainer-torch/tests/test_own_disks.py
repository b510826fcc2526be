"""Machines with a disk each resume from the same checkpoint, or not at all."""

from __future__ import annotations

from typing import Any

import own_disks_cases
import pytest
from launching import launch, reports

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("own_disks")
    done = launch(own_disks_cases.__file__, "own_disks", directory)
    assert done.returncode == 0, done.stderr
    return reports(directory)


def test_each_damaged_file_of_any_machine_is_noticed_by_all(ranks: Any) -> None:
    for rank in ranks:
        assert len(rank["each_node"]["damaged"]) > 5
        assert all(rank["each_node"]["damaged"].values())


def test_all_machines_resume_with_the_same_weights(ranks: Any) -> None:
    first, second = (rank["each_node"]["whole"] for rank in ranks)
    assert first == second
    assert first[0] == "run/checkpoint-4"


def test_a_checkpoint_that_one_machine_has_damaged_is_skipped_by_all(ranks: Any) -> None:
    first, second = (rank["each_node"]["older"] for rank in ranks)
    assert first == second
    assert first == ["run/checkpoint-4", ranks[0]["each_node"]["whole"][1]]


def test_a_checkpoint_of_another_training_on_one_machine_is_refused_by_all(ranks: Any) -> None:
    assert [rank["each_node"]["other"] for rank in ranks] == ["FileNotFoundError"] * 2


def test_a_machine_replaces_a_checkpoint_of_an_earlier_training_by_that_in_the_store(
    ranks: Any,
) -> None:
    first, second = (rank["stale"] for rank in ranks)
    assert first == second
    assert first[0] == "run/checkpoint-3"
