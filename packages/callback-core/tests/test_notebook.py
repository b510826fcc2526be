"""The progress bar in a notebook, executed by the kernel that a person's notebook runs in."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
import pytest
import training_for_tests
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

BEGIN = "from training_for_tests import *\ntraining = Training()\n"
WIDGET = "application/vnd.jupyter.widget-view+json"
PATIENCE = 300  # seconds; it only ends what hangs
WIDGETS = "application/vnd.jupyter.widget-state+json"


class Executed:
    """What a notebook shows that has one cell with `code`."""

    def __init__(self, code: str, folder: Path) -> None:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(BEGIN + code)])
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [os.path.dirname(training_for_tests.__file__), *sys.path]
            ),
            "IPYTHONDIR": str(folder),
        }
        # No kernels but that of the Python that runs this, and no ports, which another process may
        # take before the kernel does. The names of sockets must be short.
        with TemporaryDirectory() as sockets:
            kernel = AsyncKernelManager(
                kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
                connection_file=str(folder / "kernel.json"),
                transport="ipc",
                ip=f"{sockets}/kernel",
            )
            client = NotebookClient(
                notebook,
                km=kernel,
                timeout=PATIENCE,
                startup_timeout=PATIENCE,
                shutdown_kernel="immediate",
            )
            client.execute(env=environment, cleanup_kc=True)
        self.outputs: list[Any] = notebook.cells[0].outputs
        widgets = notebook.metadata.get("widgets", {}).get(WIDGETS, {"state": {}})["state"]
        self.widgets = {name: widget["state"] for name, widget in widgets.items()}

    def stream(self, name: str) -> str:
        """Return what was written to standard output or standard error."""
        return "".join(output.text for output in self.outputs if output.get("name") == name)

    def part(self, widget: dict[str, Any], name: str) -> Any:
        """Return the widget that another has as its `layout`, `style` or the like."""
        return self.widgets[widget[name].removeprefix("IPY_MODEL_")]

    def bars(self) -> list[tuple[str, str]]:
        """Return text and look of each bar that can be seen, in the order of the cell's output."""
        seen = []
        for output in self.outputs:
            if WIDGET not in output.get("data", {}):
                continue
            box = self.widgets[output.data[WIDGET]["model_id"]]
            if self.part(box, "layout")["visibility"] == "hidden":
                continue
            _, bar, text = (
                self.widgets[name.removeprefix("IPY_MODEL_")] for name in box["children"]
            )
            color = self.part(bar, "style")["bar_color"]
            seen.append((text["value"].split("[")[0].strip(), color or bar["bar_style"]))
        return seen

    def written(self) -> list[str]:
        """Return the lines of standard output as a notebook shows them: \\r begins a line anew."""
        lines = self.stream("stdout").split("\n")
        return [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in lines]


def test_a_notebook_shows_the_bars_as_widgets_and_the_logs(tmp_path: Path) -> None:
    executed = Executed(
        "training.train(eval_dataloaders=([1, 2], [1, 2, 3]))\ntraining.evaluate()", tmp_path
    )
    assert sum(WIDGET in output.get("data", {}) for output in executed.outputs) == 1 + 4 * 2 + 1
    assert executed.bars() == [("4/4", "success"), ("2/2", "success")]  # the others have gone
    assert executed.written() == [
        *["{'loss': 0.3333}", "{'eval_loss': 0.5}", "{'eval_loss': 0.5}"] * 4,
        "{'eval_loss': 0.5}",
        "",
    ]
    assert executed.stream("stderr") == ""


def test_a_notebook_s_bar_tells_an_early_end_from_an_error(tmp_path: Path) -> None:
    executed = Executed(
        "try: training.train(end=3, eval_dataloaders=(Failing(3),))\n"
        "except OSError: pass\n"
        "training.train(end=3, stop='enough')",
        tmp_path,
    )
    failed, evaluation, stopped = executed.bars()
    assert (failed, evaluation) == (("1/4", "danger"), ("2/3", "danger"))
    assert stopped == ("3/4", "orange")
    assert executed.written()[-2] == "Stopped at step 3 of 4: the program: enough"


def test_a_notebook_without_ipywidgets_shows_the_bars_as_text_between_the_logs(
    tmp_path: Path,
) -> None:
    executed = Executed(
        "import sys; sys.modules['ipywidgets'] = None  # as where it is not installed\n"
        "training.train(end=2, eval_dataloaders=([1, 2],))\ntraining.evaluate()",
        tmp_path,
    )
    logs = ["{'loss': 0.3333}", "{'eval_loss': 0.5}"]
    *written, training, evaluation_log, evaluation, end = executed.written()
    assert (written, evaluation_log, end) == (logs * 2, logs[1], "")
    assert "| 2/4 [" in training
    assert "| 2/2 [" in evaluation
    assert "\x1b" not in executed.stream("stdout")  # a notebook shows some of them as they are
