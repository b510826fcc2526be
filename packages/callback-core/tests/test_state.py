"""The fields of the state, the steps that it computes, and its file."""

from __future__ import annotations

import json
import math
import os
import resource
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callback_core import ExportableState, TrainerState

FILES = Path(__file__).parent / "state_files"
OF_5_23 = FILES / "transformers-5.23.0.json"
OF_4_34 = FILES / "transformers-4.34.0.json"

KEYS = st.text(max_size=8) | st.builds("__float__{}".format, st.text('_\n"ax', max_size=3))
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["NaN", '": NaN', ',\n"', "[Infinity, ", "\\", '\\"NaN', "__float__"])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
LOGS = st.lists(st.dictionaries(KEYS, VALUES, max_size=4), max_size=4)


class Scalar:
    """A number as numpy and torch have it."""

    def __init__(self, value: Any, shape: tuple[int, ...] = ()) -> None:
        self.value, self.shape = value, shape

    def item(self) -> Any:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


class Counting(ExportableState):
    """A callback with a state, as transformers' `ExportableState` has it."""

    def __init__(self, count: int) -> None:
        self.count = count

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"count": self.count}}


class Naming(Counting):
    pass


def standard(path: Path) -> Any:
    """Return what a reader that knows nothing but the standard reads."""

    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is not standard JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_the_page_s_fields_have_the_page_s_defaults() -> None:
    state = TrainerState()
    assert (state.epoch, state.global_step, state.max_steps, state.num_train_epochs) == (
        None,
        0,
        0,
        0,
    )
    assert (state.logging_steps, state.eval_steps, state.save_steps) == (500, 500, 500)
    assert (state.total_flos, state.log_history) == (0, [])
    assert (state.best_metric, state.best_model_checkpoint) == (None, None)
    assert (state.is_local_process_zero, state.is_world_process_zero) == (True, True)
    assert (state.is_hyper_param_search, state.trial_name, state.trial_params) == (
        False,
        None,
        None,
    )


def test_two_states_share_no_history() -> None:
    TrainerState().log_history.append({"loss": 1.0})
    assert TrainerState().log_history == []


@pytest.mark.parametrize(("given_steps", "steps"), [(7, 7), (0.25, 3), (1, 1), (None, 500)])
def test_steps_are_taken_from_the_arguments_and_fractions_are_of_all_steps(
    given_steps: float | None, steps: int
) -> None:
    state = TrainerState()
    state.compute_steps(
        SimpleNamespace(logging_steps=given_steps, eval_steps=given_steps, save_steps=5), 10
    )
    assert (state.logging_steps, state.eval_steps, state.save_steps) == (steps, steps, 5)


@pytest.mark.parametrize(
    ("share", "steps", "expected"),
    [
        (0.07, 100, 7),
        (0.14, 50, 7),
        (0.29, 100, 29),
        (0.57, 100, 57),
        (0.1 * 3, 10, 3),
        (5 / 7, 7, 5),
        (1 / 3, 9, 3),
        (0.07, 101, 8),
        (0.001, 100, 1),
        (0.28, 25, 7),
        (0.07, 1_000_000, 70_000),
        (0.0700001, 1_000_000, 70_001),
    ],
)
def test_a_share_that_means_a_whole_number_of_steps_is_exactly_that(
    share: float, steps: int, expected: int
) -> None:
    state = TrainerState()
    state.compute_steps(
        SimpleNamespace(logging_steps=share, eval_steps=share, save_steps=share), steps
    )
    assert (state.logging_steps, state.eval_steps, state.save_steps) == (expected,) * 3


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[Path]:
    """A file of an earlier save, which must be there as it was, alone, when the test is done."""
    path = tmp_path / "trainer_state.json"
    TrainerState(global_step=1).save_to_json(path)
    before = path.read_bytes()
    yield path
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


@given(history=LOGS, callbacks=st.dictionaries(KEYS, VALUES, max_size=2), metric=st.floats())
def test_any_state_is_standard_json_and_reads_back_as_it_was(
    directory: Path, history: list[Any], callbacks: dict[str, Any], metric: float
) -> None:
    path = directory / "trainer_state.json"
    state = TrainerState(
        epoch=0.5, log_history=history, stateful_callbacks=callbacks, best_metric=metric
    )
    state.save_to_json(path)
    standard(path)
    # By its text, in which NaN equals NaN, 1 is not 1.0, 0.0 not -0.0, and order counts.
    assert repr(TrainerState.load_from_json(path)) == repr(state)


@given(unknown=st.dictionaries(KEYS.map("x{}".format) | KEYS, VALUES, max_size=3))
def test_any_unknown_fields_read_back_as_they_were(
    directory: Path, unknown: dict[str, Any]
) -> None:
    path = directory / "unknown.json"
    state = TrainerState(unknown_fields=unknown)
    state.save_to_json(path)
    loaded = TrainerState.load_from_json(path).unknown_fields
    assert sorted(map(repr, loaded.items())) == sorted(map(repr, unknown.items()))


def test_the_file_has_every_field_and_a_line_for_each_log(tmp_path: Path) -> None:
    state = TrainerState(log_history=[{"loss": 1.0, "step": 1}, {"loss": math.nan, "step": 2}])
    state.save_to_json(tmp_path / "state.json")
    lines = (tmp_path / "state.json").read_text(encoding="utf-8").splitlines()
    assert '{"loss": 1.0, "step": 1},' in lines
    assert '{"loss": {"__float__": "NaN"}, "step": 2}' in lines
    assert all(
        any(line.startswith(f'"{field.name}"') for line in lines)
        for field in fields(TrainerState)
        if field.name != "unknown_fields"
    )


def test_the_file_has_the_names_that_transformers_reads_and_no_other(tmp_path: Path) -> None:
    TrainerState().save_to_json(tmp_path / "state.json")
    assert standard(tmp_path / "state.json").keys() == json.loads(OF_5_23.read_text()).keys()


def test_scalars_of_arrays_are_written_as_plain_numbers_and_tuples_as_lists(tmp_path: Path) -> None:
    state = TrainerState(
        best_metric=Scalar(0.5),  # type: ignore[arg-type]
        log_history=[{"loss": Scalar(2, (1, 1)), "all": (Scalar(1.5), {"nan": Scalar(math.nan)})}],
    )
    state.save_to_json(tmp_path / "state.json")
    loaded = TrainerState.load_from_json(tmp_path / "state.json")
    assert loaded.best_metric == 0.5
    assert repr(loaded.log_history) == "[{'loss': 2, 'all': [1.5, {'nan': nan}]}]"


@pytest.mark.parametrize(
    ("value", "place", "kind"),
    [
        ({1}, "", "it is a set"),
        (b"", "", "it is a bytes"),
        (1j, "", "it is a complex"),
        (Path(), "", r"it is a pathlib\.\w+"),
        ({"a": [0, {"b": {1}}]}, r"\['a'\]\[1\]\['b'\]", "it is a set"),
        ({"a": {(1, 2): 3}}, r"\['a'\]", "keys must be .*, not tuple"),
        (
            Scalar(0, (3, 2)),
            "",
            r"it is a .*Scalar of shape \(3, 2\), not a single number",
        ),
        (Scalar(RuntimeError("meta")), "", r"it is a .*Scalar .* value: meta"),
    ],
)
def test_a_value_that_json_does_not_have_is_named_and_the_old_file_kept(
    saved: Path, value: Any, place: str, kind: str
) -> None:
    state = TrainerState(log_history=[{"loss": 1.0}, {"loss": 0.5, "other": value}])
    place = rf"^log_history\[1\]\['other'\]{place} cannot be written as JSON: {kind}"
    with pytest.raises(TypeError, match=place):
        state.save_to_json(saved)


def test_a_field_that_json_does_not_have_is_named(saved: Path) -> None:
    with pytest.raises(TypeError, match=r"^trial_params cannot be written as JSON: it is a set"):
        TrainerState(trial_params={1}).save_to_json(saved)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^newer cannot be written as JSON: it is a set"):
        TrainerState(unknown_fields={"newer": {1}}).save_to_json(saved)


def test_a_log_that_contains_itself_is_named_and_the_old_file_kept(saved: Path) -> None:
    log: dict[str, Any] = {"loss": 0.5}
    log["log"] = log
    with pytest.raises(ValueError, match=r"^log_history\[1\].* cannot be written .*Circular"):
        TrainerState(log_history=[{}, log]).save_to_json(saved)


def test_a_log_that_is_nested_too_deeply_is_named_and_the_old_file_kept(saved: Path) -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(ValueError, match=r"^log_history\[0\].* cannot be written as JSON"):
        TrainerState(log_history=[{"nested": nested}]).save_to_json(saved)


def test_a_write_that_breaks_off_leaves_the_old_file_and_nothing_else(saved: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            TrainerState(log_history=[{"loss": 0.5}] * 10_000).save_to_json(saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_replacement_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "state.json").mkdir()
    with pytest.raises(IsADirectoryError):
        TrainerState().save_to_json(tmp_path / "state.json")
    assert os.listdir(tmp_path) == ["state.json"]


def test_a_link_stays_a_link_to_the_file_that_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to("state.json")
    TrainerState(global_step=4).save_to_json(tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert TrainerState.load_from_json(tmp_path / "state.json").global_step == 4


@pytest.mark.parametrize("path", sorted(FILES.glob("*.json")), ids=lambda path: path.stem)
def test_a_file_of_transformers_is_read_as_it_stands_and_saved_as_standard_json(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = TrainerState.load_from_json(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert repr({name: getattr(state, name) for name in content}) == repr(content)
    missing = {name: value for name, value in asdict(state).items() if name not in content}
    assert missing == {name: getattr(TrainerState(), name) for name in missing}
    assert not caplog.records
    state.save_to_json(tmp_path / "state.json")
    standard(tmp_path / "state.json")
    assert repr(TrainerState.load_from_json(tmp_path / "state.json")) == repr(state)


def test_the_files_of_transformers_are_those_that_differ() -> None:
    old, new = json.loads(OF_4_34.read_text()), json.loads(OF_5_23.read_text())
    assert new.keys() - old.keys() == {
        "best_global_step",
        "num_input_tokens_seen",
        "stateful_callbacks",
        "train_batch_size",
    }
    assert "NaN" in OF_4_34.read_text() and "Infinity" in OF_4_34.read_text()


def test_unknown_fields_are_kept_named_once_and_saved_at_the_top_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state.json"
    newer = {"newer": {"a": [1]}, "unknown_fields": 3}
    path.write_text(json.dumps({**json.loads(OF_5_23.read_text()), **newer}))
    state = TrainerState.load_from_json(path)
    assert state.unknown_fields == newer
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().endswith(
        f"{path.name} has unknown fields, which are kept: newer, unknown_fields"
    )
    replace(TrainerState(**asdict(state)), global_step=9).save_to_json(path)
    assert {name: standard(path)[name] for name in newer} == newer
    assert TrainerState.load_from_json(path) == replace(state, global_step=9)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"epoch": 1.0, "glob',
        b"[]",
        b"null",
        b'{"__float__": "NaN"}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_a_file_that_holds_no_object_is_refused_by_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trainer_state.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"trainer_state\.json holds no trainer state"):
        TrainerState.load_from_json(path)


def test_data_that_only_resembles_a_float_of_the_file_is_read_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    log = '{"__float__": 1}, {"__float__": ["NaN"]}, {"__float__": "nan"}, {"__float__x_": 2}'
    path.write_text(f'{{"log_history": [{log}]}}')
    assert TrainerState.load_from_json(path).log_history == json.loads(f"[{log}]")


def test_none_is_an_empty_history_and_no_states() -> None:
    state = TrainerState(log_history=None, stateful_callbacks=None)  # type: ignore[arg-type]
    assert state == TrainerState()


def test_callbacks_are_taken_as_their_states_by_class_name() -> None:
    callbacks: Any = [Counting(1), Naming(2), Counting(3), Counting(4)]
    assert TrainerState(stateful_callbacks=callbacks).stateful_callbacks == {
        "Counting": [Counting(1).state(), Counting(3).state(), Counting(4).state()],
        "Naming": Naming(2).state(),
    }


@pytest.mark.parametrize("callback", [object(), Counting, {"args": {}}, SimpleNamespace(state=1)])
def test_callbacks_without_a_state_are_refused(callback: Any) -> None:
    with pytest.raises(TypeError, match="ExportableState"):
        TrainerState(stateful_callbacks=[callback])  # type: ignore[arg-type]


def trainer(**attributes: Any) -> SimpleNamespace:
    return SimpleNamespace(
        is_local_process_zero=lambda: True, is_world_process_zero=lambda: False, **attributes
    )


def test_a_beginning_training_tells_the_state_what_it_will_do() -> None:
    state = TrainerState(trial_name="old", trial_params={"old": 1})
    state.init_training_references(trainer(), 10, 2, None)
    assert state == TrainerState(
        max_steps=10,
        num_train_epochs=2,
        is_world_process_zero=False,
        trial_name="old",  # as in transformers
    )


@pytest.mark.parametrize("trial", [{"rate": 0.5}, SimpleNamespace(params={"rate": 0.5})])
def test_a_trial_gives_its_name_and_its_parameters(trial: Any) -> None:
    state = TrainerState()
    state.init_training_references(trainer(_trial=trial, hp_name=lambda trial: "t1"), 1, 1, trial)
    assert (state.trial_name, state.trial_params) == ("t1", {"rate": 0.5})


@pytest.mark.parametrize(
    "attributes", [{"hp_name": str, "_trial": None}, {"hp_name": None, "_trial": 1}]
)
def test_there_is_no_trial_s_name_without_a_trial_or_a_way_to_name_it(attributes: Any) -> None:
    state = TrainerState()
    state.init_training_references(trainer(**attributes), 1, 1, None)
    assert state.trial_name is None


def test_a_trial_of_no_known_kind_is_refused() -> None:
    with pytest.raises(TypeError, match=r"params.*7"):
        TrainerState().init_training_references(trainer(), 1, 1, 7)
