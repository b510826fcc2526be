"""docs/from-transformers-trackers.md: both examples of each tracker give the same curves."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from stores import READERS, Curves

from callback_contract.testing import PreparedPython, environment

if TYPE_CHECKING:
    # Pants includes what is imported. Only the processes need it, and it imports transformers.
    import moving  # noqa: F401

MOVING = Path(__file__).with_name("moving.py")

MEASURED = ("runtime", "per_second", "sys.", "process duration")
"""Parts of the names of curves that measure the machine, so that no two runs have the same."""


def shown(name: str) -> str:
    """Return the name of a curve for that of a value in the log."""
    start, _, rest = name.partition("_")
    return f"{start}/{rest}" if start in ("eval", "test") else f"train/{name}"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PreparedPython]:
    """Return what runs an example in a process of its own, with transformers imported."""
    names = ("PATH", "TMPDIR", "LANG", "OMP_NUM_THREADS")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    home = str(tmp_path_factory.mktemp("home"))
    variables = {
        **kept,
        "PYTHONPATH": environment()["PYTHONPATH"],
        "HOME": home,
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    modules = ["transformers.trainer", "mlflow", "torch.utils.tensorboard"]
    with PreparedPython(modules, variables) as running:
        yield running


def train(
    prepared: PreparedPython, section: str, number: int, folder: Path
) -> tuple[Curves, list[dict[str, float]]]:
    """Run an example of the page, and return its curves and the Trainer's own log."""
    folder.mkdir()
    variables = {
        "HOME": str(folder),
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(folder),
        "WANDB_SILENT": "true",
        "COMET_OFFLINE_DIRECTORY": str(folder / "comet"),
        "COMET_AUTO_LOG_CO2": "0",
        "CLEARML_OFFLINE_MODE": "1",
        "CLEARML_CACHE_DIR": str(folder / "clearml"),
    }
    done = prepared.run(MOVING, section, str(number), cwd=folder, variables=variables)
    assert done.returncode == 0, done.stderr
    return READERS[section](folder), json.loads((folder / "history.json").read_text())


def compared(curves: Curves) -> Curves:
    """Return the curves that are the same in each run."""
    return {n: c for n, c in curves.items() if not any(part in n for part in MEASURED)}


@pytest.mark.slow
@pytest.mark.parametrize("section", [name for name in READERS if name != "CodeCarbon"])
def test_both_examples_have_the_same_curves(
    prepared: PreparedPython, tmp_path: Path, section: str
) -> None:
    before, log = train(prepared, section, 0, tmp_path / "before")
    after, same_log = train(prepared, section, 1, tmp_path / "after")
    if section == "ClearML":  # transformers keeps only the last one
        assert list(before.pop("Summary/epoch").values()) == [after.pop("train/epoch")[6]]
    if section == "MLflow":  # gets the names of the log from transformers
        before = {shown(name): curve for name, curve in before.items()}
    expected = compared(before)
    assert compared(after) == {name: pytest.approx(curve) for name, curve in expected.items()}
    [loss] = [name for name in after if name.endswith("train/loss")]
    assert after[loss] == {
        entry["step"]: pytest.approx(entry["loss"]) for entry in log if "loss" in entry
    }
    assert len(log) == len(same_log)


@pytest.mark.slow
def test_both_examples_write_the_emissions(prepared: PreparedPython, tmp_path: Path) -> None:
    for number, name in enumerate(("before", "after")):
        emissions, _ = train(prepared, "CodeCarbon", number, tmp_path / name)
        assert all(curve[0] > 0 for curve in emissions.values())
