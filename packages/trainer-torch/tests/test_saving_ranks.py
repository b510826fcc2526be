"""Two processes agree on what was saved, and when."""

from __future__ import annotations

from typing import Any

import pytest
import saving_cases
from launching import launch, reports

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("saving")
    done = launch(saving_cases.__file__, "saving", directory)
    assert done.returncode == 0, done.stderr
    return reports(directory)


def test_both_see_each_checkpoint_at_the_same_step_and_complete(ranks: Any) -> None:
    assert ranks[0]["seen"] == ranks[1]["seen"]
    assert [name for _, name, _ in ranks[0]["seen"]] == [f"checkpoint-{n}" for n in range(1, 6)]
    assert all(is_whole for *_, is_whole in ranks[0]["seen"])


def test_a_disk_that_fails_in_one_fails_the_save_in_both(ranks: Any) -> None:
    assert ranks[0]["failures"] == ranks[1]["failures"]
    failures = ranks[0]["failures"]
    assert failures["steps"] == [2, 3, 4, 5]
    assert (failures["saved"], failures["ended"]) == (1, 5)


def test_an_error_of_the_writer_is_raised_in_both(ranks: Any) -> None:
    assert ranks[0]["broken"] == "ValueError"
    assert ranks[1]["broken"] == "RuntimeError"


def test_an_error_in_both_waits_for_the_checkpoint_that_one_writes_and_not_for_the_other(
    ranks: Any,
) -> None:
    for rank in ranks:
        assert rank["interrupted"] == {"error": "Fault", "found": ["checkpoint-4"], "met": 0}


def test_a_process_waits_for_the_others_only_as_long_as_it_says(ranks: Any) -> None:
    for rank in ranks:
        assert rank["meetings"] == [False, False, True]


def test_an_error_drops_a_checkpoint_that_the_machines_could_not_agree_on(ranks: Any) -> None:
    for rank in ranks:
        assert rank["nodes"] == {"error": "Fault", "found": [], "met": 0}


def test_an_error_in_both_leaves_a_checkpoint_that_resumes_exactly(ranks: Any) -> None:
    for rank in ranks:
        assert rank["failed"] == ["Fault", ["checkpoint-3"]]
        assert rank["resumed"]
