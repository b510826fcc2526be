"""Values: every value that the store supports is stored, and others affect only themselves."""

from __future__ import annotations

import math
import sys
from typing import Any, Final

from callback_contract._case import Case
from callback_contract._isolation import collected_warnings
from callback_contract._killed_training import wait_until_stored
from callback_contract._stored import (
    LOSSES,
    Scalar,
    Stored,
    log_steps,
    losses,
    tracker_rule,
    train,
    train_and_read,
)
from callback_contract._violation import require

NOT_FINITE: Final = {"not_a_number": math.nan, "infinite": math.inf, "negative": -math.inf}


@tracker_rule(
    "VAL-001",
    why="A loss that becomes NaN indicates a fault in the data or the program "
    "(whylabs/whylogs#700). Users did not notice that it was skipped (Lightning-AI/LitLogger#57).",
    fix="Write NaN and infinities in the store's representation, or leave them out if there is "
    "none.",
)
def stores_non_finite_values(case: Case) -> None:
    """NaN and infinities are stored or left out, but never replaced by another number.

    A tracker that claims `non_finite` stores them.
    """
    stored, _ = train_and_read(case, {"loss": 0.5, **NOT_FINITE})
    for name, value in NOT_FINITE.items():
        left_out = not case.claims("non_finite") and not stored.points(name)
        require(
            stored.has(name, 1, value) or left_out,
            f"{name}={value!r} is stored as {stored.points(name)}",
        )


@tracker_rule(
    "VAL-002",
    why="Scalars of numpy and torch were not logged: CarperAI/trlx#417, "
    "huggingface/transformers#29784.",
    fix="Convert every zero-dimensional value (value.shape == ()) with float(value).",
)
def stores_scalars_of_numpy_and_torch(case: Case) -> None:
    """A zero-dimensional scalar, such as those of numpy and torch, is stored as a number.

    A tracker that does not claim `scalars` may leave it out. The rule uses numpy and torch if they
    are imported, and otherwise a similar scalar.
    """
    values: dict[str, Any] = {}
    if (numpy := sys.modules.get("numpy")) is not None:
        values |= {"of_numpy": numpy.float32(LOSSES[0]), "array": numpy.array(LOSSES[2])}
        values |= {"numpy_count": numpy.int64(7)}
    if (torch := sys.modules.get("torch")) is not None and hasattr(torch, "tensor"):
        values |= {"of_torch": torch.tensor(LOSSES[0]), "torch_count": torch.tensor(7)}
        values |= {"half": torch.tensor(0.375, dtype=torch.bfloat16)}
    if not values:
        values["scalar"] = Scalar(LOSSES[0])
    stored, _ = train_and_read(case, values)
    for name, value in values.items():
        if case.claims("scalars") or stored.points(name):
            stored.require(name, 1, float(value))


@tracker_rule(
    "VAL-003",
    why="Values other than floats were dropped silently (huggingface/transformers#4883), or raised "
    "an error (aimhubio/aim#1817). total_flos exceeds 64 bits (huggingface/transformers#10213).",
    fix="Send True as 1 and False as 0. Send integers as floats, or as integers of any size if "
    "`precision` is `exact`.",
)
def stores_booleans_and_integers(case: Case) -> None:
    """`True` is stored as 1, `False` as 0, and integers of any size to the declared `precision`."""
    for values in (
        {"on": True, "off": False, "count": 3, "none": 0, "below": -17},
        {"tokens": 2**40 + 1, "exact": 2**53 - 1, "odd": 2**53 + 1},
        {"limit": 2**63, "flos": 10**18, "more": 2**70},
    ):
        stored, _ = train_and_read(case, values)
        for name, value in values.items():
            stored.require(name, 1, value)


@tracker_rule(
    "VAL-004",
    why="Rounded to four decimals, small losses and learning rates are 0: "
    "axolotl-ai-cloud/axolotl#3320.",
    fix="Store floats unrounded: repr(value) has all digits.",
)
def stores_small_and_large_numbers(case: Case) -> None:
    """Numbers of any size and sign are stored to the declared `precision`, also at step 0.

    The default precision is about 15 digits. `single` is for stores with floats of 32 bits.
    """
    values = {"tiny": 1.7e-30, "huge": -3.3e30, "rate": 2e-5, "third": 0.1 + 1 / 3}
    values |= {"large": 123456.789, "zero": 0.0, "minus": -0.0, "near": 0.999999}
    training = case.begin()
    training.log(values)
    training.step(values)
    training.end()
    stored = Stored(case)
    for step in (0, 1):
        for name, value in values.items():
            stored.require(name, step, value)


@tracker_rule(
    "VAL-005",
    needs=["text"],
    why="Text with non-ASCII characters could not be written: labmlai/labml#108.",
    fix="Write strings as UTF-8 with unchanged line breaks, and keep the strings of each step.",
)
def stores_text_unchanged(case: Case) -> None:
    """A string is stored unchanged, with other scripts, line breaks and quotes.

    The strings of all steps are kept.
    """
    texts = {
        "sample": 'Große Überraschung: 你好, 🎉\n\t"quoted" \\ and <b>tagged</b>, 50 %',
        "number_like": "0012",
        "lines": "first\r\nsecond\n\nlast\n",
    }
    second = {"sample": "another", "number_like": "12", "lines": "one"}
    training = case.begin()
    log_steps(training, {"loss": LOSSES[0], **texts})
    wait_until_stored(case, ("loss", 1, LOSSES[0]))
    log_steps(training, {"loss": LOSSES[1], **second})
    training.end()
    stored = Stored(case)
    for step, logged in enumerate((texts, second), 1):
        for name, text in logged.items():
            found = stored.text(name)
            require((step, text) in found, f"{text!r} of step {step} is stored as {found}")


@tracker_rule(
    "VAL-006",
    why="A message at each log that nobody can silence hides the others: "
    "Lightning-AI/pytorch-lightning#21294.",
    fix="Remember which names the callback has warned of.",
)
def does_not_warn_at_each_log(case: Case) -> None:
    """A value that is left out at every log does not cause a warning at every log."""
    with collected_warnings() as lines:
        train(case, *[{"loss": 0.5, "the_list": [1, 2]}] * 8)
    named = [line for line in lines if "the_list" in line]
    require(len(named) < 4, f"{len(named)} warnings name a list in 8 logs: {named[:2]}")


@tracker_rule(
    "VAL-007",
    why="A list among the metrics ended the training (huggingface/transformers#27608). A NaN made "
    "the store reject the whole request (facebookresearch/gcm#165), and so do a long name "
    "(huggingface/sentence-transformers#2725) and a text of many pages (mlflow/mlflow#10512).",
    fix="Handle each value separately: catch the errors of float(value), leave out what the store "
    "does not support, and cut names and strings to its limits.",
)
def unsupported_values_affect_only_themselves(case: Case) -> None:
    """Logs before, beside and after values that the store does not support are stored.

    Such values are NaN, dicts, lists, `None`, strings, other objects, a name of 2,000 characters,
    and a string of 100,000.
    """
    unusual = {"a_dict": {"a": 1}, "a_list": [1, 2], "nothing": None, "an_object": object()}
    unusual |= {"text": "a cat sat", "empty": "", "data": b"\xff", "complex": 1j}
    if (torch := sys.modules.get("torch")) is not None and hasattr(torch, "tensor"):
        unusual |= {"vector": torch.tensor([0.5, 0.25])}
    for values in (NOT_FINITE, unusual, {"long_" * 400: 0.5}, {"text": "a cat " * 17_000}):
        part = Case(case.subject, case.folder / next(iter(values))[:20])
        before, beside, after = losses(*LOSSES[:3])
        logs = (before, {**values, **beside}, {**beside, **values}, after)
        case.trainings.append(train(part, *logs))
        Stored(part).require_losses(LOSSES[0], LOSSES[1], LOSSES[1], LOSSES[2])


@tracker_rule(
    "VAL-008",
    why="A loop fires on_log even if it has nothing to log: unslothai/unsloth-zoo#873.",
    fix="Return early if the logs are empty.",
)
def an_empty_log_costs_nothing(case: Case) -> None:
    """Logs before and after an empty log are stored."""
    training = case.begin()
    for loss in LOSSES[:2]:
        training.fire("on_log", logs={})
        log_steps(training, {"loss": loss})
    training.end()
    Stored(case).require_losses(*LOSSES[:2])
