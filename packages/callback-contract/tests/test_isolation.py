"""A rule affects no later rule: deliveries, hanging calls and process-wide state."""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reference_tracker import FileTracker, Reference

from callback_contract import Rule
from callback_contract._case import Case
from callback_contract._isolation import collected_warnings
from callback_contract._stored import wait_for
from callback_contract._suite import check_rule
from callback_contract.testing import run_python
from callback_core.tracking import TrackerCallback


def checked(check: Callable[[Case], None], folder: Path, subject: Any = None) -> None:
    """Check `check` as a rule, in a directory of its own."""
    folder.mkdir(exist_ok=True)
    rule = Rule("LIF-999", "It.", "So.", "No.", (2, 0), frozenset(), None, True, check)
    check_rule(rule, subject or Reference(), folder)


def deliveries() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("deliver to ")]


def begun(case: Case, callback: Any) -> None:
    """Begin a training that the rule does not end."""
    training = case.training(callback)
    training.begin()
    training.step({"loss": 0.5})


def test_a_training_that_a_rule_does_not_end_is_ended(tmp_path: Path) -> None:
    checked(lambda case: begun(case, case.make()), tmp_path / "first")
    assert not deliveries()
    [run] = Reference().read(tmp_path / "first" / "output")
    assert (run.points["train/loss"], run.status) == ([(1, 0.5)], "failed")


class Blocked(FileTracker):
    """Blocks a call until the test sets `resume`, and then fails."""

    called, resume = threading.Event(), threading.Event()

    def open(self, opening: Any) -> str:
        self.called.set()
        self.resume.wait()
        logging.getLogger("sdk").warning("an SDK logs a failure")
        warnings.warn("an SDK warns of a failure", stacklevel=1)
        raise ConnectionError("refused")


def test_warnings_of_earlier_rules_are_ignored(tmp_path: Path) -> None:
    collected: list[str] = []

    def first_rule(case: Case) -> None:
        begun(case, TrackerCallback(Blocked(str(case.output_dir)), flush_limit=0.0))
        assert Blocked.called.wait(300.0)

    def second_rule(case: Case) -> None:
        with collected_warnings() as lines:
            earlier = deliveries()
            Blocked.resume.set()
            assert earlier and wait_for(lambda: not deliveries())
            logging.getLogger("sdk").warning("a log of this rule")
            warnings.warn("a warning of this rule", stacklevel=1)
            other = threading.Thread(target=logging.getLogger("sdk").warning, args=("a thread",))
            other.start()
            other.join()
        collected.extend(lines)

    checked(first_rule, tmp_path / "first")
    checked(second_rule, tmp_path / "second")
    assert sorted(collected) == ["a log of this rule", "a thread", "a warning of this rule"]


def test_the_process_is_restored_after_a_rule(tmp_path: Path) -> None:
    def read() -> tuple[Any, ...]:
        root = logging.getLogger()
        hooks = sys.excepthook, threading.excepthook, signal.getsignal(signal.SIGTERM)
        more = random.getstate(), sys.getrecursionlimit(), [*warnings.filters]
        return dict(os.environ), os.getcwd(), [*root.handlers], root.level, *hooks, *more

    def changes(case: Case) -> None:
        os.environ["OF_A_RULE"] = "1"
        os.environ.pop("HOME", None)
        os.chdir(case.output_dir)
        logging.getLogger().addHandler(logging.NullHandler())
        logging.getLogger().setLevel(logging.CRITICAL)
        sys.excepthook = threading.excepthook = lambda *_: None
        signal.signal(signal.SIGTERM, lambda *_: None)
        random.seed(1)
        sys.setrecursionlimit(sys.getrecursionlimit() + 1)
        warnings.simplefilter("ignore")

    before = read()
    checked(changes, tmp_path / "first")
    assert read() == before


def test_a_rule_may_delete_its_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "first" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "first" / "here")
    checked(lambda case: shutil.rmtree(tmp_path / "first" / "here"), tmp_path / "first")
    assert not (tmp_path / "first" / "here").exists()


def test_the_process_is_restored_after_an_error(tmp_path: Path) -> None:
    def breaks(case: Case) -> None:
        begun(case, case.make())
        os.environ["OF_A_RULE"] = "1"
        raise RuntimeError("a fault of the rule")

    with pytest.raises(RuntimeError):
        checked(breaks, tmp_path / "first")
    assert not deliveries() and "OF_A_RULE" not in os.environ


_ALONE = """
import sys
from callback_contract import CallbackContract, check
from callback_core import TrainerCallback

class Suite(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir):
        return TrainerCallback()

[result] = check(Suite, rules=sys.argv[1:])
sys.exit(result.message or None)
"""


@pytest.mark.slow
def test_the_first_rule_in_a_process_does_not_blame_a_callback_for_torchs_imports() -> None:
    done = run_python("-c", _ALONE, "LEF-003")
    assert done.returncode == 0, done.stderr
