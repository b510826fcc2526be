"""Resuming in four processes, where the order of a sum over them matters."""

from __future__ import annotations

from pathlib import Path

import pytest
import rank_resume_cases
from launching import launch, reports
from rank_resume_cases import KINDS, PROCESSES


@pytest.mark.slow
def test_four_processes_resume_to_the_bit(tmp_path: Path) -> None:
    run = launch(rank_resume_cases.__file__, "resumed", tmp_path, PROCESSES)
    assert run.returncode == 0, run.stderr[-3000:]
    assert reports(tmp_path, PROCESSES) == [dict.fromkeys(KINDS, True)] * PROCESSES
