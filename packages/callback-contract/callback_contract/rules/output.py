"""Output: standard output is the program's, and a person's only where a person looks."""

from __future__ import annotations

import contextlib
import io
import re
from typing import Final

from callback_contract._case import Case
from callback_contract._rule import require, rule
from callback_contract._watching import elsewhere, silence

_CONTROL_CHARACTERS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x9b]")


@rule(
    "OUT-001",
    why="With a bar and the logs of each of eight processes, nobody can read any of them "
    "(huggingface/transformers#28373).",
    mend="Write where state.is_world_process_zero, and nowhere else.",
)
def another_rank_is_silent(case: Case) -> None:
    """A process that is not the main one writes nothing to standard output."""
    with silence() as (output, _):
        case.training(state=elsewhere()).live()
    require(not output.getvalue(), f"another rank wrote {output.getvalue()!r}")


@rule(
    "OUT-002",
    why="A bar that is drawn anew a thousand times fills log files with carriage returns, and "
    "makes them binary for some readers (tqdm/tqdm#750, allenai/allennlp#1927).",
    mend="Ask isatty() of the stream that you draw on, and write plain lines where it is none.",
)
def no_control_characters_in_a_pipe(case: Case) -> None:
    """What is written to a pipe or a file has no control characters but line ends and tabs."""
    with silence() as streams:
        case.training().live()
    for stream in streams:
        found = sorted(set(_CONTROL_CHARACTERS.findall(stream.getvalue())))
        require(not found, f"it wrote {found!r} to what is no terminal")


@rule(
    "OUT-003",
    why="Programs hand on what they print, as JSON to the next one; a library's notes in "
    "between break that, and there is no way to silence them "
    "(Lightning-AI/pytorch-lightning#21294).",
    mend="Use logging; or claim the capability `prints`, where it is there for a person.",
)
def is_silent_unless_it_prints(case: Case) -> None:
    """A callback that does not claim to print writes nothing to standard output."""
    if "prints" not in case.subject.capabilities:
        with silence() as (output, _):
            case.training().live()
        require(not output.getvalue(), f"it wrote {output.getvalue()!r}")


@rule(
    "OUT-004",
    why="In a container, under LANG=C or in a Windows console, a character that the output "
    "cannot write ends the training with UnicodeEncodeError (theislab/scarches#25, "
    "AnswerDotAI/fastprogress#21).",
    mend="Encode with the stream's own encoding and errors='backslashreplace' first.",
    needs=("prints",),
)
def prints_what_the_output_cannot_write(case: Case) -> None:
    """Logs with characters that standard output cannot encode raise nothing."""
    training = case.training()
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with contextlib.redirect_stdout(output):
        training.begin()
        training.fire("on_epoch_begin")
        training.step({"loss": 0.5, "sample": "中文 ≤ ½", "größe": 1.0})
        training.end()
        output.flush()
