"""A step of a sharded model that was left or failed leaves nothing for the next one."""

from __future__ import annotations

import math
from typing import Any

import interrupted_steps_cases
import pytest
from launching import launch, reports

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("interrupted")
    done = launch(interrupted_steps_cases.__file__, "interrupted", directory)
    assert done.returncode == 0, done.stderr
    return reports(directory)


@pytest.mark.parametrize(("way", "tolerance"), [("fsdp", 1e-4), ("half", 0.05)])
def test_the_batches_of_a_step_that_was_left_do_not_count_in_the_next(
    ranks: Any, way: str, tolerance: float
) -> None:
    for rank in ranks:
        sharded, whole = rank["left"][way], rank["left"]["ddp"]
        assert len(whole["loss"]) == 7
        assert sharded["loss"] == pytest.approx(whole["loss"], rel=tolerance)
        assert sharded["grad_norm"] == pytest.approx(whole["grad_norm"], rel=tolerance)


@pytest.mark.parametrize("trainer", ["the same", "a new"])
def test_a_training_after_an_error_in_backward_trains_all_weights(ranks: Any, trainer: str) -> None:
    for rank in ranks:
        resumed_from, logs = rank["failed"][trainer == "a new"]
        assert resumed_from == "checkpoint-4"
        assert logs["loss"] == pytest.approx(rank["whole"]["loss"], abs=1e-6)
        assert logs["grad_norm"] == pytest.approx(rank["whole"]["grad_norm"], rel=1e-4)


def test_an_error_while_a_step_is_repeated_leaves_the_next_step_alone(ranks: Any) -> None:
    for rank in ranks:
        sharded, whole = rank["repeated"]
        assert sharded["calls"] == whole["calls"] == 2
        for name in ("loss", "grad_norm"):
            pairs = zip(sharded[name], whole[name], strict=True)
            finite = [pair for pair in pairs if all(map(math.isfinite, pair))]
            assert len(finite) == 7
            for own, other in finite:
                assert own == pytest.approx(other, rel=1e-4)
