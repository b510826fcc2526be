"""Output: standard output belongs to the program."""

from __future__ import annotations

import contextlib
import io
import re
from collections import Counter
from typing import Final

from callback_contract._case import Case
from callback_contract._isolation import collected_warnings
from callback_contract._process import captured_output
from callback_contract._registry import rule
from callback_contract._violation import require
from callback_contract._watching import another_rank

_CONTROL_CHARACTERS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x9b]")


@rule(
    "OUT-001",
    why="If each of eight processes prints a bar and logs, none of them is readable "
    "(huggingface/transformers#28373).",
    fix="Write only if state.is_world_process_zero is True.",
)
def other_ranks_print_nothing(case: Case) -> None:
    """A process that is not the main process writes nothing to standard output."""
    with captured_output() as (output, _):
        case.training(state=another_rank()).live()
    require(not output.getvalue(), f"another rank wrote {output.getvalue()!r}")


@rule(
    "OUT-002",
    why="A bar that is drawn a thousand times fills log files with carriage returns, and some "
    "readers then treat them as binary (tqdm/tqdm#750, allenai/allennlp#1927).",
    fix="Call isatty() on the stream, and write plain lines if it returns False.",
)
def writes_no_control_characters_to_a_pipe(case: Case) -> None:
    """Output to a pipe or a file has no control characters, except line ends and tabs."""
    with captured_output() as streams:
        case.training().live()
    for stream in streams:
        found = sorted(set(_CONTROL_CHARACTERS.findall(stream.getvalue())))
        require(not found, f"it wrote {found!r} to a stream that is not a terminal")


@rule(
    "OUT-003",
    unless="prints",
    why="Other programs read a program's output, for example as JSON. A library's messages break "
    "it, and nothing silences them (Lightning-AI/pytorch-lightning#21294).",
    fix="Use logging, or claim the capability `prints` if the output is for a person.",
)
def prints_nothing_unless_it_prints(case: Case) -> None:
    """A callback that does not claim `prints` writes nothing to standard output."""
    with captured_output() as (output, _):
        training = case.training()
        training.live()
        training.evaluate()
    require(not output.getvalue(), f"it wrote {output.getvalue()!r}")


@rule(
    "OUT-004",
    why="In a container, under LANG=C or in a Windows console, the output may not support a check "
    "mark or a bar. The training then ends with a UnicodeEncodeError (theislab/scarches#25, "
    "AnswerDotAI/fastprogress#21).",
    fix="Print ASCII, or encode with the stream's encoding and errors='backslashreplace'.",
    forbids_errors=True,
)
def prints_to_any_encoding(case: Case) -> None:
    """A training raises no error if standard output supports only ASCII."""
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with contextlib.redirect_stdout(output):
        case.training().live()
        output.flush()


@rule(
    "OUT-005",
    why="A warning at each step hides the loss and fills disks "
    "(Lightning-AI/pytorch-lightning#21294).",
    fix="Warn once, and count further occurrences.",
)
def does_not_warn_at_each_step(case: Case) -> None:
    """An ordinary training does not repeat a warning at each step or log."""
    steps = 12
    with collected_warnings() as lines, captured_output():
        case.training(max_steps=steps).run(save=True)
    counts = Counter(re.sub(r"[0-9.e+-]+", "#", line) for line in lines)
    repeated = [line for line, count in counts.items() if count >= steps]
    require(not repeated, f"in {steps} steps it warned as many times: {repeated[:1]}")
