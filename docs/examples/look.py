"""Where to see the results of an example: what each tracker keeps, and what shows it."""

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
    """A tracker of this repository, and the files that it keeps without a server.

    Attributes:
        package: Its package.
        variable: The environment variable that sets where it keeps its files.
        local: The value of that variable; `{}` stands for the output directory.
        kept: A pattern for the files, relative to the output directory.
        show: The Python module that shows a file, with its arguments; `{}` stands for the file.
        then: What else to do with a file; `{}` stands for the file.
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
        then="clearml.Task.import_offline_session('{}') sends it to a server",
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
        then="`comet upload {}` sends it to an account",
    ),
    "dagshub": Tracker("callback-dagshub"),
    "flyte": Tracker("callback-flyte"),
    "mlflow": Tracker("callback-mlflow", *_DATABASE, show=_MLFLOW),
    "neptune": Tracker(
        "callback-neptune",
        "NEPTUNE_DATA_DIRECTORY",
        "{}/neptune",
        "neptune/offline/*",
        then="`neptune sync` sends it to your own server",
    ),
    "tensorboard": Tracker(
        "callback-tensorboard", kept="runs", show="tensorboard.main --host 127.0.0.1 --logdir {}"
    ),
    "wandb": Tracker(
        "callback-wandb",
        kept="wandb",
        show="wandb leet {}",
        then="`wandb sync {}/offline-run-*` sends it to an account",
    ),
}
"""All trackers, by their name in `report_to`."""


def keep_in(output_dir: Path) -> None:
    """Make trackers without a server keep their runs in `output_dir`, unless a variable is set.

    By default, most would use the working directory. Pants' environments have different versions
    of an SDK, and they would share one database there.
    """
    for tracker in TRACKERS.values():
        if tracker.variable:
            os.environ.setdefault(tracker.variable, tracker.local.format(output_dir.absolute()))


def command(*options: str, tracker: str | None = None) -> str:
    """Return a command that calls this program with `options`, as the user called it.

    Args:
        options: The options, unquoted.
        tracker: The tracker whose environment Pants makes. By default, it is the present one.
    """
    if not is_under_pants():
        return shlex.join(["python", sys.argv[0], *options])
    tracker = tracker or os.environ.get("TRACKER")
    script = f"docs/examples/{Path(sys.argv[0]).name}"
    called = shlex.join(["tools/pants", "run", script, "--", *options])
    return f"TRACKER={tracker} {called}" if tracker else called


def is_under_pants() -> bool:
    """Return whether Pants made this environment, so that users cannot install into it."""
    return "PEX_EXTRA_SYS_PATH" in os.environ


def find_problem(report_to: Sequence[str]) -> str | None:
    """Return why `report_to` cannot be used here, and how to fix that; `None` if it can."""
    here = get_available_reporting_integrations()
    for name in report_to:
        if name in here or list(report_to) in (["all"], ["none"]):
            continue
        if name in ("all", "none"):
            return f"{name} cannot be combined with other names"
        if name not in TRACKERS:
            return f"{name}: unknown tracker; choose from {', '.join(TRACKERS)}, all, none"
        again = command(*sys.argv[1:], tracker=name)
        if not is_under_pants():
            again = f"pip install packages/{TRACKERS[name].package}\n    {again}"
        return (
            f"{name}: its package is not installed here. Installed: "
            f"{', '.join(here) or 'none'}. Run:\n    {again}"
        )
    return None


def where_to_look(callbacks: Iterable[Any], output_dir: Path, since: float) -> Iterator[str]:
    """Yield lines that tell, for each tracker of a training, where to see the results.

    Args:
        callbacks: The callbacks of the training.
        output_dir: The output directory of the training.
        since: When the training began, in seconds since 1970.
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
            yield f"{name}: see its settings; nothing was written to {output_dir}"
            continue
        yield f"{name}: {found}" + (f"; {tracker.then.format(found)}" if tracker.then else "")
        if tracker.show:
            options = ["--show", "--output-dir", str(output_dir)]
            options += ["--report-to", name] if len(used) > 1 else []
            yield f"Show it: {command(*options)}"


def show(report_to: Sequence[str], output_dir: Path) -> str | None:
    """Show, until Ctrl-C, the newest files in `output_dir` of the first tracker that can show them.

    Returns:
        Why nothing can be shown.
    """
    names = get_available_reporting_integrations() if list(report_to) == ["all"] else report_to
    for name in names:
        tracker = TRACKERS.get(name)
        if tracker and tracker.show and (found := _newest(tracker, output_dir)):
            arguments = [part.format(found) for part in tracker.show.split()]
            with suppress(KeyboardInterrupt):  # it has ended the other program too
                sys.exit(subprocess.run([sys.executable, "-m", *arguments]).returncode)
            return None
    return f"{', '.join(names) or 'none'}: {output_dir} has nothing to show"


def _newest(tracker: Tracker, output_dir: Path) -> Path | None:
    found = output_dir.glob(tracker.kept) if tracker.kept else ()
    return max(found, key=_changed, default=None)


def _changed(path: Path) -> float:
    """Return when `path`, or a file in it, changed last, in seconds since 1970."""
    return max(one.stat().st_mtime for one in (path, *path.rglob("*")))
