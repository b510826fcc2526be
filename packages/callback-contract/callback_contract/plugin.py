"""A pytest plugin that reports the outcomes of the rules. The tests themselves do not need it.

It prints a table after the tests. `--contract-report FILE` also writes the report as JSON.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest

from callback_contract._registry import RULES
from callback_contract._result import Outcome, Result
from callback_contract._suite import CallbackContract
from callback_contract._violation import ContractViolation
from callback_contract.report import table, write_json

_PROPERTY: Final = "callback_contract"
_RESULTS: Final = pytest.StashKey[dict[str, list[Result]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--contract-report`."""
    parser.getgroup("callback-contract").addoption(
        "--contract-report",
        metavar="FILE",
        type=Path,
        help="write the outcome of each contract rule to FILE as JSON",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Start collecting outcomes."""
    config.stash[_RESULTS] = {}
    config.pluginmanager.register(_Collector(config), "callback-contract-collector")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add a rule's outcome to the report of its test, which pytest-xdist passes on."""
    report = yield
    suite = getattr(item, "cls", None)
    if isinstance(suite, type) and issubclass(suite, CallbackContract):
        rule_id = getattr(getattr(item, "callspec", None), "id", None)
        outcome = _outcome(report, call)
        if rule_id in RULES and outcome is not None:
            error = None if call.excinfo is None else call.excinfo.value
            message = "" if error is None else _message(error)
            cause = getattr(error, "cause", None)
            name = f"{suite.__module__}.{suite.__qualname__}"
            report.user_properties.append((_PROPERTY, [name, rule_id, outcome, message, cause]))
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table, and write the JSON file if requested."""
    results = config.stash[_RESULTS]
    if results:
        terminalreporter.section("contract of callbacks")
        terminalreporter.write_line(table(results))
    path = config.getoption("--contract-report")
    if path is not None:
        write_json(path, results)


class _Collector:
    """Collects the outcomes of this process and of pytest-xdist's workers."""

    def __init__(self, config: pytest.Config) -> None:
        self._results = config.stash[_RESULTS]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Read a rule's outcome from the report of its test."""
        for key, value in report.user_properties:
            if key == _PROPERTY and isinstance(value, (list, tuple)) and report.when != "teardown":
                name, rule_id, outcome, message, cause = value
                result = Result(RULES[rule_id], outcome, message, cause)
                self._results.setdefault(name, []).append(result)


def _outcome(report: pytest.TestReport, call: pytest.CallInfo[None]) -> Outcome | None:
    """Return the outcome of the rule; `None` if this phase of the test does not determine it."""
    expected = hasattr(report, "wasxfail")
    if report.when == "teardown" or (report.when == "setup" and report.outcome == "passed"):
        return None
    if report.outcome == "skipped":
        if expected:
            return "deviates"
        skipped = call.excinfo is not None and "does not apply" in str(call.excinfo.value)
        return "does not apply" if skipped else "not claimed"
    if report.outcome == "passed":
        return "kept"
    if call.excinfo is None:  # a strict xfail fails because the rule passes
        return "fixed"
    return "broken" if isinstance(call.excinfo.value, ContractViolation) else "crashed"


def _message(error: BaseException) -> str:
    """Return an error's message; for a skipped rule, the capabilities that it lacks."""
    return str(error).removeprefix("not claimed: ").removeprefix("does not apply: ")
