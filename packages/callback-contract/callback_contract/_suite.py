"""The base classes for tests of callbacks: `CallbackContract` and `TrackerContract`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NamedTuple

from callback_contract import rules as _rules  # noqa: F401  importing it registers the rules
from callback_contract._case import Case
from callback_contract._isolation import RuleTookTooLong, time_limit
from callback_contract._process import captured_output, restored_process
from callback_contract._registry import RULES, Rule, Version
from callback_contract._result import Outcome, Result
from callback_contract._subject import (
    CAPABILITIES,
    PRECISIONS,
    TRACKER_CAPABILITIES,
    Deviation,
    Subject,
)
from callback_contract._violation import FIX_OF_AN_ERROR, ContractViolation, DoesNotApply, place_of

if TYPE_CHECKING:
    import pytest

_FINAL_METHODS: Final = ("test_contract", "pytest_generate_tests")
"""The methods that a subclass must not override."""

_REQUIRED_MEMBERS: Final = {
    "make_patient": "patience",
    "make_with": "settings",
    "settings": "settings",
    "make_unreachable": "unreachable",
    "users_run": "adopts",
    "sdk": "sdk",
}
"""The hooks and attributes that a suite must define, each with the capability that needs it."""


class CallbackContract(Subject):
    """Checks a callback against the contract, with one test for each rule.

    Subclass it in a test module and define `make`; pytest collects the subclass. A class that
    serves only as a base of other suites sets `__test__ = False`.

    Attributes:
        contract: The version of the contract that the callback passes. Newer rules do not run.
        capabilities: What the callback does. Rules that need other capabilities are skipped.
        not_claimed: Optional: all other capabilities. The suite then fails when a new one appears.
        deviations: The rules that the callback is known to break, by id.

    Raises:
        TypeError: A subclass names an unknown rule, capability or version, overrides a test, or
            declares a deviation without a reason or from a rule that does not run.
    """

    contract: ClassVar[Version]
    deviations: ClassVar[Mapping[str, Deviation]] = {}
    not_claimed: ClassVar[Collection[str] | None] = None
    __test__: ClassVar[bool]
    of_trackers: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Reject a subclass that contains a mistake."""
        super().__init_subclass__(**kwargs)
        if cls.__module__ == __name__:
            return
        if "__test__" not in vars(cls):
            cls.__test__ = True  # pytest then collects the class whatever its name is
        if mistakes := list(_mistakes(cls)):
            raise TypeError(f"{cls.__name__}: {'; '.join(mistakes)}.")

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Generate a test for each rule. pytest calls this on test classes without a plugin."""
        import pytest

        if "rule" not in metafunc.fixturenames:
            return
        parameters = []
        for rule, expected, missing in plan(type(self)):
            marks = []
            if expected == "deviates":
                reason = " ".join(filter(None, self.deviations[rule.id]))
                marks = [pytest.mark.xfail(strict=True, raises=ContractViolation, reason=reason)]
            elif expected == "not claimed":
                marks = [pytest.mark.skip(reason=f"not claimed: {missing}")]
            parameters.append(pytest.param(rule, id=rule.id, marks=marks))
        metafunc.parametrize("rule", parameters)

    def test_contract(self, rule: Rule, tmp_path: Path) -> None:
        """The callback keeps the rule."""
        import pytest

        _warn_if_resume_is_unchecked(type(self))
        try:
            check_rule(rule, self, tmp_path, _CAUSES[type(self)])
        except DoesNotApply as reason:
            pytest.skip(f"does not apply: {reason}")


class TrackerContract(CallbackContract):
    """Checks a tracker's callback. It adds the rules that read the tracker's store."""

    of_trackers = True


class PlannedRule(NamedTuple):
    """A rule that a suite selects.

    Attributes:
        rule: The rule.
        expected: The expected outcome. A rule that is not claimed is skipped.
        missing: The capabilities that the rule needs and the author does not claim.
    """

    rule: Rule
    expected: Literal["kept", "deviates", "not claimed"]
    missing: str = ""


def plan(suite: type[CallbackContract]) -> Iterator[PlannedRule]:
    """Yield the rules that `suite` selects.

    Rules with an `unless` that the suite claims are left out.
    """
    for rule in sorted(RULES.values(), key=lambda rule: rule.id):
        if rule.since > suite.contract or (rule.of_trackers and not suite.of_trackers):
            continue
        if rule.unless in suite.capabilities:
            continue
        if missing := rule.needs - set(suite.capabilities):
            yield PlannedRule(rule, "not claimed", ", ".join(sorted(missing)))
        else:
            yield PlannedRule(rule, "deviates" if rule.id in suite.deviations else "kept")


def _mistakes(suite: type[CallbackContract]) -> Iterator[str]:
    """Yield the mistakes in the definition of `suite`."""
    for name in _FINAL_METHODS:
        if name in vars(suite):
            yield f"{name} must not be overridden"
    if isinstance(suite.capabilities, str):
        yield f"capabilities must be a set of names, not the string {suite.capabilities!r}"
        return
    claimed = set(suite.capabilities)
    known = {*CAPABILITIES, *(TRACKER_CAPABILITIES if suite.of_trackers else ())}
    for name in sorted(claimed - known):
        yield f"the capability {name!r} is unknown; known are {', '.join(sorted(known))}"
    if suite.precision not in PRECISIONS:
        yield f"precision must be one of {', '.join(PRECISIONS)}, not {suite.precision!r}"
    if not suite.__test__ and not hasattr(suite, "contract"):
        return
    newest = max(rule.since for rule in RULES.values())
    if not (2, 0) <= getattr(suite, "contract", (0, 0)) <= newest:
        yield f"contract must be a version from (2, 0) to {newest}"
        return
    if suite.not_claimed is not None and set(suite.not_claimed) != known - claimed:
        yield f"not_claimed must name all other capabilities: {sorted(known - claimed)}"
    if suite.__test__:  # a base class may leave hooks to its subclasses
        for member, capability in _REQUIRED_MEMBERS.items():
            if capability in claimed and getattr(suite, member) is getattr(Subject, member):
                yield f"the capability {capability!r} needs `{member}`"
    selected = {planned.rule.id for planned in plan(suite) if planned.expected != "not claimed"}
    for rule_id, deviation in suite.deviations.items():
        if rule_id not in RULES:
            yield f"the rule {rule_id} is unknown"
        elif rule_id not in selected:
            yield f"{rule_id} does not run, so the callback cannot deviate from it"
        elif not isinstance(deviation, Deviation) or not deviation.reason.strip():
            yield f"the deviation from {rule_id} must be a Deviation with a reason"


_WARNED: Final[set[type[CallbackContract]]] = set()


def _warn_if_resume_is_unchecked(suite: type[CallbackContract]) -> None:
    """Warn once if a tracker claims neither `state` nor `resume`."""
    unchecked = suite.of_trackers and not {"state", "resume"} & set(suite.capabilities)
    if unchecked and suite not in _WARNED:
        import warnings

        _WARNED.add(suite)
        warnings.warn(
            f"{suite.__name__} claims neither 'state' nor 'resume', so no rule checks in which run "
            "a resumed training is stored.",
            stacklevel=3,
        )


_CAUSES: Final[defaultdict[type[CallbackContract], dict[str, str]]] = defaultdict(dict)
"""For each suite that pytest runs, the first rule that failed for each cause."""


def check_rule(
    rule: Rule, subject: Subject, folder: Path, causes: dict[str, str] | None = None
) -> None:
    """Check one rule, then restore the process and end what the rule left running.

    Args:
        rule: The rule.
        subject: The callback under test.
        folder: An empty directory.
        causes: The first rule that failed for each cause so far. A later failure for a known cause
            names that rule instead of repeating its message.

    Raises:
        ContractViolation: The callback breaks the rule. The message begins with the rule's id.
        DoesNotApply: The rule does not apply to this callback.
    """
    if subject.sdk is not None:
        with suppress(ImportError):  # keeps the time of the import out of the rule's time limit
            import_module(subject.sdk)
    case = Case(subject, folder, rule.id in getattr(subject, "deviations", ()))
    with restored_process():
        try:
            with time_limit(subject.time_limit):
                rule.check(case)
        except (ContractViolation, RuleTookTooLong) as error:
            raise _explained(rule, case, error, causes) from error.__cause__
        finally:
            with time_limit(subject.time_limit), suppress(RuleTookTooLong):
                case.close()


def _explained(
    rule: Rule,
    case: Case,
    error: ContractViolation | RuleTookTooLong,
    causes: dict[str, str] | None,
) -> ContractViolation:
    """Return the violation with everything that helps to fix it."""
    if isinstance(error, RuleTookTooLong):
        call = case.trainings[-1].history[-1][0] if case.summary() else "a hook"
        seen = f"{call} did not return within {case.subject.time_limit:g} s"
        cause: str | None = f"{call} hangs"
        fix = rule.fix
    else:
        seen, cause, fix = str(error), error.cause, error.fix or rule.fix
    first = (causes or {}).get(cause or "")
    if first is not None and first != rule.id:
        message = f"[{rule.id}] fails for the same reason as {first}: {cause}"
        return ContractViolation(message, cause, fix, seen)
    if cause is not None and causes is not None:
        causes[cause] = rule.id
    lines = [f"[{rule.id}] {rule.demands}", f"  seen: {seen}"]
    if cause is not None and cause not in seen:
        lines.append(f"  cause: {cause}")
    if done := case.summary():
        lines.append(f"  done: {done}")
    if fix == FIX_OF_AN_ERROR and rule.forbids_errors:
        fix += f" If no other rule fails: {rule.fix}"
    return ContractViolation("\n".join([*lines, f"  to fix it: {fix}"]), cause, fix, seen)


def check(
    suite: type[CallbackContract],
    folder: Path | None = None,
    rules: Collection[str] | None = None,
) -> list[Result]:
    """Check a callback against the contract without pytest, and return the outcome of each rule.

    Args:
        suite: The callback, as a subclass describes it.
        folder: An empty directory to work in; by default a temporary one.
        rules: The ids of the rules to check; by default all that apply.
    """
    import tempfile

    _warn_if_resume_is_unchecked(suite)
    causes: dict[str, str] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary, captured_output():
        parent = Path(temporary) if folder is None else folder
        subject = suite()
        return [
            _outcome(planned, subject, parent / planned.rule.id, causes)
            for planned in plan(suite)
            if rules is None or planned.rule.id in rules
        ]


def _outcome(
    planned: PlannedRule, subject: Subject, folder: Path, causes: dict[str, str]
) -> Result:
    rule, expected, missing = planned
    if expected == "not claimed":
        return Result(rule, "not claimed", missing)
    folder.mkdir(parents=True)
    deviates = expected == "deviates"
    try:
        check_rule(rule, subject, folder, causes)
    except ContractViolation as violation:
        outcome: Outcome = "deviates" if deviates else "broken"
        return Result(rule, outcome, str(violation), violation.cause)
    except DoesNotApply as reason:
        return Result(rule, "does not apply", str(reason))
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        return Result(rule, "crashed", message, place_of(error, subject))
    return Result(rule, "fixed" if deviates else "kept")
