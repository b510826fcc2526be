"""Values: whatever is logged, what can be stored is, and what cannot costs only itself."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

from callback_contract._case import Case
from callback_contract._rule import require, rule
from callback_contract._stored import Stored, require_stored, said


class _Scalar:
    """A scalar of no dimensions, as numpy and torch have them.

    Args:
        value: What it is; an exception where it cannot be read.
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


def _logged(case: Case, values: Mapping[str, Any]) -> tuple[Stored, str]:
    """Log `values` at step 1, beside a loss of 0.5; return what is stored and what was said."""
    training = case.training()
    with said() as lines:
        training.begin()
        training.step({"loss": 0.5, **values})
        training.step({"loss": 0.25})
        training.end()
    return Stored(case), "\n".join(lines)


def _costs_only_itself(case: Case, values: Mapping[str, Any]) -> None:
    """Say that the rule is broken unless what is logged beside and after `values` is stored."""
    stored, _ = _logged(case, values)
    require(stored.has("loss", 1, 0.5), "what was logged beside it is not stored")
    require(stored.has("loss", 2, 0.25), "what was logged after it is not stored")


@rule(
    "VAL-001",
    of_trackers=True,
    needs=["non_finite"],
    why="A loss that became NaN tells of bad data or a bug: whylabs/whylogs#700.",
    mend="Write NaN and infinities in the form that the store has for them.",
)
def stores_what_is_not_finite(case: Case) -> None:
    """NaN and both infinities are stored as such."""
    values = {"not_a_number": math.nan, "infinite": math.inf, "negative": -math.inf}
    stored, _ = _logged(case, values)
    lost = [name for name, value in values.items() if not stored.has(name, 1, value)]
    require(not lost, f"the store lacks {lost}, which were not finite")


@rule(
    "VAL-002",
    of_trackers=True,
    why="Users were blocked by a NaN, or did not see that it was skipped: "
    "Lightning-AI/LitLogger#57.",
    mend="Where the store takes no NaN, leave it out and name it in a warning.",
)
def names_what_is_not_finite_and_not_stored(case: Case) -> None:
    """A value that is NaN or infinite is stored, or else named in a warning."""
    values = {"not_a_number": math.nan, "infinite": math.inf}
    stored, lines = _logged(case, values)
    for name, value in values.items():
        kept = stored.has(name, 1, value)
        require(kept or name in lines, f"{name!r} was {value}, and is neither stored nor named")


@rule(
    "VAL-003",
    of_trackers=True,
    why="One NaN made the store refuse everything it was sent with: facebookresearch/gcm#165.",
    mend="Take out what the store does not accept before sending the rest.",
)
def what_is_not_finite_costs_only_itself(case: Case) -> None:
    """What is logged beside NaN and infinities, and after them, is stored."""
    _costs_only_itself(case, {"not_a_number": math.nan, "infinite": math.inf})


@rule(
    "VAL-004",
    of_trackers=True,
    why="Metrics are scalars of numpy and torch, and were not logged: CarperAI/trlx#417.",
    mend="Take float(value) of whatever has no dimensions: value.shape == ().",
)
def stores_scalars_of_numpy_and_torch(case: Case) -> None:
    """A scalar of no dimensions, such as numpy's and torch's, is stored as the number that it is.

    Those of numpy and torch are tried where they have been imported.
    """
    values: dict[str, Any] = {"scalar": _Scalar(0.375)}
    if (numpy := sys.modules.get("numpy")) is not None:
        values |= {"of_numpy": numpy.float32(0.375), "of_no_dimensions": numpy.array(0.375)}
    if (torch := sys.modules.get("torch")) is not None and hasattr(torch, "tensor"):
        values |= {"of_torch": torch.tensor(0.375)}
    stored, _ = _logged(case, values)
    lost = [name for name in values if not stored.has(name, 1, 0.375)]
    require(not lost, f"the store lacks {lost}, which were scalars of 0.375")


@rule(
    "VAL-005",
    of_trackers=True,
    why="What is no float was dropped without a word: huggingface/transformers#4883.",
    mend="Send 1.0 for True and 0.0 for False.",
)
def stores_booleans(case: Case) -> None:
    """`True` is stored as 1 and `False` as 0."""
    stored, _ = _logged(case, {"switched_on": True, "switched_off": False})
    require(stored.has("switched_on", 1, 1.0), "True is not stored as 1")
    require(stored.has("switched_off", 1, 0.0), "False is not stored as 0")


@rule(
    "VAL-006",
    of_trackers=True,
    why="total_flos of a large training is more than 64 bits hold: huggingface/transformers#10213.",
    mend="Send whole numbers as floats.",
)
def stores_large_whole_numbers(case: Case) -> None:
    """A whole number of more than 64 bits is stored, as exactly as a float is."""
    stored, _ = _logged(case, {"operations": 2**70})
    require(
        stored.has("operations", 1, 2.0**70),
        f"2**70 is not stored, but {stored.points('operations')}",
    )


@rule(
    "VAL-007",
    of_trackers=True,
    needs=["text"],
    why="A text that is not ASCII could not be written: labmlai/labml#108.",
    mend="Write strings as UTF-8, and leave their line breaks alone.",
)
def stores_text_as_it_is(case: Case) -> None:
    """A string that is logged is stored as it is: other scripts, line breaks and quotes too."""
    text = 'Große Überraschung: 你好, 🎉\n\t"quoted" \\ and <b>tagged</b>'
    stored, _ = _logged(case, {"sample": text})
    found = stored.text("sample")
    require((1, text) in found, f"{text!r} is stored as {found}")


@rule(
    "VAL-008",
    of_trackers=True,
    why="What is left out without a word is looked for in vain: huggingface/transformers#4883.",
    mend="Where the store takes no strings, name in a warning what was one.",
)
def names_text_that_is_not_stored(case: Case) -> None:
    """A string that is logged is stored, or else named in a warning."""
    stored, lines = _logged(case, {"sample_text": "a cat sat"})
    kept = any("a cat sat" in value for _, value in stored.text("sample_text"))
    require(kept or "sample_text" in lines, "'sample_text' is neither stored nor named")


@rule(
    "VAL-009",
    of_trackers=True,
    why="A list among the metrics ended the training: huggingface/transformers#27608.",
    mend="Look at each value by itself, and leave out what is neither a number nor a string.",
)
def what_is_no_number_costs_only_itself(case: Case) -> None:
    """What is logged beside dicts, lists, `None` and other objects, and after, is stored."""
    _costs_only_itself(
        case, {"a_dict": {"a": 1}, "a_list": [1, 2], "nothing": None, "an_object": object()}
    )


@rule(
    "VAL-010",
    of_trackers=True,
    why="What is left out without a word is looked for in vain: huggingface/transformers#4883.",
    mend="Name what was left out in a warning, at once or at the end.",
)
def names_what_is_no_number(case: Case) -> None:
    """A dict, a list and another object that are logged are named in a warning, if not stored."""
    values = {"the_dict": {"a": 1}, "the_list": [1, 2], "the_object": object()}
    stored, lines = _logged(case, values)
    titles = " ".join(title for run in stored.runs for title in (*run.points, *run.text))
    unnamed = [name for name in values if name not in lines and name not in titles]
    require(not unnamed, f"{unnamed} were left out, and no warning names them")


@rule(
    "VAL-011",
    of_trackers=True,
    why="A line at each log that nobody can silence buries the rest: "
    "Lightning-AI/pytorch-lightning#21294.",
    mend="Remember which names have been named.",
)
def names_what_is_left_out_once(case: Case) -> None:
    """What is left out at every log is named now and then, but not at every log."""
    training = case.training()
    with said() as lines:
        training.begin()
        for _ in range(8):
            training.step({"loss": 0.5, "the_list": [1, 2]})
        training.end()
    naming = [line for line in lines if "the_list" in line]
    require(len(naming) < 4, f"a list in 8 logs is named in {len(naming)} warnings")


@rule(
    "VAL-012",
    of_trackers=True,
    why="One value that cannot be read makes the store refuse all: facebookresearch/gcm#165.",
    mend="Catch what float(value) raises, for that value alone.",
)
def what_cannot_be_read_costs_only_itself(case: Case) -> None:
    """What is logged beside a scalar that raises when it is read, and after it, is stored."""
    _costs_only_itself(case, {"unreadable": _Scalar(RuntimeError("device-side assert"))})


@rule(
    "VAL-013",
    of_trackers=True,
    why="A name that is too long makes the store refuse the log: "
    "huggingface/sentence-transformers#2725.",
    mend="Cut names to what the store takes, or leave out the value and name it.",
)
def a_very_long_name_costs_only_itself(case: Case) -> None:
    """What is logged beside a value with a name of 2,000 characters, and after it, is stored."""
    _costs_only_itself(case, {"long_" * 400: 0.375})


@rule(
    "VAL-014",
    of_trackers=True,
    why="A generated sample of many pages is refused with all it was sent with: "
    "mlflow/mlflow#10512.",
    mend="Cut strings to what the store takes, and say so.",
)
def a_very_long_string_costs_only_itself(case: Case) -> None:
    """What is logged beside a string of 100,000 characters, and after it, is stored."""
    _costs_only_itself(case, {"sample": "a cat sat " * 10_000})


@rule(
    "VAL-015",
    of_trackers=True,
    why="A loop that has nothing to log fires on_log all the same: unslothai/unsloth-zoo#873.",
    mend="Return where there is nothing in the logs, and change nothing else.",
)
def an_empty_log_costs_nothing(case: Case) -> None:
    """After a log without any value, what is logged is stored."""
    training = case.training()
    training.begin()
    training.fire("on_log", logs={})
    training.step({"loss": 0.5})
    training.end()
    require_stored(case, "loss", 1, 0.5)
