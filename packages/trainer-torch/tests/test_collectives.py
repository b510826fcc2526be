"""How many collective operations a step takes in several processes."""

from __future__ import annotations

import collective_cases
import pytest
from launching import launch, reports

pytestmark = pytest.mark.slow

PER_STEP = 4
"""One each: DistributedDataParallel's buffers of gradients, the batches that all have, the number
of items, and the flags with the signals."""


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    directory = tmp_path_factory.mktemp("counts")
    run = launch(collective_cases.__file__, "counts", directory)
    assert run.returncode == 0, run.stderr[-3000:]
    of_main, _ = reports(directory)
    return dict(of_main)


def test_a_step_takes_four_reductions_and_nothing_else(counts: dict[str, dict[str, int]]) -> None:
    assert counts["step"] == {"allreduce_": PER_STEP}


@pytest.mark.parametrize("kind", ["step", "logged step"])
def test_callbacks_add_no_collective_operation(
    counts: dict[str, dict[str, int]], kind: str
) -> None:
    assert counts[f"{kind} of many callbacks"] == counts[kind]
