"""What real callbacks do, and no rule reports: repeated Python warnings, state on a class."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import pytest

from callback_contract import CallbackContract, check
from callback_core import TrainerCallback


class WarnsThroughPython(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        warnings.warn("Python shows this once", stacklevel=1)


class WarnsThroughALogger(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logging.getLogger(__name__).warning("the step is %d", state.global_step)


@pytest.mark.parametrize(
    ("callback", "outcome"), [(WarnsThroughPython, "kept"), (WarnsThroughALogger, "broken")]
)
def test_a_warning_that_python_shows_once_is_not_repeated(
    callback: type[TrainerCallback], outcome: str, tmp_path: Path
) -> None:
    members = {"__test__": False, "contract": (2, 0), "make": lambda self, output_dir: callback()}
    suite = type("Suite", (CallbackContract,), members)
    [result] = check(suite, tmp_path, ["OUT-005"])
    assert result.outcome == outcome


class RemembersOnItsClass(TrainerCallback):
    """Opens a file in the main process, and closes it where its class says so."""

    closes = False

    def __init__(self) -> None:
        self.opened: list[str] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            RemembersOnItsClass.closes = True
            self.opened = []

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if RemembersOnItsClass.closes:
            assert self.opened is not None
            self.opened = []


def test_other_ranks_do_not_see_what_the_main_process_sets_on_the_class(tmp_path: Path) -> None:
    members = {"__test__": False, "contract": (2, 0)}
    members["make"] = lambda self, output_dir: RemembersOnItsClass()
    [result] = check(type("Suite", (CallbackContract,), members), tmp_path, ["RNK-003"])
    assert result.outcome == "kept", result.message
