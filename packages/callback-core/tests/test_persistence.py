"""The states of callbacks in a checkpoint: each goes back to the callback that it came from."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from callback_core import (
    CallbackHandler,
    DefaultFlowCallback,
    EarlyStoppingCallback,
    ExportableState,
    TrainerCallback,
    TrainerControl,
    export_states,
    restore_states,
)


class Counter(TrainerCallback):
    """Keeps a number by `state_dict`."""

    def __init__(self, count: int = 0) -> None:
        self.count = count

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


class Exported(TrainerCallback, ExportableState):
    """Keeps a number as transformers' callbacks do."""

    def __init__(self, limit: int = 1) -> None:
        self.limit, self.count = limit, 0

    def state(self) -> dict[str, Any]:
        return {"args": {"limit": self.limit}, "attributes": {"count": self.count}}


class Plain(TrainerCallback):
    """Has no state to keep, though it calls something its state."""

    def __init__(self) -> None:
        self.state = "not to be kept"


def through_a_file(owners: list[Any], kept: dict[str, Any] | None = None) -> dict[str, Any]:
    states: dict[str, Any] = json.loads(json.dumps(export_states(owners, kept or {})))
    return states


def test_states_have_transformers_shape() -> None:
    exported = Exported(limit=3)
    exported.count = 2
    assert export_states([Counter(5), exported, Plain()], {}) == {
        "Counter": {"args": {}, "attributes": {"count": 5}},
        "Exported": {"args": {"limit": 3}, "attributes": {"count": 2}},
    }


def test_any_number_of_one_class_is_restored_in_place_and_in_order() -> None:
    states = through_a_file([Counter(1), Exported(), Counter(2), Counter(3)])
    counters = [Counter(), Counter(), Counter()]
    restore_states(counters, states)
    assert [counter.count for counter in counters] == [1, 2, 3]


def test_saving_again_and_again_does_not_grow() -> None:
    counters = [Counter(1), Counter(2)]
    states: dict[str, Any] = {}
    for _ in range(3):
        states = through_a_file(counters, states)
    assert states == through_a_file(counters)


def test_early_stopping_goes_on_counting() -> None:
    saved, restored = EarlyStoppingCallback(5), EarlyStoppingCallback(5)
    saved.early_stopping_patience_counter = 3
    restore_states([restored], through_a_file([saved]))
    assert restored.early_stopping_patience_counter == 3


def test_new_arguments_of_a_callback_count_and_not_those_of_the_checkpoint() -> None:
    saved, restored = Exported(limit=3), Exported(limit=7)
    saved.count = 2
    restore_states([restored], through_a_file([saved]))
    assert (restored.limit, restored.count) == (7, 2)


def test_arguments_that_differ_from_the_checkpoint_s_are_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    restore_states([Exported(limit=7)], through_a_file([Exported(limit=3)]))
    [record] = caplog.records
    assert {"Exported", "limit", "7", "3"} <= set(re.findall(r"\w+", record.getMessage()))


class InArguments(TrainerCallback, ExportableState):
    """Keeps its number as an argument of its constructor."""

    def __init__(self, count: int = 0) -> None:
        self.count = count
        self.trainer: object = None

    def state(self) -> dict[str, Any]:
        return {"args": {"count": self.count}, "attributes": {}}


class InPrivate(InArguments):
    """Keeps it under another name than the argument's."""

    def __init__(self, count: int = 0) -> None:
        super().__init__()
        self._number = count

    @property
    def count(self) -> int:
        return self._number

    @count.setter
    def count(self, value: int) -> None:
        if value:
            raise AttributeError

    def state(self) -> dict[str, Any]:
        return {"args": {"count": self._number}, "attributes": {}}


class OwnWay(InArguments):
    """Restores its number in its own way."""

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"half": self.count / 2}}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Any:
        return cls(int(state["attributes"]["half"] * 2))


@pytest.mark.parametrize("kind", [InArguments, InPrivate, OwnWay])
def test_a_state_in_the_arguments_is_restored_in_place(kind: Any) -> None:
    saved, restored = kind(5), kind()
    restored.trainer = "the trainer"
    restore_states([restored], through_a_file([saved]))
    assert (restored.count, restored.trainer) == (5, "the trainer")
    assert restored.state() == saved.state()


def test_a_state_in_the_arguments_of_transformers_own_class_is_restored() -> None:
    class ExportableState:
        @classmethod
        def from_state(cls, state: dict[str, Any]) -> Any:
            return cls(**state["args"])

    class Theirs(TrainerCallback, ExportableState):
        def __init__(self, seen: tuple[int, ...] = ()) -> None:
            self.seen = list(seen)

        def state(self) -> dict[str, Any]:
            return {"args": {"seen": self.seen}, "attributes": {}}

    restored = Theirs()
    restore_states([restored], through_a_file([Theirs((1, 2))]))
    assert restored.seen == [1, 2]


def test_a_state_without_its_callback_is_named_and_kept(caplog: pytest.LogCaptureFixture) -> None:
    states = through_a_file([Counter(1), Exported()])
    restore_states([Exported()], states)
    assert "Counter" in caplog.text
    assert through_a_file([Exported()], states)["Counter"] == states["Counter"]


def test_a_callback_without_its_state_is_named_and_begins_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counters = [Counter(7), Counter(8)]
    restore_states(counters, through_a_file([Counter(1)]))
    assert [counter.count for counter in counters] == [1, 8]
    assert "Counter" in caplog.text


def test_the_control_keeps_who_asked_for_what() -> None:
    control = TrainerControl()
    control.request_stop("enough")
    states = through_a_file([control])
    made = TrainerControl.from_state(states["TrainerControl"])
    assert made == control
    assert made.requests == control.requests


def test_from_state_makes_a_new_object_as_in_transformers() -> None:
    made = Exported.from_state({"args": {"limit": 3}, "attributes": {"count": 2}})
    assert (made.limit, made.count) == (3, 2)


def test_a_class_that_does_not_say_what_its_state_is_says_so() -> None:
    with pytest.raises(NotImplementedError, match=r"ExportableState must implement state\(\)"):
        ExportableState().state()


class Broken(TrainerCallback):
    """Can neither save nor restore its state."""

    def __init__(self, on_error: Any) -> None:
        self.on_error = on_error

    def state_dict(self) -> dict[str, Any]:
        raise OSError("no state")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise OSError("no state")


def test_an_isolated_callback_s_broken_state_is_logged_and_costs_no_other_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counter = Counter()
    states = through_a_file([Broken("isolate"), Counter(3)])
    assert list(states) == ["Counter"]
    restore_states([Broken("isolate"), counter], {**states, "Broken": {"attributes": {}}})
    assert counter.count == 3
    assert [record.args[0] for record in caplog.records] == ["Broken"] * 2  # type: ignore[index]


def test_another_callback_s_broken_state_is_an_error() -> None:
    with pytest.raises(OSError, match="no state"):
        export_states([Broken("raise")], {})


class Odd(Counter):
    """Isolated, and its state is none while its number is odd."""

    on_error = "isolate"

    def state_dict(self) -> dict[str, Any]:
        return {"count": {self.count}} if self.count % 2 else super().state_dict()


def test_an_isolated_callback_s_state_that_is_not_json_costs_the_checkpoint_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert through_a_file([Odd(1), Counter(1)]) == through_a_file([Counter(1)])
    assert "Odd" in caplog.text
    assert "attributes']['count'] cannot be written as JSON: it is a set" in caplog.text


def test_another_callback_s_state_that_is_not_json_is_an_error_that_says_where() -> None:
    odd = Odd(1)
    odd.on_error = "raise"
    with pytest.raises(
        TypeError, match=r"state of Odd\['attributes'\]\['count'\] cannot be written"
    ):
        export_states([odd], {})


def test_what_is_exported_is_a_snapshot() -> None:
    counter = Counter()
    counter.count = [1]  # type: ignore[assignment]
    states = export_states([counter], {})
    counter.count.append(2)  # type: ignore[attr-defined]
    assert states["Counter"]["attributes"] == {"count": [1]}


def test_states_without_a_callback_are_kept_also_where_others_of_the_class_have_one() -> None:
    states = through_a_file([Counter(1), Counter(2), Counter(3)])
    assert [
        entry["attributes"]["count"] for entry in through_a_file([Counter(7)], states)["Counter"]
    ] == [7, 2, 3]


@pytest.mark.parametrize(
    ("numbers", "kept", "restored"),
    [((1, 2), {}, [9, 2]), ((1, 2), (4, 6), [4, 2]), ((2, 1), {}, [2, 9])],
    ids=["null", "the previous one", "null at the end"],
)
def test_the_place_of_a_state_that_could_not_be_saved_is_held(
    numbers: tuple[int, int], kept: Any, restored: list[int]
) -> None:
    before = through_a_file([Odd(number) for number in kept])
    owners = [Odd(9), Odd(9)]
    restore_states(owners, through_a_file([Odd(number) for number in numbers], before))
    assert [owner.count for owner in owners] == restored


def test_null_in_the_place_of_a_state_is_no_state(caplog: pytest.LogCaptureFixture) -> None:
    restore_states([Counter()], {"Counter": None})
    assert "Counter" in caplog.text


class StateOfSomethingElse(TrainerCallback):
    """Has methods and attributes of such names for reasons of its own."""

    state_dict: Any = None

    def state(self, key: str) -> str:
        return key


def test_what_only_looks_like_a_state_is_none() -> None:
    assert export_states([StateOfSomethingElse()], {}) == {}


def test_half_of_a_pair_of_methods_is_refused_when_the_callback_is_added() -> None:
    class Half(TrainerCallback):
        def state_dict(self) -> dict[str, Any]:
            return {}

    with pytest.raises(TypeError, match=r"Half.* state_dict .*load_state_dict"):
        CallbackHandler([DefaultFlowCallback, Half], None, None, None, None)


def test_the_state_of_transformers_own_class_is_known_by_its_name() -> None:
    theirs = type("ExportableState", (), {})

    class Callback(TrainerCallback, theirs):  # type: ignore[misc, valid-type]
        def state(self) -> dict[str, Any]:
            return {"args": {}, "attributes": {}}

    assert list(export_states([Callback()], {})) == ["Callback"]


def test_a_control_is_restored_with_its_flags() -> None:
    control, restored = TrainerControl(should_save=True), TrainerControl(should_log=True)
    control.request_stop("enough")
    restore_states([restored], through_a_file([control]))
    assert (restored, restored.requests) == (control, control.requests)


@pytest.mark.parametrize("entry", [{"args": {}}, 3])
def test_an_entry_that_is_no_state_is_an_error_that_says_what_is_expected(entry: Any) -> None:
    with pytest.raises(ValueError, match=r'Counter is not \{"args": .*, "attributes": .*\}'):
        restore_states([Counter()], {"Counter": entry})


def test_a_state_that_a_callback_refuses_is_an_error_that_names_its_class() -> None:
    # such as that of another class of this name
    with pytest.raises(ValueError, match=r"test_persistence\.Counter .* KeyError\('count'\)"):
        restore_states([Counter()], {"Counter": {"args": {}, "attributes": {"other": 1}}})
