"""Reductions over the processes of several machines."""

from __future__ import annotations

from pathlib import Path

import pytest
import reduction_cases
from launching import launch, reports


@pytest.mark.slow
def test_all_processes_of_unlike_machines_get_the_same_numbers(tmp_path: Path) -> None:
    processes = len(reduction_cases.LOCAL_RANKS)
    run = launch(reduction_cases.__file__, "reduce", tmp_path, processes)
    assert run.returncode == 0, run.stderr[-3000:]
    expected = {"sum": [31, 40], "least": [1, 6], "or": [31, 10 | 9 | 8 | 7 | 6]}
    assert reports(tmp_path, processes) == [expected] * processes
