"""The framework: checks of suites, versions, deviations, causes, time limits and reports."""

from __future__ import annotations

import json
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import pytest
from reference_tracker import FileTracker, Reference

from callback_contract import (
    CAPABILITIES,
    RULES,
    TRACKER_CAPABILITIES,
    CallbackContract,
    ContractViolation,
    Deviation,
    RecordedRun,
    Rule,
    Setting,
    TrackerContract,
    Training,
    check,
)
from callback_contract._case import Case
from callback_contract._suite import check_rule
from callback_contract._watching import FLAGS
from callback_contract.report import as_data, table
from callback_core import TrainerCallback
from callback_core.tracking import Opening, Point, config

pytest_plugins = ["pytester"]


class Plain(CallbackContract):
    __test__ = False
    contract = (2, 0)

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


def error_of(base: type = Plain, **members: Any) -> str:
    with pytest.raises(TypeError) as raised:
        type("Wrong", (base,), members)
    return str(raised.value)


@pytest.mark.parametrize("name", ["test_contract", "pytest_generate_tests"])
def test_the_tests_cannot_be_overridden(name: str) -> None:
    assert name in error_of(**{name: lambda self: None})


@pytest.mark.parametrize(
    "deviations",
    [
        {"LIF-999": Deviation("there is no such rule")},
        {"STA-001": Deviation("it does not run")},
        {"LIF-001": Deviation(" ")},
        {"LIF-001": "no Deviation"},
    ],
)
def test_a_deviation_needs_a_rule_that_runs_and_a_reason(deviations: dict[str, Any]) -> None:
    assert next(iter(deviations)) in error_of(deviations=deviations)


def test_an_unknown_capability_is_rejected_with_the_known_ones() -> None:
    message = error_of(capabilities={"flies"})
    assert "'flies'" in message
    assert all(name in message for name in CAPABILITIES)


def test_a_callback_cannot_claim_capabilities_of_trackers() -> None:
    assert "'resume'" in error_of(capabilities={"resume"})


def test_an_unknown_precision_is_rejected_with_the_known_ones() -> None:
    message = error_of(precision="float32")
    assert all(name in message for name in ("'float32'", "single", "double", "exact"))


def test_a_string_is_rejected_as_capabilities() -> None:
    assert "'state'" in error_of(capabilities="state")


@pytest.mark.parametrize(
    ("capability", "hook"),
    [
        ("patience", "make_patient"),
        ("settings", "make_with"),
        ("unreachable", "make_unreachable"),
        ("sdk", "sdk"),
    ],
)
def test_a_capability_without_its_hook_is_rejected(capability: str, hook: str) -> None:
    assert f"`{hook}`" in error_of(capabilities={capability}, __test__=True)


@pytest.mark.parametrize("contract", [(1, 1), (99, 0)])
def test_an_unknown_version_is_rejected(contract: tuple[int, int]) -> None:
    assert "(2, 0)" in error_of(contract=contract)


def test_not_claimed_must_name_all_other_capabilities() -> None:
    rest = CAPABILITIES.keys() - {"prints"}
    assert "'steers'" in error_of(capabilities={"prints"}, not_claimed=rest - {"steers"})
    type("Complete", (Plain,), {"capabilities": {"prints"}, "not_claimed": rest})
    of_trackers = {*CAPABILITIES, *TRACKER_CAPABILITIES}
    type("Tracker", (TrackerContract,), {"contract": (2, 0), "not_claimed": of_trackers})


def test_a_suite_is_collected_whatever_its_name_is() -> None:
    assert type("OfAnyName", (Plain,), {}).__test__
    assert not Plain.__test__


def test_a_flag_has_the_forms_that_the_core_reads() -> None:
    flag = Setting.flag("asked", "ASKED")
    on = {form.upper() for form, meant in flag.examples if meant}
    off = {form.upper() for form, meant in flag.examples if not meant}
    assert (on, off) == ({*config.TRUE}, {*config.FALSE})
    assert {"1", "ON", "on", "On", "0", "FALSE", "false", "False"} <= {f for f, _ in flag.examples}
    assert flag.choices == (*config.TRUE, *config.FALSE)
    assert {*flag.given} == {(True, True), (False, False)}


def test_a_flag_without_an_argument_has_no_values_for_it() -> None:
    usual = Setting.flag("asked", "ASKED", True)
    alone = Setting.flag("asked", "ASKED", True, only_variable=True)
    assert alone == usual._replace(given=(), wrong_given=())


def test_check_returns_the_outcome_of_each_rule(tmp_path: Path) -> None:
    results = {result.rule.id: result for result in check(Broken, tmp_path)}
    assert results["LIF-001"].outcome == "broken"
    assert results["LIF-002"].outcome == "kept"
    assert results["STA-001"].outcome == "not claimed"
    of_callbacks = {rule.id for rule in RULES.values() if not rule.of_trackers}
    assert results.keys() == of_callbacks


def test_a_difference_in_one_trial_of_three_is_ignored(tmp_path: Path) -> None:
    measured = iter(
        [0, 0, 0, 9, *[0] * 20]
    )  # the first training, two of new callbacks, the second training

    class Measures(TrainerCallback):
        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.most = next(measured)

    suite = type("Measures", (Plain,), {"make": lambda self, output_dir: Measures()})
    [result] = check(suite, tmp_path, ["LIF-003"])
    assert result.outcome == "kept", result.message


def test_values_that_depend_on_the_duration_are_not_compared(tmp_path: Path) -> None:
    class Measures(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self._began = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            time.sleep(0.005)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.is_long = (
                time.monotonic() - self._began > 0.07
            )  # true for two that alternate, false for one alone

    suite = type("Measures", (Plain,), {"make": lambda self, output_dir: Measures()})
    [result] = check(suite, tmp_path, ["LIF-008"])
    assert result.outcome == "kept", result.message


def test_a_class_is_as_before_after_a_training_that_raises(tmp_path: Path) -> None:
    class Raising(TrainerCallback):
        logged: ClassVar[list[int]] = []

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.logged.append(state.global_step)
            raise ValueError

    suite = type("Raises", (Plain,), {"make": lambda self, output_dir: Raising()})
    [result] = check(suite, tmp_path, ["LIF-003"])
    assert result.outcome == "broken"
    assert Raising.logged == []


def test_a_failure_names_the_demand_the_event_the_error_and_the_fix(tmp_path: Path) -> None:
    [result] = check(Broken, tmp_path, ["LIF-001"])
    for part in (RULES["LIF-001"].demands, RULES["LIF-001"].fix, "AttributeError", "on_train_end"):
        assert part in result.message


def test_rules_that_fail_for_the_same_reason_name_the_first(tmp_path: Path) -> None:
    class Raising(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise ValueError("the same error in each rule")

    suite = type("Repeats", (Plain,), {"make": lambda self, output_dir: Raising()})
    broken = [result for result in check(suite, tmp_path) if result.outcome == "broken"]
    assert len({result.cause for result in broken}) == 1
    assert len(broken) > 10
    assert RULES[broken[1].rule.id].fix not in broken[1].message
    assert broken[0].rule.id in broken[1].message
    [line] = [line for line in table({"Repeats": broken}).splitlines() if "LIF-002" in line]
    assert all(result.rule.id in line for result in broken)


def test_the_fix_of_an_unrelated_rule_is_not_advised_for_an_error(tmp_path: Path) -> None:
    class Raising(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise ValueError("at the first log")

    suite = type("Raises", (Plain,), {"make": lambda self, output_dir: Raising()})
    for rule, advised in (("CTL-001", False), ("EVT-005", True)):
        [result] = check(suite, tmp_path, [rule])
        assert (RULES[rule].fix in result.message) is advised
        assert all(part in result.message for part in ("on_log", Path(__file__).name, "line"))


class Rounds(FileTracker):
    def log_metrics(self, points: Sequence[Point]) -> None:
        super().log_metrics([p._replace(value=round(p.value, 6)) for p in points])


class OneRun(FileTracker):
    def open(self, opening: Opening) -> str:
        if not opening.run_id and self.file_of("run-001").exists():
            opening = replace(opening, run_id="run-001")
        return super().open(opening)


@pytest.mark.parametrize(
    ("tracker", "rules"),
    [
        (Rounds, ["AWY-003", "AWY-004", "DEL-001", "DEL-009", "RES-001", "RES-012"]),
        (OneRun, ["DEL-004", "DEL-007", "DEL-010", "RES-012", "RUN-004", "STS-002", "STS-003"]),
    ],
)
def test_rules_about_a_store_share_a_cause_with_its_own_fix(
    tracker: type[FileTracker], rules: list[str], tmp_path: Path
) -> None:
    results = check(type("Shares", (Reference,), {"tracker": tracker}), tmp_path, rules)
    assert {result.outcome for result in results} == {"broken"}
    [cause] = {result.cause for result in results}
    assert str(cause) in results[0].message
    assert RULES[rules[0]].fix not in results[0].message


class Archives(TrainerCallback):
    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        Path(args.output_dir, f"archived-{state.global_step}").mkdir()


def test_an_error_that_names_a_directory_of_the_rule_is_the_same_in_each_rule(
    tmp_path: Path,
) -> None:
    suite = type("Archives", (Plain,), {"make": lambda self, output_dir: Archives()})
    results = check(suite, tmp_path, ["LEF-001", "LEF-002", "ROY-007"])
    assert {result.outcome for result in results} == {"broken"}
    [cause] = {result.cause for result in results}
    assert "FileExistsError" in str(cause)
    assert results[0].rule.id in results[1].message


def test_a_hook_that_crashes_in_each_rule_does_so_for_one_cause(tmp_path: Path) -> None:
    def make(self: Any, output_dir: Path) -> Any:
        return (output_dir / "missing.json").read_text()

    results = check(type("Crashes", (Plain,), {"make": make}), tmp_path, ["LIF-001", "LIF-002"])
    assert {result.outcome for result in results} == {"crashed"}
    assert len({result.cause for result in results}) == 1


class LosesEvaluations(FileTracker):
    def log_metrics(self, points: Sequence[Point]) -> None:
        super().log_metrics([point for point in points if point.name != "eval/loss"])


def test_a_lost_value_is_not_taken_for_another_name_of_an_equal_one(tmp_path: Path) -> None:
    suite = type("Loses", (Reference,), {"tracker": LosesEvaluations})
    [result] = check(suite, tmp_path, ["RES-001"])
    assert result.outcome == "broken"
    assert "stored_name" not in result.message


def hides(name: str) -> Any:
    """Return a hook that reads the reference's runs without the loss, but with its value."""

    def read(self: Reference, output_dir: Path) -> list[RecordedRun]:
        runs = Reference.read(self, output_dir)
        return [replace(run, points={name: run.points.get("train/loss", ())}) for run in runs]

    return read


@pytest.mark.parametrize(
    ("name", "members", "hinted"),
    [
        ("loss", {}, True),
        ("train/epoch", {}, False),
        ("loss", {"stored_name": lambda self, name: f"metrics/{name}"}, False),
    ],
)
def test_a_hint_at_stored_name_needs_another_name_and_no_such_hook(
    name: str, members: dict[str, Any], hinted: bool, tmp_path: Path
) -> None:
    suite = type("Hides", (Reference,), {"read": hides(name), **members})
    [result] = check(suite, tmp_path, ["DEL-001"])
    assert result.outcome == "broken"
    assert ("`stored_name`" in result.message) is hinted


class BeginsItsFileAgain(FileTracker):
    def open(self, opening: Opening) -> str:
        run_id = super().open(opening)
        self.run["points"] = []
        return run_id


def test_rules_share_a_cause_when_a_resume_loses_the_earlier_part(tmp_path: Path) -> None:
    suite = type("BeginsAgain", (Reference,), {"tracker": BeginsItsFileAgain})
    rules = ["RES-001", "RES-002", "RES-003", "RES-007", "RES-008", "RES-009"]
    results = check(suite, tmp_path, rules)
    assert {result.outcome for result in results} == {"broken"}
    [cause] = {result.cause for result in results}
    assert cause is not None


def test_check_distinguishes_deviations_from_mended_ones() -> None:
    deviations = {"LIF-001": Deviation("it is old"), "LIF-002": Deviation("it was old")}
    suite = type("Deviating", (Broken,), {"deviations": deviations})
    outcomes = {result.rule.id: result.outcome for result in check(suite)}
    assert outcomes["LIF-001"] == "deviates"
    assert outcomes["LIF-002"] == "fixed"


def test_only_the_selected_rules_are_checked(tmp_path: Path) -> None:
    assert [result.rule.id for result in check(Broken, tmp_path, ["LIF-002"])] == ["LIF-002"]


def test_a_violation_keeps_its_cause(tmp_path: Path) -> None:
    with pytest.raises(ContractViolation) as raised:
        Broken().test_contract(RULES["LIF-001"], tmp_path)
    assert isinstance(raised.value.__cause__, AttributeError)


@pytest.fixture
def newer_rule() -> Iterator[str]:
    def never(case: Any) -> None:
        raise ContractViolation("no callback keeps this rule")

    none: frozenset[str] = frozenset()
    RULES["LIF-998"] = Rule("LIF-998", "Nothing.", "So.", "No.", (2, 1), none, None, False, never)
    yield "LIF-998"
    del RULES["LIF-998"]


def test_a_newer_rule_runs_if_the_suite_names_its_version(newer_rule: str) -> None:
    newer = type("Newer", (Plain,), {"contract": (2, 1)})
    assert newer_rule not in {result.rule.id for result in check(Plain)}
    assert newer_rule in {result.rule.id for result in check(newer)}


class Hangs(TrainerCallback):
    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        threading.Event().wait()


def test_a_callback_that_hangs_breaks_the_rule(tmp_path: Path) -> None:
    suite = type("Slow", (Plain,), {"make": lambda self, output_dir: Hangs(), "time_limit": 0.5})
    [result] = check(suite, tmp_path, ["LIF-002"])
    assert result.outcome == "broken"
    assert "LIF-002" in result.message
    assert "on_log" in result.message


def test_an_error_about_interrupting_logs_breaks_only_the_rule(tmp_path: Path) -> None:
    class Raising(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **kwargs: Any) -> None:
            raise RuntimeError(f"not these: {logs!r}")

    suite = type("Raises", (Plain,), {"make": lambda self, output_dir: Raising()})
    assert {r.outcome for r in check(suite, tmp_path, ["FLT-004"])} == {"broken"}


def test_reading_a_log_after_its_event_is_not_interrupted(tmp_path: Path) -> None:
    class Keeping(TrainerCallback):
        logs: Any = None

        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **kwargs: Any) -> None:
            self.logs = logs

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            (self.logs or {}).get("loss")

    suite = type("Keeps", (Plain,), {"make": lambda self, output_dir: Keeping()})
    assert [r.outcome for r in check(suite, tmp_path, ["FLT-004"])] == ["kept"]


def test_a_stop_does_not_count_as_drawing_random_numbers(tmp_path: Path) -> None:
    class Stopping(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = state.global_step >= 3

    suite = type("Stops", (Plain,), {"make": lambda self, output_dir: Stopping()})
    assert [r.outcome for r in check(suite, tmp_path, ["ROY-007"])] == ["kept"]


class Unknown(TrainerCallback):
    on_error: Any = "warn"


class Narrow(TrainerCallback):
    def on_log(self, args: Any, state: Any, control: Any, logs: Any) -> None:
        pass


@pytest.mark.parametrize(("kind", "named"), [(Unknown, "on_error"), (Narrow, "kwargs")])
def test_a_callback_that_loops_refuse_breaks_the_rule(
    kind: Any, named: str, tmp_path: Path
) -> None:
    suite = type("Refuses", (Plain,), {"make": lambda self, output_dir: kind()})
    [result] = check(suite, tmp_path, ["FLT-005"])
    assert (result.outcome, named in result.message) == ("broken", True)


def test_a_module_that_imports_its_sdk_breaks_only_one_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "has_its_sdk.py").write_text(
        "import colorsys\n"
        "from callback_core import TrainerCallback\n"
        "class Has(TrainerCallback):\n"
        "    def on_train_begin(self, args, state, control, **kwargs):\n"
        "        colorsys.rgb_to_hsv(0.0, 0.0, 0.0)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    has: Any = import_module("has_its_sdk").Has
    members = {"make": lambda self, output_dir: has(), "sdk": "colorsys", "capabilities": {"sdk"}}
    suite = type("HasItsSdk", (Plain,), members)
    outcomes = {r.rule.id: r.outcome for r in check(suite, None, ["IMP-001", "IMP-002"])}
    assert outcomes == {"IMP-001": "broken", "IMP-002": "does not apply"}


def reads(found: Any) -> type[TrackerContract]:
    members = {
        "__test__": False,
        "contract": (2, 0),
        "make": lambda self, output_dir: TrainerCallback(),
        "read": lambda self, output_dir: found,
    }
    return type("Reads", (TrackerContract,), members)


@pytest.mark.parametrize("found", [None, {"id": "a"}, [{"id": "a"}], RecordedRun("a")])
def test_a_reader_of_the_wrong_type_raises_a_type_error(found: Any, tmp_path: Path) -> None:
    case = Case(reads(found)(), tmp_path)
    with pytest.raises(TypeError, match="RecordedRun"):
        case.runs()


def test_a_check_knows_that_its_rule_is_a_declared_deviation(tmp_path: Path) -> None:
    class Deviates(Plain):
        __test__ = False
        deviations = {"LEF-007": Deviation("it keeps its connections")}  # noqa: RUF012

    found: dict[str, bool] = {}
    for name in ("LEF-001", "LEF-007"):

        def note(case: Case, name: str = name) -> None:
            found[name] = case.is_known_deviation

        check_rule(replace(RULES[name], check=note), Deviates(), tmp_path)
    assert found == {"LEF-001": False, "LEF-007": True}


def test_a_tracker_without_state_and_resume_causes_one_warning(tmp_path: Path) -> None:
    suite = reads([])
    with pytest.warns(UserWarning, match="Reads"):
        check(suite, tmp_path / "first", ["LIF-001"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(suite, tmp_path / "second", ["LIF-001"])


def test_the_state_has_max_steps_once_the_training_begins(tmp_path: Path) -> None:
    seen: dict[str, int] = {}

    class Sees(Training):
        def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
            seen.setdefault(event, self.state.max_steps)

    Case(Plain(), tmp_path).training(kind=Sees).run()
    assert (seen["on_init_end"], seen["on_train_begin"]) == (0, 8)


class SeesFlags(Training):
    """Notes the flags that are on before each event."""

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        on = [flag for flag in FLAGS if getattr(self.control, flag)]
        seen.append((event, self.state.global_step, on))
        return super().call(callback, event, keywords)


seen: list[tuple[str, int, list[str]]] = []


def test_what_follows_a_step_is_on_in_the_control_until_it_is_done(tmp_path: Path) -> None:
    seen.clear()
    Case(Plain(), tmp_path).training(kind=SeesFlags, max_steps=2).run(save=True)
    [first, second] = [on for event, _, on in seen if event == "on_step_end"]
    assert first == ["should_log"]
    assert second == ["should_save", "should_evaluate", "should_log"]
    at_log, at_evaluation = [on for event, step, on in seen if event == "on_log" and step == 2][:2]
    assert at_log == at_evaluation == ["should_save", "should_evaluate"]
    [after] = [on for event, _, on in seen if event == "on_save"]
    assert after == []
    assert [on for event, _, on in seen if event == "on_epoch_end"] == [[]]


class SavesEachSecondStep(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % 2 == 0:
            control.should_save = True


def test_a_request_at_a_step_at_which_the_loop_saves_is_noticed(tmp_path: Path) -> None:
    suite = type("Saves", (Plain,), {"make": lambda self, output_dir: SavesEachSecondStep()})
    [result] = check(suite, tmp_path, ["CTL-003"])
    assert result.outcome == "broken"


MODULE = """
    from callback_contract import CallbackContract, Deviation
    from callback_core import TrainerCallback

    class Unclosable(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            self.opened = True

        def on_train_end(self, args, state, control, **kwargs):
            self.opened = not self.opened

    class Mine(CallbackContract):
        contract = (2, 0)
        deviations = {deviations}

        def make(self, output_dir):
            return Unclosable()
"""


def module(deviations: str = "{}") -> str:
    return MODULE.format(deviations=deviations)


def test_each_rule_is_a_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(module())
    done = pytester.runpytest(
        "-rfs", "-k", "LIF-001 or LIF-002 or STA-001", "-p", "no:callback_contract"
    )
    outcomes = done.parseoutcomes()
    assert (outcomes["passed"], outcomes["failed"], outcomes["skipped"]) == (1, 1, 1)
    done.stdout.fnmatch_lines(["SKIPPED *state*"])
    done.stdout.fnmatch_lines(["FAILED *::Mine::test_contract[[]LIF-001[]]*"])


def test_a_deviation_is_an_xfail_and_fails_once_it_is_fixed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        module('{"LIF-001": Deviation("it is old", "#41"), "LIF-002": Deviation("it was old")}')
    )
    done = pytester.runpytest("-rfx", "-k", "LIF-001 or LIF-002", "-p", "no:callback_contract")
    outcomes = done.parseoutcomes()
    assert (outcomes["failed"], outcomes["xfailed"]) == (1, 1)
    done.stdout.fnmatch_lines(["FAILED *LIF-002*", "XFAIL *LIF-001* - it is old #41"])


def test_the_plugin_writes_a_table_and_a_file(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_mine=module('{"LIF-002": Deviation("it was old")}'))
    plugin = ("-p", "no:callback_contract", "-p", "callback_contract.plugin")
    chosen = "LIF-001 or LIF-002 or LIF-003 or STA-001"
    done = pytester.runpytest("-k", chosen, "--contract-report", "report.json", *plugin)
    done.stdout.fnmatch_lines(
        ["test_mine.Mine *1 *1 *1 *1", "LIF-001 broken in *", "LIF-002 fixed in *"]
    )
    report = json.loads((pytester.path / "report.json").read_text(encoding="utf-8"))
    rules = {rule["id"]: rule for rule in report["callbacks"]["test_mine.Mine"]["rules"]}
    assert rules["LIF-001"]["outcome"] == "broken"
    assert rules["LIF-001"]["group"] == "LIF"
    assert rules["STA-001"]["outcome"] == "not claimed"


def test_the_results_of_check_make_a_report(tmp_path: Path) -> None:
    results = {"mine": check(Broken, tmp_path, ["LIF-001", "LIF-002", "STA-001"])}
    assert "LIF-001 broken in mine" in table(results)
    counts = as_data(results)["callbacks"]["mine"]["counts"]
    assert (counts["kept"], counts["broken"], counts["not claimed"]) == (1, 1, 1)
