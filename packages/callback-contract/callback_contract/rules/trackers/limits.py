"""Limits: what is more than the store takes is cut or left out, with a warning, and no more."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

from callback_contract._case import Case
from callback_contract._learner import Config
from callback_contract._stored import LOSSES, Stored, log_steps, stored_of, tracker_rule
from callback_contract._violation import require


class _Precision(enum.Enum):
    HALF = "half"


class _Object:
    """An object that JSON does not know, and that has no method."""


def _with_arguments(case: Case, **more: Any) -> tuple[Stored, str]:
    """Train a step with these further arguments; return what is stored, and the warnings."""
    stored, named = stored_of(case, {"loss": LOSSES[0]}, args=case.arguments(more=more))
    stored.require("loss", 1, LOSSES[0])
    return stored, named


def _require_parameters(stored: Stored, **expected: str) -> None:
    for name, value in expected.items():
        found = stored.parameter(name)
        require(found == value, f"the argument {name}={value!r} is stored as {found!r}")


@tracker_rule(
    "LIM-001",
    needs=["parameters"],
    why="An argument of more than 250 characters ended the training: "
    "huggingface/transformers#8849. Whoever compares runs must know what is cut: "
    "mlflow/mlflow#10512.",
    mend="Cut values to what the store takes, before sending any; name them in a warning.",
)
def a_long_argument_costs_only_itself(case: Case) -> None:
    """An argument of 10,000 characters is stored whole or named in a warning.

    All other arguments and all points are stored.
    """
    prompt = "long " * 2000
    stored, named = _with_arguments(case, prompt=prompt, after_it="short")
    _require_parameters(stored, run_name="contract", after_it="short")
    found = stored.parameter("prompt")
    require(
        found == prompt or "prompt" in named,
        f"of 10,000 characters, {len(found or '')} are stored, and no warning names 'prompt'",
    )


@tracker_rule(
    "LIM-002",
    needs=["parameters"],
    why="More than 100 parameters at once are refused, all of them: "
    "huggingface/transformers#11342. Whoever compares runs must know what is missing: "
    "huggingface/transformers#34276.",
    mend="Send parameters in batches; where a run takes no more, name some in a warning.",
)
def many_arguments_cost_no_others(case: Case) -> None:
    """Of more than 500 arguments, all are stored, or a warning names one that is not.

    The first of them and all points are stored.
    """
    names = [f"number_{index}" for index in range(500)]
    stored, named = _with_arguments(case, **{name: at for at, name in enumerate(names)})
    _require_parameters(stored, run_name="contract")
    missing = [name for name in names if stored.parameter(name) is None]
    require(
        not missing or any(name in named for name in missing),
        f"{len(missing)} of 500 arguments are not stored, and no warning names any of them",
    )


@tracker_rule(
    "LIM-003",
    needs=["parameters"],
    why="What a nested argument holds decides a training as much as others: "
    "Lightning-AI/pytorch-lightning#19972.",
    mend="Send nested arguments as several with joined names, or as a string.",
)
def stores_what_is_nested_in_arguments(case: Case) -> None:
    """What dicts and lists in the arguments hold is stored, in any form."""
    leaves = ("cosine-shape", "first-stage", "second-stage")
    nested = {"warmup": {"shape": leaves[0]}, "stages": [*leaves[1:]], "nothing": {}}
    stored, _ = _with_arguments(case, schedule=nested)
    everything = " ".join([*stored.parameters, *stored.parameters.values()])
    lost = [leaf for leaf in leaves if leaf not in everything]
    require(not lost, f"of schedule={nested!r}, {lost} are in no parameter")


@tracker_rule(
    "LIM-004",
    why="An argument that JSON does not know ends the training: huggingface/transformers#30038.",
    mend="Send whatever is no plain value as a string.",
)
def odd_arguments_cost_nothing(case: Case) -> None:
    """With paths, sets, enumerations, NaN and other objects as arguments, points are stored."""
    odd: dict[str, Any] = {"path": Path("a"), "set": {1}, "enum": _Precision.HALF, "kind": int}
    odd |= {"object": _Object(), "by_number": {1: "one"}, "nothing": None, "data": b"\xff"}
    odd |= {"bound": float("nan"), "flops": 2**70, "name": "Überraschung 你好"}
    _with_arguments(case, **odd)


@tracker_rule(
    "LIM-005",
    why="A configuration with many labels ended the training: huggingface/transformers#9210. A "
    "model of another framework has none to be read: unslothai/unsloth-zoo#873.",
    mend="Hold the configuration to the limits of the arguments; without config.to_dict, go on.",
)
def no_configuration_of_the_model_costs_a_point(case: Case) -> None:
    """Points are stored whatever the model's configuration is.

    It may have 1,000 labels by number, or be `None`, a dict or an object without any method.
    """
    labels = {number: f"label {number}" for number in range(1000)}
    configurations = (Config(id2label=labels, kind=_Object()), None, {"size": 8}, _Object())
    for config, loss in zip(configurations, LOSSES, strict=False):
        training = case.training()
        training.model.config = config
        training.begin()
        log_steps(training, {"loss": loss})
        training.end()
        Stored(case).require("loss", 1, loss)


@tracker_rule(
    "LIM-006",
    why="A name with a parenthesis makes the store refuse it (verl-project/verl#119); names are "
    "taken from data, in every language (huggingface/sentence-transformers#2725).",
    mend="Replace in names what the store does not take.",
)
def stores_values_of_any_name(case: Case) -> None:
    """Values with odd characters in their names are stored, under any name, or named in a warning.

    That is parentheses, quotes, signs, spaces, and letters of other scripts.
    """
    names = ["timing(s)", "accuracy@1", "f1 macro, 50 %", "a=b&c", 'the "best"', "it's", "../up"]
    names += ["a/b/c", "back\\slash", "semi;colon", " padded ", "tab\there"]
    names += ["précision", "准确率", "β_eff", "точность", "🎯"]
    values = {name: 1 / 3 + number for number, name in enumerate(names)}
    stored, named = stored_of(case, {"loss": LOSSES[0], **values})
    stored.require("loss", 1, LOSSES[0])
    for name, value in values.items():
        require(
            stored.names_at(1, value) or name in named,
            f"{name!r} is stored under no name, and no warning names it",
        )
