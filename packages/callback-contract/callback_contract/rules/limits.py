"""Limits: what is more than the store takes is cut or left out, and said, and costs no more."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

from callback_contract._case import Arguments, Case, Config, Model
from callback_contract._rule import require, rule
from callback_contract._stored import Stored, said


class _Precision(enum.Enum):
    HALF = "half"


class _Object:
    """An object that JSON does not know."""


def _trained(case: Case, args: Arguments, model: Any = None) -> tuple[Stored, str]:
    """Train a step; return what is stored and what was said."""
    training = case.training(args=args)
    training.model = training.model if model is None else model
    with said() as lines:
        training.begin()
        training.fire("on_epoch_begin")
        training.step({"loss": 0.5})
        training.end()
    return Stored(case), "\n".join(lines)


def _costs_no_point(stored: Stored) -> None:
    require(stored.has("loss", 1, 0.5), "what was logged is not stored")


@rule(
    "LIM-001",
    of_trackers=True,
    needs=["parameters"],
    why="An argument of more than 250 characters ended the training: "
    "huggingface/transformers#8849.",
    mend="Cut values to what the store takes, before sending any.",
)
def a_long_argument_costs_only_itself(case: Case) -> None:
    """Where an argument has 10,000 characters, the other arguments and all points are stored."""
    args = case.arguments(more={"prompt": "long " * 2000, "after_it": "short"})
    stored, _ = _trained(case, args)
    _costs_no_point(stored)
    for name, value in (("run_name", "contract"), ("after_it", "short")):
        require(
            stored.parameter(name) == value, f"{name!r} is stored as {stored.parameter(name)!r}"
        )


@rule(
    "LIM-002",
    of_trackers=True,
    needs=["parameters"],
    why="Whoever compares runs must know that a value is not the whole one: mlflow/mlflow#10512.",
    mend="Name in a warning what was cut.",
)
def says_that_an_argument_was_cut(case: Case) -> None:
    """An argument of 10,000 characters is stored whole, or a warning names it."""
    prompt = "long " * 2000
    stored, lines = _trained(case, case.arguments(more={"prompt": prompt}))
    whole = stored.parameter("prompt") == prompt
    require(whole or "prompt" in lines, "'prompt' is not stored whole, and no warning names it")


@rule(
    "LIM-003",
    of_trackers=True,
    needs=["parameters"],
    why="More than 100 parameters at once are refused, all of them: "
    "huggingface/transformers#11342.",
    mend="Send parameters in batches, and leave out those that are beyond the limit of a run.",
)
def many_arguments_cost_no_others(case: Case) -> None:
    """Where there are 500 arguments, the first of them and all points are stored."""
    args = case.arguments(more={f"number_{index}": index for index in range(500)})
    stored, _ = _trained(case, args)
    _costs_no_point(stored)
    found = stored.parameter("run_name")
    require(found == "contract", f"of more than 500 arguments, 'run_name' is stored as {found!r}")


@rule(
    "LIM-004",
    of_trackers=True,
    needs=["parameters"],
    why="Whoever compares runs must know what is not there: huggingface/transformers#34276.",
    mend="Say in a warning how many were left out, and name some.",
)
def says_that_arguments_were_left_out(case: Case) -> None:
    """Of 500 arguments, all are stored, or a warning names at least one that is not."""
    names = [f"number_{index}" for index in range(500)]
    args = case.arguments(more={name: index for index, name in enumerate(names)})
    stored, lines = _trained(case, args)
    missing = [name for name in names if stored.parameter(name) is None]
    require(
        not missing or any(name in lines for name in missing),
        f"{len(missing)} of 500 arguments are not stored, and no warning names any",
    )


@rule(
    "LIM-005",
    of_trackers=True,
    needs=["parameters"],
    why="What a nested argument holds decides a training as much as others: "
    "Lightning-AI/pytorch-lightning#19972.",
    mend="Send nested arguments as several with joined names, or as a string.",
)
def stores_what_is_nested_in_arguments(case: Case) -> None:
    """What dicts and lists in the arguments hold is stored, in whichever form."""
    nested = {"warmup": {"shape": "cosine-shape"}, "stages": ["first-stage", "second-stage"]}
    stored, _ = _trained(case, case.arguments(more={"schedule": nested}))
    everything = " ".join(stored.parameters.values())
    lost = [
        leaf for leaf in ("cosine-shape", "first-stage", "second-stage") if leaf not in everything
    ]
    require(not lost, f"{lost}, which a nested argument holds, are in no parameter")


@rule(
    "LIM-006",
    of_trackers=True,
    why="An argument that JSON does not know ends the training: huggingface/transformers#30038.",
    mend="Send whatever is no plain value as a string.",
)
def an_odd_argument_costs_nothing(case: Case) -> None:
    """Where arguments are paths, sets, enumerations and other objects, all points are stored."""
    odd = {"path": Path("a"), "set": {1}, "enum": _Precision.HALF, "object": _Object(), "kind": int}
    stored, _ = _trained(case, case.arguments(more=odd))
    _costs_no_point(stored)


@rule(
    "LIM-007",
    of_trackers=True,
    why="A configuration with many labels ended the training: huggingface/transformers#9210.",
    mend="Hold the model's configuration to the limits of the arguments.",
)
def a_large_configuration_costs_nothing(case: Case) -> None:
    """Where the model's configuration has 1,000 labels, by numbers, all points are stored."""
    model = Model()
    model.config = Config(id2label={number: f"label {number}" for number in range(1000)})
    stored, _ = _trained(case, case.arguments(), model)
    _costs_no_point(stored)


@rule(
    "LIM-008",
    of_trackers=True,
    why="A model of another framework has no configuration to be read: unslothai/unsloth-zoo#873.",
    mend="Ask for config.to_dict only where there is one, and go on without.",
)
def a_model_without_a_configuration_costs_nothing(case: Case) -> None:
    """Where the model's configuration is no such object, all points are stored."""
    model = Model()
    model.config = None  # type: ignore[assignment]
    stored, _ = _trained(case, case.arguments(), model)
    _costs_no_point(stored)


def _stores_or_names(case: Case, *names: str) -> None:
    training = case.training()
    values = {name: 0.375 + number for number, name in enumerate(names)}
    with said() as lines:
        training.begin()
        training.step({"loss": 0.5, **values})
        training.end()
    stored, named = Stored(case), "\n".join(lines)
    for name, value in values.items():
        kept = stored.has_under_any_name(1, value) or name in named
        require(kept, f"what was logged as {name!r} is neither stored, under any name, nor named")


@rule(
    "LIM-009",
    of_trackers=True,
    why="A name with a parenthesis makes the store refuse it: verl-project/verl#119.",
    mend="Replace in names what the store does not take.",
)
def stores_names_with_odd_characters(case: Case) -> None:
    """Values whose names hold parentheses, signs or spaces are stored, under whichever name."""
    _stores_or_names(case, "timing(s)", "accuracy@1", "f1 macro, 50 %", "a=b&c")


@rule(
    "LIM-010",
    of_trackers=True,
    why="Names are taken from data, in every language: huggingface/sentence-transformers#2725.",
    mend="Replace in names what the store does not take.",
)
def stores_names_in_other_scripts(case: Case) -> None:
    """Values whose names hold letters of other scripts are stored, under whichever name."""
    _stores_or_names(case, "précision", "准确率", "β_eff")
