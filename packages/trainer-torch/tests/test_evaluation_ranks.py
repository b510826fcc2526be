"""Evaluations of several processes are those of one."""

from __future__ import annotations

from itertools import chain
from typing import Any

import evaluation_cases
import pytest
from evaluation_cases import SAMPLES, all_of_them
from launching import launch, reports
from small import data

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a single process reports."""
    return all_of_them(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What each of several processes reports."""
    directory = tmp_path_factory.mktemp("ranks")
    done = launch(evaluation_cases.__file__, "all", directory, request.param)
    assert done.returncode == 0, done.stderr
    return reports(directory, request.param)


@pytest.mark.parametrize("case", ["plain", "of two"])
def test_metrics_are_those_of_one_process_in_each(ranks: Any, alone: Any, case: str) -> None:
    assert [rank[case] for rank in ranks] == [alone[case]] * len(ranks)


@pytest.mark.parametrize("case", ["by batch", "with state"])
def test_metrics_by_batch_are_those_of_one_process_in_each(
    ranks: Any, alone: Any, case: str
) -> None:
    for rank in ranks:
        assert rank[case]["metrics"] == pytest.approx(alone[case]["metrics"], rel=1e-6)


def test_the_main_process_sees_each_batch_once_in_the_order_of_the_data(
    ranks: Any, alone: Any
) -> None:
    of_main, *others = (rank["by batch"] for rank in ranks)
    assert of_main["labels"] == alone["by batch"]["labels"]
    assert list(chain(*of_main["labels"])) == data(SAMPLES)[:][1].tolist()
    for losses, expected in zip(of_main["losses"], alone["by batch"]["losses"], strict=True):
        assert losses == pytest.approx(expected, rel=1e-6)
    assert of_main["results"] == [False] * (SAMPLES // 2) + [True]
    assert [other["labels"] for other in others] == [[]] * len(others)


def test_a_metric_with_a_state_does_not_wait_for_other_processes(ranks: Any) -> None:
    assert ranks[0]["with state"]["available"] == [False]
    assert [rank["with state"]["available"] for rank in ranks[1:]] == [[]] * (len(ranks) - 1)
    assert all(rank["with state"]["after"] for rank in ranks)


def test_predictions_go_to_the_main_process_only(ranks: Any, alone: Any) -> None:
    assert ranks[0]["predicted"]["labels"] == alone["predicted"]["labels"]
    assert [rank["predicted"]["labels"] for rank in ranks[1:]] == [None] * (len(ranks) - 1)
    losses = {rank["predicted"]["loss"] for rank in ranks}
    assert len(losses) == 1
    assert losses.pop() == pytest.approx(alone["predicted"]["loss"], rel=1e-6)


def test_an_error_in_the_metrics_reaches_each_process(ranks: Any) -> None:
    for main, *others in zip(*(rank["broken"] for rank in ranks), strict=True):
        assert main == "ValueError('broken in 0')"
        assert all(main in other and "Rank 0" in other for other in others)
