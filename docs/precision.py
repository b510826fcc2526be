"""Renew the table and the picture of `precision.md` by a run of `examples/gpt.py`.

It needs what the example needs, and matplotlib. On two cores, it takes about 15 minutes:

    pip install matplotlib
    python docs/precision.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch

DOCS = Path(__file__).resolve().parent
PAGE, PICTURE = DOCS / "precision.md", DOCS / "pictures" / "precision.svg"
BEGIN, END = "<!-- results -->\n", "<!-- end of the results -->\n"
STYLES = {"float32": "-", "bf16": "--", "compiled": "-.", "checkpointed": ":"}


def measure() -> dict[str, Any]:
    """Return the results of the example, by variant."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "results.json"
        command = [sys.executable, str(DOCS / "examples" / "gpt.py"), "--json", str(found)]
        subprocess.run(command, check=True)
        results: dict[str, Any] = json.loads(found.read_text("utf-8"))
    return results


def table(results: dict[str, Any]) -> str:
    """Return the results as a table, and what they were measured on."""
    runs = list(results.values())
    device = runs[0]["device"]
    on_cpu = device.startswith("cpu")
    rows = [
        ["step", *results],
        ["--:"] * (1 + len(results)),
        *([step, *(f"{one['losses'][step]:.4f}" for one in runs)] for step in runs[0]["losses"]),
        ["memory, MB", *(f"{one['memory']:,.0f}" for one in runs)],
        [
            "tokens per second of the processor" if on_cpu else "tokens per second",
            *(f"{one['speed']:,.0f}" for one in runs),
        ],
    ]
    lines = "".join("| " + " | ".join(row) + " |\n" for row in rows)
    return f"{lines}\nDevice: {device}. torch {torch.__version__}.\n"


def draw(results: dict[str, Any]) -> None:
    """Draw the losses, and how far they are from those in float32."""
    plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "precision"}
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(7, 5), sharex=True, height_ratios=[3, 2], layout="constrained"
    )
    whole = results["float32"]["losses"]
    steps = [int(step) for step in whole]
    for number, (name, result) in enumerate(results.items()):
        look = {"label": name, "linestyle": STYLES[name], "color": f"C{number}", "linewidth": 2}
        losses = result["losses"]
        above.plot(steps, list(losses.values()), **look)
        away = [100 * (losses[step] / loss - 1) for step, loss in whole.items()]
        below.plot(steps, away, **look)
    above.set_ylabel("training loss")
    above.legend()
    below.set_ylabel("from float32, %")
    below.set_xlabel("update step")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    figure.savefig(PICTURE, metadata={"Date": None})


def main() -> None:
    """Measure, and renew both."""
    results = measure()
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table(results)}\n{END}{after}", "utf-8")
    draw(results)


if __name__ == "__main__":
    main()
