"""Where to look at a training of the examples: what each tracker keeps here, and what shows it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from callback_core import (
    get_available_reporting_integrations,
    get_reporting_integration_callbacks,
)


class Tracker(NamedTuple):
    """A tracker of this repository, and what it keeps of a run where it has no server.

    Attributes:
        package: Its package.
        variable: The environment variable that says where it keeps that.
        local: The variable's value, `{}` being the output directory.
        kept: What it keeps then, as a pattern in the output directory.
        show: The module and arguments with which Python shows it, `{}` being it.
        then: What else can be done with it, `{}` being it.
    """

    package: str
    variable: str = ""
    local: str = ""
    kept: str = ""
    show: str = ""
    then: str = ""


_DATABASE = ("MLFLOW_TRACKING_URI", "sqlite:///{}/mlflow.db", "mlflow.db")
_MLFLOW = "mlflow server --host 127.0.0.1 --backend-store-uri sqlite:///{}"

TRACKERS = {
    "azure_ml": Tracker("callback-azureml", *_DATABASE, show=_MLFLOW),
    "clearml": Tracker(
        "callback-clearml",
        "CLEARML_CACHE_DIR",
        "{}/clearml",
        "clearml/offline/*.zip",
        then="clearml.Task.import_offline_session('{}') takes it to a server",
    ),
    "codecarbon": Tracker(
        "callback-codecarbon", kept="emissions.csv", then="it has a row for each training"
    ),
    "comet_ml": Tracker(
        "callback-comet",
        "COMET_OFFLINE_DIRECTORY",
        "{}/comet",
        "comet/*.zip",
        show="comet_ml.scripts.comet_offline {}",
        then="`comet upload {}` takes it to an account",
    ),
    "dagshub": Tracker("callback-dagshub"),
    "flyte": Tracker("callback-flyte"),
    "mlflow": Tracker("callback-mlflow", *_DATABASE, show=_MLFLOW),
    "neptune": Tracker(
        "callback-neptune",
        "NEPTUNE_DATA_DIRECTORY",
        "{}/neptune",
        "neptune/offline/*",
        then="`neptune sync` takes it to a server of your own",
    ),
    "tensorboard": Tracker(
        "callback-tensorboard", kept="runs", show="tensorboard.main --host 127.0.0.1 --logdir {}"
    ),
    "wandb": Tracker(
        "callback-wandb",
        kept="wandb",
        show="wandb leet {}",
        then="`wandb sync {}/offline-run-*` takes it to an account",
    ),
}
"""By what `report_to` calls them."""


def keep_in(output_dir: Path) -> None:
    """Let trackers that have no server keep their runs in `output_dir`, unless told otherwise.

    Most would do so in the working directory, where the environments of Pants, with other versions
    of an SDK, would share one database.
    """
    for tracker in TRACKERS.values():
        if tracker.variable:
            os.environ.setdefault(tracker.variable, tracker.local.format(output_dir.absolute()))


def command(*options: str, tracker: str | None = None) -> str:
    """Return what calls this program with `options`, in the way in which it was called.

    Args:
        options: The options, unquoted.
        tracker: That whose package is to be there, under Pants; the present one if not given.
    """
    if not is_under_pants():
        return shlex.join(["python", sys.argv[0], *options])
    tracker = tracker or os.environ.get("TRACKER")
    script = f"docs/examples/{Path(sys.argv[0]).name}"
    called = shlex.join(["tools/pants", "run", script, "--", *options])
    return f"TRACKER={tracker} {called}" if tracker else called


def is_under_pants() -> bool:
    """Return whether this environment is one of Pants', which nobody else can call or add to."""
    return "PEX_EXTRA_SYS_PATH" in os.environ


def find_problem(report_to: Sequence[str]) -> str | None:
    """Return what keeps `report_to` from being used here, and what mends it."""
    here = get_available_reporting_integrations()
    for name in report_to:
        if name in here or list(report_to) in (["all"], ["none"]):
            continue
        if name in ("all", "none"):
            return f"{name} stands alone, without names of trackers"
        if name not in TRACKERS:
            return f"{name}: there is no such tracker; there are {', '.join(TRACKERS)}, all, none"
        again = command(*sys.argv[1:], tracker=name)
        if not is_under_pants():
            again = f"pip install packages/{TRACKERS[name].package}\n    {again}"
        return (
            f"{name}: its package is not in this environment, which has "
            f"{', '.join(here) or 'none'}. Call:\n    {again}"
        )
    return None


def where_to_look(callbacks: Iterable[Any], output_dir: Path, since: float) -> Iterator[str]:
    """Say for each tracker that a training was logged to where it is to be seen.

    Args:
        callbacks: Those of the training.
        output_dir: That of the training.
        since: When the training began, in seconds since the epoch.
    """
    kinds = {type(one) for one in callbacks}
    used = [
        name
        for name in get_available_reporting_integrations()
        if name in TRACKERS
        and TRACKERS[name].kept
        and kinds.intersection(get_reporting_integration_callbacks(name))
    ]
    for name in used:
        tracker = TRACKERS[name]
        found = _newest(tracker, output_dir)
        if found is None or _changed(found) < since:
            yield f"{name}: where its settings say; nothing is kept in {output_dir}"
            continue
        yield f"{name}: {found}" + (f"; {tracker.then.format(found)}" if tracker.then else "")
        if tracker.show:
            options = ["--show", "--output-dir", str(output_dir)]
            options += ["--report-to", name] if len(used) > 1 else []
            yield f"Show it: {command(*options)}"


def show(report_to: Sequence[str], output_dir: Path) -> str | None:
    """Show what the first of the trackers that can do so has kept in `output_dir`, until Ctrl-C.

    Returns:
        Why nothing is shown.
    """
    names = get_available_reporting_integrations() if list(report_to) == ["all"] else report_to
    for name in names:
        tracker = TRACKERS.get(name)
        if tracker and tracker.show and (found := _newest(tracker, output_dir)):
            arguments = [part.format(found) for part in tracker.show.split()]
            with suppress(KeyboardInterrupt):  # which has ended that program too
                sys.exit(subprocess.run([sys.executable, "-m", *arguments]).returncode)
            return None
    return f"{', '.join(names) or 'none'}: nothing that can be shown is in {output_dir}"


def _newest(tracker: Tracker, output_dir: Path) -> Path | None:
    found = output_dir.glob(tracker.kept) if tracker.kept else ()
    return max(found, key=_changed, default=None)


def _changed(path: Path) -> float:
    """Return when something in `path` was changed, in seconds since the epoch."""
    return max(one.stat().st_mtime for one in (path, *path.rglob("*")))
