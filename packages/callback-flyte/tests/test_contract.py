"""The callback passes the contract of training callbacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from attempts import attempt
from flytekit import current_context

from callback_contract import CallbackContract, Deviation
from callback_flyte import FlyteCallback


class TestContract(CallbackContract):
    contract = (2, 0)
    capabilities = frozenset({"sdk"})
    deviations = {  # noqa: RUF012
        "LIF-010": Deviation("a task exists in one process, and a copy warns that it lacks it")
    }
    module = "callback_flyte"
    sdk = "flytekit"

    @pytest.fixture(autouse=True)
    def in_a_task(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        """Run in a task, in which flytekit's thread for our uploads already exists.

        flytekit keeps a thread for each name of an uploading thread until the process exits.
        """
        with attempt(tmp_path_factory.mktemp("flyte"), 1):
            thread = Thread(
                target=copy_context().run,
                args=(current_context().checkpoint.write, b""),
                name="FlyteCallback",
            )
            thread.start()
            thread.join()
            yield

    def make(self, output_dir: Path) -> Any:
        return FlyteCallback()
