"""The zoo: the listed faulty specimens break their rules, and correct callbacks break none.

`tools/zoo.py` checks all rules for all specimens, and prints the rates.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from callback_contract import RULES, CallbackContract, check
from callback_core import TrainerCallback

TESTS = Path(__file__).parents[1] / "packages" / "callback-contract" / "tests"

sys.path.insert(0, str(TESTS))  # for Pants the zoo is data, because it is untyped code like users'
_zoo: Any = import_module("zoo.specimens")

CAUGHT: dict[str, list[str]] = json.loads((TESTS / "zoo" / "caught.json").read_text())
"""Rules, each with faulty specimens that break it."""

SPECIMENS: dict[str, Any] = {specimen.name: specimen for specimen in _zoo.load()}
CORRECT = sorted(
    name
    for name, one in SPECIMENS.items()
    if one.kind == "callback" and not one.is_faulty and name != "Limited"  # which waits for minutes
)
"""The correct callbacks. tools/zoo.py checks all, and the trackers, which take long."""

HANGS = {
    *("BufferedUntilTheEnd", "ConnectionStaysOpen", "EvaluationInARunOfItsOwn"),
    *("HeartbeatOfTheDead", "HookWithoutTimeout", "NaNFailsTheBatch", "NotWaitedFor"),
    *("OnlyWhileTraining", "RejectedForAnOutage", "ThreadOfALateEvaluation", "WaitsForEver"),
}
"""The listed specimens that break their rules only when the time limit is over."""


def quick(name: str) -> type[CallbackContract]:
    """Return a specimen's suite with a short time limit, for specimens that hang."""
    limit = 5.0 if name in HANGS else 20.0
    return type(name, (SPECIMENS[name].suite,), {"__test__": False, "time_limit": limit})


@pytest.mark.slow
@pytest.mark.parametrize("name", CORRECT)
def test_a_correct_callback_breaks_no_rule(name: str, tmp_path: Path) -> None:
    results = check(quick(name), tmp_path)
    assert [r.message for r in results if r.outcome in ("broken", "crashed")] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "name"), [(rule, name) for rule, names in CAUGHT.items() for name in names]
)
def test_a_faulty_specimen_breaks_the_rule(rule: str, name: str, tmp_path: Path) -> None:
    [result] = check(quick(name), tmp_path, [rule])
    assert result.outcome == "broken", result.message


def test_a_rule_is_described() -> None:
    assert all(len(rule.demands) > 20 and rule.why and rule.fix for rule in RULES.values())


class Linear(torch.nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 2)


class WithModel(CallbackContract):
    __test__ = False
    contract = (2, 0)

    def make(self, output_dir: Path) -> Any:
        return TrainerCallback()

    def make_model(self) -> Any:
        return Linear()


def test_the_authors_model_is_trained(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []

    class Sees(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append(kwargs["model"].weight.detach().clone())

    suite = type("Sees", (WithModel,), {"make": lambda self, output_dir: Sees()})
    check(suite, tmp_path, ["LIF-002"])
    assert seen[0].shape == (2, 4)
    [result] = check(WithModel, tmp_path / "kept", ["ROY-003"])
    assert result.outcome == "kept"
