from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_logging_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
