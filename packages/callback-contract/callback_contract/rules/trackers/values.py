"""Values: what can be stored is, whatever its type, and what cannot costs only itself."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, Final

from callback_contract._case import Case
from callback_contract._killed import wait_until_stored
from callback_contract._stored import (
    LOSSES,
    Stored,
    log_steps,
    losses,
    stored_of,
    tracker_rule,
    trained,
    warned,
)
from callback_contract._violation import require

NOT_FINITE: Final = {"not_a_number": math.nan, "infinite": math.inf, "negative": -math.inf}


class _Scalar:
    """A scalar of no dimensions, as frameworks have them.

    Args:
        value: What it is; an exception if it cannot be read.
    """

    shape = ()

    def __init__(self, value: float | Exception) -> None:
        self.value = value

    def __float__(self) -> float:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

    def item(self) -> float:
        return float(self)


def _require_values(case: Case, values: Mapping[str, int]) -> None:
    """Log these values at one step, and require that the store has them as numbers."""
    stored, _ = stored_of(case, values)
    for name, value in values.items():
        stored.require(name, 1, value)


@tracker_rule(
    "VAL-001",
    why="A loss that became NaN says that the data or the program is wrong (whylabs/whylogs#700); "
    "users did not see that it was skipped (Lightning-AI/LitLogger#57).",
    mend="Write NaN and infinities in the form that the store has for them; if it has none, leave "
    "them out.",
)
def stores_what_is_not_finite(case: Case) -> None:
    """NaN and both infinities are stored as such, by a tracker that claims `non_finite`.

    Another one may leave them out, but does not store a number in their place.
    """
    stored, _ = stored_of(case, {"loss": 0.5, **NOT_FINITE})
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
    mend="Take float(value) of whatever has no dimensions: value.shape == ().",
)
def stores_scalars_of_numpy_and_torch(case: Case) -> None:
    """A scalar of no dimensions, such as numpy's and torch's, is stored as the number that it is.

    A tracker that does not claim `scalars` may leave it out. Those of numpy and torch are logged if
    these are imported, or one like theirs if neither is.
    """
    values: dict[str, Any] = {}
    if (numpy := sys.modules.get("numpy")) is not None:
        values |= {"of_numpy": numpy.float32(LOSSES[0]), "array": numpy.array(LOSSES[2])}
        values |= {"numpy_count": numpy.int64(7)}
    if (torch := sys.modules.get("torch")) is not None and hasattr(torch, "tensor"):
        values |= {"of_torch": torch.tensor(LOSSES[0]), "torch_count": torch.tensor(7)}
        values |= {"half": torch.tensor(0.375, dtype=torch.bfloat16)}
    if not values:
        values["scalar"] = _Scalar(LOSSES[0])
    stored, _ = stored_of(case, values)
    for name, value in values.items():
        if case.claims("scalars") or stored.points(name):
            stored.require(name, 1, float(value))


@tracker_rule(
    "VAL-003",
    why="What is no float was dropped without a word (huggingface/transformers#4883), or an error "
    "(aimhubio/aim#1817); total_flos is more than 64 bits hold (huggingface/transformers#10213).",
    mend="Send 1.0 for True, 0.0 for False, and whole numbers as floats.",
)
def stores_booleans_and_whole_numbers(case: Case) -> None:
    """`True` is stored as 1, `False` as 0, and a whole number of any size, as `precision` says."""
    _require_values(case, {"on": True, "off": False, "count": 3, "none": 0, "below": -17})
    _require_values(case, {"tokens": 2**40 + 1, "exact": 2**53 - 1, "odd": 2**53 + 1})
    _require_values(case, {"limit": 2**63, "flos": 10**18, "more": 2**70})


@tracker_rule(
    "VAL-004",
    why="Rounded to four decimals, small losses and learning rates are 0: "
    "axolotl-ai-cloud/axolotl#3320.",
    mend="Store a float as it is: repr(value) has all its digits.",
)
def stores_small_and_large_numbers(case: Case) -> None:
    """Numbers of any size and sign are stored as points, as `precision` says, at step 0 too.

    By default, that is 15 digits. A store that keeps floats of 32 bits has `precision = "single"`.
    """
    values = {"tiny": 1.7e-30, "huge": -3.3e30, "rate": 2e-5, "third": 0.1 + 1 / 3}
    values |= {"large": 123456.789, "zero": 0.0, "minus": -0.0, "near": 0.999999}
    training = case.training()
    training.begin()
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
    why="A text that is not ASCII could not be written: labmlai/labml#108.",
    mend="Write strings as UTF-8, leave their line breaks alone, and keep those of each step.",
)
def stores_text_as_it_is(case: Case) -> None:
    """A string that is logged is stored as it is: other scripts, line breaks and quotes too.

    Those of each step stay.
    """
    texts = {
        "sample": 'Große Überraschung: 你好, 🎉\n\t"quoted" \\ and <b>tagged</b>, 50 %',
        "number_like": "0012",
        "lines": "first\r\nsecond\n\nlast\n",
    }
    second = {"sample": "another", "number_like": "12", "lines": "one"}
    training = case.training()
    training.begin()
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
    why="A line at each log that nobody can silence buries the rest: "
    "Lightning-AI/pytorch-lightning#21294.",
    mend="Remember which names have been named.",
)
def names_what_is_left_out_once(case: Case) -> None:
    """What is left out at every log is named now and then, but not at every log."""
    with warned() as lines:
        trained(case, *[{"loss": 0.5, "the_list": [1, 2]}] * 8)
    naming = [line for line in lines if "the_list" in line]
    require(len(naming) < 4, f"a list in 8 logs is named in {len(naming)} warnings: {naming[:2]}")


@tracker_rule(
    "VAL-007",
    why="A list among the metrics ended the training (huggingface/transformers#27608). One NaN "
    "made the store refuse all it was sent with (facebookresearch/gcm#165); so do a long name "
    "(huggingface/sentence-transformers#2725) and a sample of many pages (mlflow/mlflow#10512).",
    mend="Look at each value by itself, catch what float(value) raises, leave out what the store "
    "does not take, and cut names and strings to its limits.",
)
def what_is_not_stored_costs_only_itself(case: Case) -> None:
    """What is logged before, beside and after values that a store does not take is stored.

    That is NaN, dicts, lists, `None`, strings, other objects, a name of 2,000 characters, and a
    string of 100,000.
    """
    odd = {"a_dict": {"a": 1}, "a_list": [1, 2], "nothing": None, "an_object": object()}
    odd |= {"text": "a cat sat", "empty": "", "data": b"\xff", "complex": 1j}
    if (torch := sys.modules.get("torch")) is not None and hasattr(torch, "tensor"):
        odd |= {"vector": torch.tensor([0.5, 0.25])}
    for values in (NOT_FINITE, odd, {"long_" * 400: 0.5}, {"text": "a cat " * 17_000}):
        part = Case(case.subject, case.folder / next(iter(values))[:20])
        before, beside, after = losses(*LOSSES[:3])
        case.trainings.append(
            trained(part, before, {**values, **beside}, {**beside, **values}, after)
        )
        Stored(part).require_losses(LOSSES[0], LOSSES[1], LOSSES[1], LOSSES[2])


@tracker_rule(
    "VAL-008",
    why="A loop that has nothing to log fires on_log all the same: unslothai/unsloth-zoo#873.",
    mend="Return where there is nothing in the logs, and change nothing else.",
)
def an_empty_log_costs_nothing(case: Case) -> None:
    """What is logged before and after a log without any value is stored."""
    training = case.training()
    training.begin()
    training.fire("on_log", logs={})
    log_steps(training, {"loss": LOSSES[0]})
    training.fire("on_log", logs={})
    log_steps(training, {"loss": LOSSES[1]})
    training.end()
    Stored(case).require_losses(*LOSSES[:2])
