"""Attempts at a Flyte task without a Flyte: by the code that Flyte's containers run."""

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
"""What a task is told by environment variables."""


class Attempt(NamedTuple):
    """An attempt at a task.

    Attributes:
        folder: What Flyte's store has of the task.
        number: Which it is.
    """

    folder: Path
    number: int

    @property
    def kept(self) -> Path:
        """The place for its checkpoints."""
        return self.folder / f"checkpoints-{self.number}"

    @property
    def outputs(self) -> Path:
        """Where its outputs, its error and its decks go."""
        return self.folder / f"outputs-{self.number}"

    @property
    def before(self) -> Path | None:
        """The place for checkpoints of the attempt before it."""
        return self._replace(number=self.number - 1).kept if self.number > 1 else None

    def checkpoints(self) -> list[str]:
        """Return the names of the checkpoints that it has kept."""
        return sorted(path.name for path in self.kept.glob("checkpoint-*"))

    def error(self) -> str | None:
        """Return how it failed; `None` where it did not."""
        file = self.outputs / "error.pb"
        if not file.exists():
            assert (self.outputs / "outputs.pb").exists()
            return None
        return str(ErrorDocument.FromString(file.read_bytes()).error.message)


@contextmanager
def attempt(
    folder: Path, number: int, decks: bool = True, store: str | None = None
) -> Iterator[Attempt]:
    """Be in the task, in this process, as the function of a task is.

    Args:
        folder: What Flyte's store has of the task.
        number: Which attempt it is.
        decks: Whether the task has them.
        store: The address of the store, where it is not `folder`.
    """
    one = Attempt(folder, number)
    places: dict[str, Any] = {
        "raw_output_data_prefix": folder / "raw",
        "output_metadata_prefix": one.outputs,
        "checkpoint_path": one.kept,
        "prev_checkpoint": one.before or "",
    }
    at = {
        name: str(place).replace(str(folder), store or str(folder))
        for name, place in places.items()
    }
    with setup_execution(**at) as context:
        state = context.execution_state
        # As a task does with the parameters before it calls its function.
        told = state.user_space_params.with_enable_deck(enable_deck=decks).build()
        inner = context.with_execution_state(state.with_params(user_space_params=told))
        with FlyteContextManager.with_context(inner):
            yield one


class Run(NamedTuple):
    """How a process ended.

    Attributes:
        attempt: The attempt that it was.
        status: Its exit status: 0 also where the task has failed.
        said: What it printed.
    """

    attempt: Attempt
    status: int
    said: str


def execute(flyte: Path, number: int, task: Any, **inputs: Any) -> Run:
    """Run a task in a process of its own, as a container does."""
    one, function = Attempt(flyte, number), task.task_function
    one.outputs.mkdir(parents=True)
    inputs = {"outputs": str(one.outputs), "kept": str(one.kept), **inputs}
    types = {name: type(value) for name, value in inputs.items()}
    context = FlyteContextManager.current_context()
    literals = TypeEngine.dict_to_literal_map(context, inputs, types)
    given = one.outputs / "inputs.pb"
    given.write_bytes(literals.to_flyte_idl().SerializeToString())
    done = run_python(
        *("-m", "flytekit.bin.entrypoint", "pyflyte-execute"),
        *("--inputs", str(given), "--output-prefix", str(one.outputs)),
        *("--raw-output-data-prefix", str(flyte / "raw"), "--checkpoint-path", str(one.kept)),
        *(("--prev-checkpoint", str(one.before)) if one.before else ()),
        *("--resolver", "flytekit.core.python_auto_container.default_task_resolver", "--"),
        *("task-module", function.__module__, "task-name", function.__name__),
    )
    return Run(one, done.returncode, done.stdout + done.stderr)


def decks() -> dict[str, str]:
    """Return the HTML of each deck of the task that this process is in."""
    return {deck.name: deck.html for deck in current_context().decks}


class Deck(HTMLParser):
    """Reads a deck: its table, the lines that it draws, its texts, and all its tags.

    Attributes:
        rows: The cells of each row of the table, as text.
        lines: The points of each line.
        texts: All text.
        tags: The name of each element.
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
        """Return the rows below the first, by the names in that; cells that are empty are none."""
        names, *rows = self.rows
        return [{n: cell for n, cell in zip(names, row, strict=True) if cell} for row in rows]
