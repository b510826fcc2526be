"""Runs attempts of a Flyte task without a Flyte cluster, with the code of Flyte's containers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

from flyteidl.core.errors_pb2 import ErrorDocument
from flytekit import current_context
from flytekit.bin.entrypoint import setup_execution
from flytekit.core.context_manager import FlyteContextManager
from flytekit.core.type_engine import TypeEngine

from callback_contract.testing import run_python

TASK = {
    f"FLYTE_INTERNAL_{name}": value
    for name, value in {
        "EXECUTION_ID": "e",
        "EXECUTION_PROJECT": "p",
        "EXECUTION_DOMAIN": "d",
        "TASK_PROJECT": "p",
        "TASK_DOMAIN": "d",
        "TASK_NAME": "train",
        "TASK_VERSION": "v",
    }.items()
}
"""The environment variables of a task."""


class Attempt(NamedTuple):
    """An attempt of a task.

    Attributes:
        folder: The task's directory in Flyte's store.
        number: The number of the attempt, from 1.
    """

    folder: Path
    number: int

    @property
    def kept(self) -> Path:
        """The location of this attempt's checkpoints."""
        return self.folder / f"checkpoints-{self.number}"

    @property
    def outputs(self) -> Path:
        """The directory of its outputs, its error and its decks."""
        return self.folder / f"outputs-{self.number}"

    @property
    def before(self) -> Path | None:
        """The checkpoint location of the previous attempt."""
        return self._replace(number=self.number - 1).kept if self.number > 1 else None

    def checkpoints(self) -> list[str]:
        """Return the names of the stored checkpoints."""
        return sorted(path.name for path in self.kept.glob("checkpoint-*"))

    def error(self) -> str | None:
        """Return the error message of the attempt; `None` if it succeeded."""
        file = self.outputs / "error.pb"
        if not file.exists():
            assert (self.outputs / "outputs.pb").exists()
            return None
        return str(ErrorDocument.FromString(file.read_bytes()).error.message)


@contextmanager
def attempt(
    folder: Path, number: int, decks: bool = True, store: str | None = None
) -> Iterator[Attempt]:
    """Enter the task in this process, like the function of a task.

    Args:
        folder: The task's directory in Flyte's store.
        number: The number of the attempt.
        decks: Whether the task's decks are enabled.
        store: The address of the store, if it is not `folder`.
    """
    one = Attempt(folder, number)
    locations: dict[str, Any] = {
        "raw_output_data_prefix": folder / "raw",
        "output_metadata_prefix": one.outputs,
        "checkpoint_path": one.kept,
        "prev_checkpoint": one.before or "",
    }
    addresses = {
        name: str(location).replace(str(folder), store or str(folder))
        for name, location in locations.items()
    }
    with setup_execution(**addresses) as context:
        state = context.execution_state
        # A task sets these parameters before it calls its function.
        parameters = state.user_space_params.with_enable_deck(enable_deck=decks).build()
        inner = context.with_execution_state(state.with_params(user_space_params=parameters))
        with FlyteContextManager.with_context(inner):
            yield one


class Run(NamedTuple):
    """How a process ended.

    Attributes:
        attempt: The attempt.
        status: The exit status; 0 even if the task failed.
        output: Standard output and standard error.
    """

    attempt: Attempt
    status: int
    output: str


def execute(flyte: Path, number: int, task: Any, **inputs: Any) -> Run:
    """Run a task in a separate process, like a container."""
    one, function = Attempt(flyte, number), task.task_function
    one.outputs.mkdir(parents=True)
    inputs = {"outputs": str(one.outputs), "kept": str(one.kept), **inputs}
    types = {name: type(value) for name, value in inputs.items()}
    context = FlyteContextManager.current_context()
    literals = TypeEngine.dict_to_literal_map(context, inputs, types)
    inputs_file = one.outputs / "inputs.pb"
    inputs_file.write_bytes(literals.to_flyte_idl().SerializeToString())
    done = run_python(
        *("-m", "flytekit.bin.entrypoint", "pyflyte-execute"),
        *("--inputs", str(inputs_file), "--output-prefix", str(one.outputs)),
        *("--raw-output-data-prefix", str(flyte / "raw"), "--checkpoint-path", str(one.kept)),
        *(("--prev-checkpoint", str(one.before)) if one.before else ()),
        *("--resolver", "flytekit.core.python_auto_container.default_task_resolver", "--"),
        *("task-module", function.__module__, "task-name", function.__name__),
    )
    return Run(one, done.returncode, done.stdout + done.stderr)


def decks() -> dict[str, str]:
    """Return the HTML of each deck of this process's task, by name."""
    return {deck.name: deck.html for deck in current_context().decks}


class Deck(HTMLParser):
    """Reads a deck: its table, its lines, its texts and its tags.

    Attributes:
        rows: The text of the cells of each row of the table.
        lines: The points of each line.
        texts: All text.
        tags: The names of all elements.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.lines: list[list[str]] = []
        self.texts: list[str] = []
        self.tags: list[str] = []
        self._in_cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._in_cell = tag in ("td", "th")
        if tag == "tr":
            self.rows.append([])
        elif self._in_cell:
            self.rows[-1].append("")
        elif tag == "polyline":
            self.lines.append((dict(attrs)["points"] or "").split())

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = False

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._in_cell:
            self.rows[-1][-1] += data

    def table(self) -> list[dict[str, str]]:
        """Return the non-empty cells of each row by column name. The first row has the names."""
        names, *rows = self.rows
        return [{n: cell for n, cell in zip(names, row, strict=True) if cell} for row in rows]
