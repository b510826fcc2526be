"""A plugin of pytest that reports what came of the rules; nothing but the report needs it.

`--contract-report FILE` writes the report as JSON. In the terminal, a table follows the tests.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest

from callback_contract._result import Outcome, Result
from callback_contract._rule import RULES, ContractViolation
from callback_contract._suite import CallbackContract
from callback_contract.report import table, write_json

_PROPERTY: Final = "callback_contract"
_RESULTS: Final = pytest.StashKey[dict[str, list[Result]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--contract-report`."""
    parser.getgroup("callback-contract").addoption(
        "--contract-report",
        metavar="FILE",
        type=Path,
        help="write what came of each rule of the callbacks' contract to FILE, as JSON",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Begin a report."""
    config.stash[_RESULTS] = {}
    config.pluginmanager.register(_Collector(config), "callback-contract-collector")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note in the report of a test of a rule what came of it; this travels between processes."""
    report = yield
    suite = getattr(item, "cls", None)
    if isinstance(suite, type) and issubclass(suite, CallbackContract):
        rule_id = getattr(getattr(item, "callspec", None), "id", None)
        outcome = _outcome(report, call)
        if rule_id in RULES and outcome is not None:
            message = "" if call.excinfo is None else str(call.excinfo.value)
            name = f"{suite.__module__}.{suite.__qualname__}"
            report.user_properties.append((_PROPERTY, [name, rule_id, outcome, message]))
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Write the table, and the file where one is asked for."""
    results = config.stash[_RESULTS]
    if results:
        terminalreporter.section("contract of callbacks")
        terminalreporter.write_line(table(results))
    path = config.getoption("--contract-report")
    if path is not None:
        write_json(path, results)


class _Collector:
    """Gathers what came of the rules, of this process and of pytest-xdist's."""

    def __init__(self, config: pytest.Config) -> None:
        self._results = config.stash[_RESULTS]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take what a test's report says of a rule."""
        for key, value in report.user_properties:
            if key == _PROPERTY and isinstance(value, (list, tuple)) and report.when != "teardown":
                name, rule_id, outcome, message = value
                result = Result(RULES[rule_id], outcome, message)
                self._results.setdefault(name, []).append(result)


def _outcome(report: pytest.TestReport, call: pytest.CallInfo[None]) -> Outcome | None:
    """Return what came of the rule; `None` where this part of the test does not say."""
    expected = hasattr(report, "wasxfail")
    if report.when == "teardown" or (report.when == "setup" and report.outcome == "passed"):
        return None
    if report.outcome == "skipped":
        return "deviates" if expected else "not claimed"
    if report.outcome == "passed":
        return "kept"
    if call.excinfo is None:  # it failed by not failing
        return "mended"
    return "broken" if isinstance(call.excinfo.value, ContractViolation) else "crashed"
