"""Two processes tell what both do, and keep one average."""

from __future__ import annotations

from typing import Any

import pytest
import telling_cases
from launching import launch, reports

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("telling")
    done = launch(telling_cases.__file__, "telling", directory)
    assert done.returncode == 0, done.stderr
    return reports(directory)


def test_tokens_are_those_of_both_and_resume_exactly(ranks: Any) -> None:
    for rank in ranks:
        assert rank["tokens"]["whole"][4] == 60
        assert rank["tokens"]["whole"][-1] == 120
        assert rank["tokens"]["resumed"] == rank["tokens"]["whole"]
        assert rank["tokens"]["flos"][0] == rank["tokens"]["flos"][1] > 0


def test_the_speed_is_the_same_on_both(ranks: Any) -> None:
    assert ranks[0]["tokens"]["speed"] == ranks[1]["tokens"]["speed"]
    assert [len(values) for values in ranks[0]["tokens"]["speed"]] == [10, 10, 10]


def test_an_average_resumes_to_the_bit_and_is_the_same_on_both(ranks: Any) -> None:
    for rank in ranks:
        assert rank["averages"]["resumed"] == rank["averages"]["whole"]
    assert ranks[0]["averages"] == ranks[1]["averages"]


def test_the_model_at_the_end_is_the_one_that_was_evaluated(ranks: Any) -> None:
    for rank in ranks:
        assert rank["averages"]["again"] == rank["averages"]["whole"][1][-1:]


def test_a_time_limit_in_one_process_stops_both_with_one_checkpoint(ranks: Any) -> None:
    assert ranks[0]["limited"] == ranks[1]["limited"]
    step = ranks[0]["limited"]["step"]
    assert 0 < step < 6
    assert ranks[0]["limited"]["saved"] == [f"checkpoint-{step}"]


def test_the_main_process_alone_records_unless_asked(ranks: Any) -> None:
    assert ranks[0]["profiled"] == ["steps-1-1-rank0.json", "steps-3-3-rank0.json"]
    assert ranks[1]["profiled"] == ["steps-3-3-rank1.json"]
