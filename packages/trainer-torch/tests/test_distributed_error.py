"""One of several processes under torchrun fails: the others neither train on nor wait."""

from __future__ import annotations

from pathlib import Path

import pytest
from distributed_cases import launch, reports

pytestmark = pytest.mark.slow


def test_an_error_in_one_process_ends_all_and_closes_its_callbacks(tmp_path: Path) -> None:
    done = launch("broken", tmp_path)
    assert done.returncode != 0
    main, other = reports(tmp_path)
    assert other == ["exception", "ValueError('broken on purpose')", "end"]
    assert "Rank 0" in main[1]
    assert "ddp_timeout" in main[1]
    assert main[2] == "end"
