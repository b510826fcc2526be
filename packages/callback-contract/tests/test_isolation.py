"""Nothing of one rule reaches the next: no delivery, no hanging call, no change in the process."""

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
from callback_contract._stored import in_time, warned
from callback_contract._suite import keep
from callback_core.tracking import TrackerCallback


def checked(check: Callable[[Case], None], folder: Path, subject: Any = None) -> None:
    """Check a rule of this test, in a directory of its own."""
    folder.mkdir(exist_ok=True)
    rule = Rule("LIF-999", "It.", "So.", "No.", (2, 0), frozenset(), None, True, check)
    keep(rule, subject or Reference(), folder)


def deliveries() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("deliver to ")]


def begun(case: Case, callback: Any) -> None:
    """Begin a training that its rule does not end."""
    training = case.training(callback)
    training.begin()
    training.step({"loss": 0.5})


def test_a_training_that_a_rule_leaves_is_ended(tmp_path: Path) -> None:
    checked(lambda case: begun(case, case.make()), tmp_path / "first")
    assert not deliveries()
    [run] = Reference().read(tmp_path / "first" / "output")
    assert (run.points["train/loss"], run.status) == ([(1, 0.5)], "failed")


class Refused(FileTracker):
    """Is in a call until the test lets it go, and then refuses what it is given."""

    called, go_on = threading.Event(), threading.Event()

    def open(self, opening: Any) -> str:
        self.called.set()
        self.go_on.wait()
        logging.getLogger("sdk").warning("an SDK logs that it was refused")
        warnings.warn("an SDK warns that it was refused", stacklevel=1)
        raise ConnectionError("refused")


def test_what_a_delivery_of_an_earlier_rule_says_is_not_heard(tmp_path: Path) -> None:
    heard_of: list[str] = []

    def leaves(case: Case) -> None:
        begun(case, TrackerCallback(Refused(str(case.output_dir)), flush_limit=0.0))
        assert Refused.called.wait(300.0)

    def hears(case: Case) -> None:
        with warned() as lines:
            earlier = deliveries()
            Refused.go_on.set()
            assert earlier and in_time(lambda: not deliveries())
            logging.getLogger("sdk").warning("a log of this rule")
            warnings.warn("a warning of this rule", stacklevel=1)
            other = threading.Thread(target=logging.getLogger("sdk").warning, args=("a thread",))
            other.start()
            other.join()
        heard_of.extend(lines)

    checked(leaves, tmp_path / "first")
    checked(hears, tmp_path / "second")
    assert sorted(heard_of) == ["a log of this rule", "a thread", "a warning of this rule"]


def test_what_a_rule_changes_of_the_process_is_put_back(tmp_path: Path) -> None:
    def look() -> tuple[Any, ...]:
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

    before = look()
    checked(changes, tmp_path / "first")
    assert look() == before


def test_a_rule_may_delete_the_directory_that_it_works_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "first" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "first" / "here")
    checked(lambda case: shutil.rmtree(tmp_path / "first" / "here"), tmp_path / "first")
    assert not (tmp_path / "first" / "here").exists()


def test_also_a_rule_that_is_broken_leaves_nothing(tmp_path: Path) -> None:
    def breaks(case: Case) -> None:
        begun(case, case.make())
        os.environ["OF_A_RULE"] = "1"
        raise RuntimeError("it is broken")

    with pytest.raises(RuntimeError):
        checked(breaks, tmp_path / "first")
    assert not deliveries() and "OF_A_RULE" not in os.environ
