"""The framework: guards, counts, versions, deviations, results and the report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callback_contract import (
    RULES,
    CallbackContract,
    ContractViolation,
    Deviation,
    Rule,
    Setting,
    check,
)
from callback_contract._heard import Told
from callback_contract.report import as_data, table
from callback_core import TrainerCallback
from callback_core.tracking import settings

pytest_plugins = ["pytester"]


class Plain(CallbackContract):
    __test__ = False
    contract = (1, 0)
    expect = ""

    def make(self, output_dir: Path) -> Any:
        return TrainerCallback()


class Unclosable(TrainerCallback):
    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.opened = not self.opened

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.opened = True


class Broken(Plain):
    __test__ = False

    def make(self, output_dir: Path) -> Any:
        return Unclosable()


def refused(**members: Any) -> str:
    with pytest.raises(TypeError) as raised:
        type("Refused", (Plain,), members)
    return str(raised.value)


@pytest.mark.parametrize("name", ["test_contract", "pytest_generate_tests"])
def test_what_checks_cannot_be_overridden(name: str) -> None:
    assert f"{name} may not be overridden" in refused(**{name: lambda self: None})


def test_a_rule_that_does_not_exist_cannot_be_deviated_from() -> None:
    assert "there is no rule LIF-999" in refused(deviations={"LIF-999": Deviation("so")})


def test_a_rule_that_is_not_run_cannot_be_deviated_from() -> None:
    assert "STA-001 is not run" in refused(deviations={"STA-001": Deviation("so")})


def test_a_deviation_has_a_reason() -> None:
    assert "with a reason" in refused(deviations={"LIF-001": Deviation(" ")})


def test_a_flag_is_tried_in_the_forms_that_the_core_reads() -> None:
    flag = Setting.flag("asked", "ASKED")
    on = {form.upper() for form, meant in flag.examples if meant}
    off = {form.upper() for form, meant in flag.examples if not meant}
    assert (on, off) == ({*settings.TRUE}, {*settings.FALSE})
    assert {"1", "ON", "on", "On", "0", "FALSE", "false", "False"} <= {f for f, _ in flag.examples}
    assert flag.choices == (*settings.TRUE, *settings.FALSE)
    assert flag.default is False
    assert {*flag.given} == {(True, True), (False, False)}


def test_a_flag_that_is_a_variable_only_is_given_by_no_argument() -> None:
    usual = Setting.flag("asked", "ASKED", True)
    alone = Setting.flag("asked", "ASKED", True, only_variable=True)
    assert alone == usual._replace(given=(), wrong_given=())


def test_an_unknown_capability_is_refused() -> None:
    assert "there is no capability 'flies'" in refused(capabilities={"flies"})


@pytest.mark.parametrize("contract", [(0, 9), (99, 0)])
def test_an_unknown_version_is_refused(contract: tuple[int, int]) -> None:
    assert "contract must be a version" in refused(contract=contract)


def test_what_runs_must_be_said_and_the_refusal_says_it() -> None:
    message = refused(expect=None)
    assert "expect must say what runs; here it is: '49 run, 11 not claimed, 0 deviates'" in message


def test_a_contract_is_collected_whatever_it_is_called() -> None:
    assert type("OfAnyName", (Plain,), {}).__test__
    assert not Plain.__test__


def test_check_needs_no_pytest_and_tells_what_came_of_each_rule(tmp_path: Path) -> None:
    results = {result.rule.id: result for result in check(Broken, tmp_path)}
    assert results["LIF-001"].outcome == "broken"
    assert "[LIF-001] Unclosable.on_train_end raised AttributeError" in results["LIF-001"].message
    assert RULES["LIF-001"].mend in results["LIF-001"].message
    assert results["LIF-002"].outcome == "kept"
    assert results["STA-001"].outcome == "not claimed"
    of_this = [r for r in RULES.values() if not r.of_trackers and r.since <= Broken.contract]
    assert len(results) == len(of_this)


def test_check_tells_deviations_from_mended_ones() -> None:
    deviations = {"LIF-001": Deviation("so it is"), "LIF-002": Deviation("once")}
    suite = type("Deviating", (Broken,), {"deviations": deviations})
    outcomes = {result.rule.id: result.outcome for result in check(suite)}
    assert outcomes["LIF-001"] == "deviates"
    assert outcomes["LIF-002"] == "mended"


def test_only_the_rules_that_are_asked_for_are_checked(tmp_path: Path) -> None:
    assert [result.rule.id for result in check(Broken, tmp_path, ["LIF-002"])] == ["LIF-002"]


def test_a_violation_keeps_the_error_behind_it(tmp_path: Path) -> None:
    with pytest.raises(ContractViolation) as raised:
        Broken().test_contract(RULES["LIF-001"], tmp_path)
    assert isinstance(raised.value.__cause__, AttributeError)


@pytest.fixture
def newer_rule() -> Iterator[str]:
    def never(case: Any) -> None:
        raise ContractViolation("nobody keeps it")

    none: frozenset[str] = frozenset()
    RULES["LIF-998"] = Rule("LIF-998", "Nothing.", "So.", "No.", (1, 2), none, False, never)
    yield "LIF-998"
    del RULES["LIF-998"]


def test_a_rule_of_a_newer_version_runs_once_it_is_opted_into(newer_rule: str) -> None:
    newer = type("Newer", (Plain,), {"contract": (1, 2)})
    assert newer_rule not in {result.rule.id for result in check(Plain)}
    assert newer_rule in {result.rule.id for result in check(newer)}


MODULE = """
    from callback_contract import CallbackContract, Deviation
    from callback_core import TrainerCallback

    class Unclosable(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            self.opened = True

        def on_train_end(self, args, state, control, **kwargs):
            self.opened = not self.opened

    class Mine(CallbackContract):
        contract = (1, 0)
        expect = {expect!r}
        deviations = {deviations}

        def make(self, output_dir):
            return Unclosable()
"""
EXPECT = "49 run, 11 not claimed, 0 deviates"


def module(deviations: str = "{}", expect: str = EXPECT) -> str:
    return MODULE.format(expect=expect, deviations=deviations)


def test_each_rule_is_a_test_of_its_name(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(module())
    done = pytester.runpytest("-rfs", "-k", "LIF or STA", "-p", "no:callback_contract")
    done.assert_outcomes(passed=8, failed=1, skipped=6, deselected=46)
    done.stdout.fnmatch_lines(["SKIPPED *not claimed: state"])
    done.stdout.fnmatch_lines(["FAILED *::Mine::test_contract[[]LIF-001[]]*"])


def test_a_deviation_is_expected_and_red_once_it_is_mended(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        module(
            '{"LIF-001": Deviation("it is old", "#41"), "LIF-002": Deviation("it was old")}',
            "47 run, 11 not claimed, 2 deviates",
        )
    )
    done = pytester.runpytest("-rfx", "-k", "LIF", "-p", "no:callback_contract")
    done.assert_outcomes(passed=6, failed=1, xfailed=1, deselected=53)
    done.stdout.fnmatch_lines(["FAILED *LIF-002*", "XFAIL *LIF-001* - it is old #41"])


def test_a_count_that_differs_is_red(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(module(expect="48 run, 12 not claimed, 0 deviates"))
    done = pytester.runpytest("-k", "as_many_rules", "-p", "no:callback_contract")
    done.assert_outcomes(failed=1, deselected=60)
    done.stdout.fnmatch_lines([f"*but it is '{EXPECT}'"])


def test_the_plugin_writes_a_table_and_a_file(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_mine=module('{"LIF-002": Deviation("it was old")}'))
    plugin = ("-p", "no:callback_contract", "-p", "callback_contract.plugin")
    done = pytester.runpytest("-k", "LIF or STA", "--contract-report", "report.json", *plugin)
    row = "test_mine.Mine *7 *1 *0 *0 *1 *6"
    done.stdout.fnmatch_lines([row, "LIF-001 broken in *", "LIF-002 mended in *"])
    report = json.loads((pytester.path / "report.json").read_text(encoding="utf-8"))
    rules = {rule["id"]: rule for rule in report["callbacks"]["test_mine.Mine"]["rules"]}
    assert rules["LIF-001"]["outcome"] == "broken"
    assert rules["LIF-001"]["group"] == "LIF"
    assert rules["STA-001"]["outcome"] == "not claimed"


def test_the_results_of_check_make_the_same_report() -> None:
    results = {"mine": check(Broken)}
    assert "LIF-001 broken in mine" in table(results)
    counts = as_data(results)["callbacks"]["mine"]["counts"]
    assert (counts["kept"], counts["broken"], counts["not claimed"]) == (48, 1, 11)


def test_a_call_that_is_being_written_is_not_read_yet(tmp_path: Path) -> None:
    file = tmp_path / "told"
    whole = {"call": "open", "failed": False}
    file.write_text(json.dumps(whole) + '\n{"cal')
    assert Told(file).calls() == [whole]
