"""Output: standard output is the program's, and for a person only if one looks."""

from __future__ import annotations

import contextlib
import io
import re
from collections import Counter
from typing import Final

from callback_contract._case import Case
from callback_contract._process import silence
from callback_contract._registry import rule
from callback_contract._stored import warned
from callback_contract._violation import require
from callback_contract._watching import another_rank

_CONTROL_CHARACTERS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x9b]")


@rule(
    "OUT-001",
    why="With a bar and the logs of each of eight processes, nobody can read any of them "
    "(huggingface/transformers#28373).",
    mend="Write if state.is_world_process_zero, and nowhere else.",
)
def another_rank_is_silent(case: Case) -> None:
    """A process that is not the main one writes nothing to standard output."""
    with silence() as (output, _):
        case.training(state=another_rank()).live()
    require(not output.getvalue(), f"another rank wrote {output.getvalue()!r}")


@rule(
    "OUT-002",
    why="A bar that is drawn a thousand times fills log files with carriage returns, and makes "
    "them binary for some readers (tqdm/tqdm#750, allenai/allennlp#1927).",
    mend="Ask isatty() of the stream that you draw on, and write plain lines if it is none.",
)
def no_control_characters_in_a_pipe(case: Case) -> None:
    """What goes to a pipe or a file has no control characters but line ends and tabs."""
    with silence() as streams:
        case.training().live()
    for stream in streams:
        found = sorted(set(_CONTROL_CHARACTERS.findall(stream.getvalue())))
        require(not found, f"it wrote {found!r} to what is no terminal")


@rule(
    "OUT-003",
    unless="prints",
    why="Programs hand on what they print, as JSON to the next one; a library's notes in between "
    "break that, and nothing silences them (Lightning-AI/pytorch-lightning#21294).",
    mend="Use logging; or claim the capability `prints` if it is there for a person.",
)
def is_silent_unless_it_prints(case: Case) -> None:
    """A callback that does not claim to print writes nothing to standard output."""
    with silence() as (output, _):
        training = case.training()
        training.live()
        training.evaluate()
    require(not output.getvalue(), f"it wrote {output.getvalue()!r}")


@rule(
    "OUT-004",
    why="In a container, under LANG=C or in a Windows console, a check mark or a bar that the "
    "output cannot write ends the training with UnicodeEncodeError (theislab/scarches#25, "
    "AnswerDotAI/fastprogress#21).",
    mend="Print ASCII; or encode with the stream's own encoding and errors='backslashreplace'.",
)
def prints_what_every_output_can_write(case: Case) -> None:
    """A training whose standard output takes ASCII only raises nothing."""
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with contextlib.redirect_stdout(output):
        case.training().live()
        output.flush()


@rule(
    "OUT-005",
    why="A warning at each step buries the loss and fills disks "
    "(Lightning-AI/pytorch-lightning#21294).",
    mend="Warn once, and count what follows.",
)
def does_not_warn_at_each_step(case: Case) -> None:
    """An ordinary training does not repeat a warning at each step or log."""
    steps = 12
    with warned() as lines, silence():
        case.training(max_steps=steps).run(save=True)
    often = [line for line, n in Counter(map(_without_numbers, lines)).items() if n >= steps]
    require(not often, f"in {steps} steps it warned as often: {often[:1]}")


def _without_numbers(line: str) -> str:
    return re.sub(r"[0-9.e+-]+", "#", line)
