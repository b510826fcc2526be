"""Limits: what exceeds the store's limits is cut or left out with a warning."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

from callback_contract._case import Case
from callback_contract._learner import Config
from callback_contract._stored import LOSSES, Stored, tracker_rule, train, train_and_read
from callback_contract._violation import require


class _Precision(enum.Enum):
    HALF = "half"


class _Object:
    """An object that JSON cannot represent, without any method."""


def _train_with(case: Case, **arguments: Any) -> tuple[Stored, str]:
    """Train a step with additional arguments, and return the store's content and the warnings."""
    args = case.arguments(more=arguments)
    stored, warnings = train_and_read(case, {"loss": LOSSES[0]}, args=args)
    stored.require("loss", 1, LOSSES[0])
    return stored, warnings


def _require_parameters(stored: Stored, **expected: str) -> None:
    for name, value in expected.items():
        found = stored.parameter(name)
        require(found == value, f"the argument {name}={value!r} is stored as {found!r}")


@tracker_rule(
    "LIM-001",
    needs=["parameters"],
    why="An argument of more than 250 characters ended the training: "
    "huggingface/transformers#8849. Users who compare runs must know what is cut: "
    "mlflow/mlflow#10512.",
    fix="Cut values to the store's limit before sending them, and name them in a warning.",
)
def a_long_argument_affects_nothing_else(case: Case) -> None:
    """An argument of 10,000 characters is stored completely or named in a warning.

    All other arguments and all points are stored.
    """
    prompt = "long " * 2000
    stored, warnings = _train_with(case, prompt=prompt, after_it="short")
    _require_parameters(stored, run_name="contract", after_it="short")
    found = stored.parameter("prompt")
    require(
        found == prompt or "prompt" in warnings,
        f"of 10,000 characters, {len(found or '')} are stored, and no warning names 'prompt'",
    )


@tracker_rule(
    "LIM-002",
    needs=["parameters"],
    why="A server rejects a request with more than 100 parameters as a whole: "
    "huggingface/transformers#11342. Users who compare runs must know what is missing: "
    "huggingface/transformers#34276.",
    fix="Send parameters in batches. If a run accepts no more, name some of them in a warning.",
)
def many_arguments_affect_nothing_else(case: Case) -> None:
    """More than 500 arguments are all stored, or a warning names one that is not.

    In any case, the first arguments and all points are stored.
    """
    names = [f"number_{index}" for index in range(500)]
    stored, warnings = _train_with(case, **{name: index for index, name in enumerate(names)})
    _require_parameters(stored, run_name="contract")
    missing = [name for name in names if stored.parameter(name) is None]
    require(
        not missing or any(name in warnings for name in missing),
        f"{len(missing)} of 500 arguments are not stored, and no warning names any of them",
    )


@tracker_rule(
    "LIM-003",
    needs=["parameters"],
    why="Nested arguments affect a training as much as others: "
    "Lightning-AI/pytorch-lightning#19972.",
    fix="Flatten nested arguments to joined names, or send them as strings.",
)
def stores_nested_arguments(case: Case) -> None:
    """The content of dicts and lists among the arguments is stored, in any form."""
    leaves = ("cosine-shape", "first-stage", "second-stage")
    nested = {"warmup": {"shape": leaves[0]}, "stages": [*leaves[1:]], "nothing": {}}
    stored, _ = _train_with(case, schedule=nested)
    everything = " ".join([*stored.parameters, *stored.parameters.values()])
    lost = [leaf for leaf in leaves if leaf not in everything]
    require(not lost, f"of schedule={nested!r}, no parameter has {lost}")


@tracker_rule(
    "LIM-004",
    why="An argument that JSON cannot represent ends the training: huggingface/transformers#30038.",
    fix="Send every value that is not plain as a string.",
)
def unusual_arguments_cost_nothing(case: Case) -> None:
    """Points are stored if arguments are paths, sets, enumerations, NaN or other objects."""
    arguments: dict[str, Any] = {"path": Path("a"), "set": {1}, "enum": _Precision.HALF}
    arguments |= {"kind": int, "object": _Object(), "by_number": {1: "one"}, "nothing": None}
    arguments |= {"data": b"\xff", "bound": float("nan"), "flops": 2**70}
    _train_with(case, **arguments, name="Überraschung 你好")


@tracker_rule(
    "LIM-005",
    why="A configuration with many labels ended the training: huggingface/transformers#9210. "
    "Models of other frameworks have no such configuration: unslothai/unsloth-zoo#873.",
    fix="Apply the limits of arguments to the configuration, and tolerate that it lacks to_dict.",
)
def any_configuration_of_the_model_is_accepted(case: Case) -> None:
    """Points are stored whatever the model's configuration is.

    It may have 1,000 numbered labels, or be `None`, a dict or an object without methods.
    """
    labels = {number: f"label {number}" for number in range(1000)}
    configurations = (Config(id2label=labels, kind=_Object()), None, {"size": 8}, _Object())
    for config, loss in zip(configurations, LOSSES, strict=False):
        train(case, {"loss": loss}, config=config)
        Stored(case).require("loss", 1, loss)


@tracker_rule(
    "LIM-006",
    why="The store rejects a name with a parenthesis (verl-project/verl#119). Programs take names "
    "from data, in any language (huggingface/sentence-transformers#2725).",
    fix="Replace the characters in names that the store does not accept.",
)
def stores_values_of_any_name(case: Case) -> None:
    """Values with unusual characters in their names are stored, or a warning names them.

    The characters are parentheses, quotes, symbols, spaces, and letters of other scripts. The store
    may change the names.
    """
    names = ["timing(s)", "accuracy@1", "f1 macro, 50 %", "a=b&c", 'the "best"', "it's", "../up"]
    names += ["a/b/c", "back\\slash", "semi;colon", " padded ", "tab\there"]
    names += ["précision", "准确率", "β_eff", "точность", "🎯"]
    values = {name: 1 / 3 + number for number, name in enumerate(names)}
    stored, warnings = train_and_read(case, {"loss": LOSSES[0], **values})
    stored.require("loss", 1, LOSSES[0])
    for name, value in values.items():
        require(
            stored.names_at(1, value) or name in warnings,
            f"{name!r} is stored under no name, and no warning names it",
        )
