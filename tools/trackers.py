"""The tracker packages of this repository, and how to run each one without an account."""

import base64
import json
import re
import sqlite3
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from renew_pins import canonical

ROOT = Path(__file__).resolve().parent.parent

Variables = dict[str, str]


class TrackerPackage(NamedTuple):
    """A tracker's package.

    Attributes:
        name: Its name in `report_to`.
        package: Its name on a package index.
        module: The module of its SDK to import.
        local: Takes an empty working folder and the address of `server`, and returns the
            environment variables that make the tracker keep a run on this machine.
        is_stored: Takes that folder, and returns whether it contains a run.
        away: Takes a URL, and returns the variables that make the tracker look for its service
            there; `None` if it has no service.
        server: The script in tools/ that serves what `local` needs, if any.
        wrapper: The script in tools/ that runs the training, if any.
        beside_oldest: Requirements that the oldest admitted SDK needs but does not declare.
    """

    name: str
    package: str
    module: str
    local: Callable[[Path, str], Variables]
    is_stored: Callable[[Path], bool]
    away: Callable[[str], Variables] | None = None
    server: str | None = None
    wrapper: str | None = None
    beside_oldest: tuple[str, ...] = ()

    @property
    def lock(self) -> Path:
        """The lock file that it is tested with."""
        return lock_of(self.package)

    @property
    def sdk(self) -> tuple[str, str]:
        """The distribution of its SDK, as indexes spell it, and the oldest admitted version."""
        for requirement in project_of(self.package)["dependencies"]:
            name, oldest = re.match(r"([\w.-]+)(?:>=([\w.]+))?", requirement).groups()  # type: ignore[union-attr]
            if not is_ours(name):
                return canonical(name), oldest
        raise LookupError(f"{self.package} requires no SDK")


def lock_of(package: str) -> Path:
    """Return the lock file that a package of this repository is tested with."""
    name = "core" if package == "callback-contract" else package.removeprefix("callback-")
    own = ROOT / "locks" / f"{name}.txt"
    return own if own.exists() else ROOT / "locks" / "torch.txt"


def is_ours(package: str) -> bool:
    """Return whether a distribution is a package of this repository."""
    return (ROOT / "packages" / package).is_dir()


def project_of(package: str) -> dict[str, Any]:
    """Return the `[project]` table of a package of this repository."""
    text = (ROOT / "packages" / package / "pyproject.toml").read_text(encoding="utf-8")
    project: dict[str, Any] = tomllib.loads(text)["project"]
    return project


def with_what_it_needs(package: str) -> Iterator[str]:
    """Yield the packages of this repository that a package requires, itself last."""
    for requirement in project_of(package)["dependencies"]:
        name = re.split(r"[^\w-]", requirement, maxsplit=1)[0]
        if is_ours(name):
            yield from with_what_it_needs(name)
    yield package


def _has(pattern: str) -> Callable[[Path], bool]:
    return lambda folder: any(folder.glob(pattern))


def _has_points(database: str) -> Callable[[Path], bool]:
    """Return a check whether an MLflow database contains points."""

    def is_stored(folder: Path) -> bool:
        with sqlite3.connect(folder / database) as opened:
            return opened.execute("select count(*) from metrics").fetchone()[0] > 0

    return is_stored


def _mlflow(folder: Path, url: str) -> Variables:
    return {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}


def _mlflow_away(url: str) -> Variables:
    return {"MLFLOW_TRACKING_URI": url}


def _comet_away(url: str) -> Variables:
    return {"COMET_URL_OVERRIDE": f"{url}/clientlib/", "COMET_API_KEY": "k" * 25}


def _clearml_away(url: str) -> Variables:
    hosts = {f"CLEARML_{kind}_HOST": url for kind in ("API", "WEB", "FILES")}
    return {**hosts, "CLEARML_API_ACCESS_KEY": "access", "CLEARML_API_SECRET_KEY": "secret"}


def _neptune_away(url: str) -> Variables:
    token = {"api_address": url, "api_url": url, "api_key": "key"}
    encoded = base64.b64encode(json.dumps(token).encode()).decode()
    return {"NEPTUNE_API_TOKEN": encoded, "NEPTUNE_PROJECT": "work/space"}


def _dagshub(folder: Path, url: str) -> Variables:
    """Make `folder` a clone of the stand-in's repository, so that the tracker finds it."""
    git = ["git", "-C", str(folder)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "remote", "add", "origin", f"{url}/o/r.git"], check=True)
    return {"DAGSHUB_CLIENT_HOST": url, "DAGSHUB_USER_TOKEN": "d" * 40}


def _dagshub_away(url: str) -> Variables:
    there = {"DAGSHUB_CLIENT_HOST": url, "DAGSHUB_USER_TOKEN": "d" * 40}
    return {**there, "MLFLOW_TRACKING_URI": f"{url}/o/r.mlflow"}


def _flyte(folder: Path, url: str) -> Variables:
    execution = [f"EXECUTION_{part}" for part in ("ID", "PROJECT", "DOMAIN")]
    task = [f"TASK_{part}" for part in ("PROJECT", "DOMAIN", "NAME", "VERSION")]
    return {f"FLYTE_INTERNAL_{part}": "example" for part in execution + task}


TRACKERS = {
    tracker.name: tracker
    for tracker in (
        TrackerPackage(
            "tensorboard",
            "callback-tensorboard",
            "tensorboard.summary.writer.event_file_writer",
            lambda folder, _: {"TENSORBOARD_LOGGING_DIR": str(folder / "tensorboard")},
            _has("tensorboard/**/events.out.tfevents.*"),
            beside_oldest=("numpy<2", "protobuf<5", "setuptools<81", "six"),
        ),
        TrackerPackage(
            "wandb",
            "callback-wandb",
            "wandb",
            lambda folder, _: {"WANDB_MODE": "offline", "WANDB_DIR": str(folder)},
            _has("wandb/*/run-*.wandb"),
            lambda url: {"WANDB_BASE_URL": url, "WANDB_API_KEY": "k" * 40},
        ),
        TrackerPackage(
            "comet_ml",
            "callback-comet",
            "comet_ml",
            lambda folder, _: {
                "COMET_MODE": "OFFLINE",
                "COMET_OFFLINE_DIRECTORY": str(folder / "comet"),
            },
            _has("comet/*.zip"),
            _comet_away,
        ),
        TrackerPackage(
            "mlflow",
            "callback-mlflow",
            "mlflow",
            _mlflow,
            _has_points("mlflow.db"),
            _mlflow_away,
            beside_oldest=("sqlalchemy<2.1",),
        ),
        TrackerPackage(
            "neptune",
            "callback-neptune",
            "neptune",
            lambda folder, _: {
                "NEPTUNE_MODE": "offline",
                "NEPTUNE_DATA_DIRECTORY": str(folder / "neptune"),
            },
            _has("neptune/offline/**/data-*.log"),
            _neptune_away,
        ),
        TrackerPackage(
            "azure_ml",
            "callback-azureml",
            "azureml.mlflow",
            _mlflow,
            _has_points("mlflow.db"),
            _mlflow_away,
        ),
        TrackerPackage(
            "codecarbon",
            "callback-codecarbon",
            "codecarbon",
            lambda folder, _: {"CODECARBON_COUNTRY_ISO_CODE": "SWE"},
            _has("run/emissions.csv"),
        ),
        TrackerPackage(
            "clearml",
            "callback-clearml",
            "clearml",
            lambda folder, _: {
                "CLEARML_OFFLINE_MODE": "1",
                "CLEARML_CACHE_DIR": str(folder / "clearml"),
            },
            _has("clearml/**/*.zip"),
            _clearml_away,
        ),
        TrackerPackage(
            "dagshub",
            "callback-dagshub",
            "dagshub",
            _dagshub,
            _has_points("dagshub/server.db"),
            _dagshub_away,
            server="serve_dagshub.py",
        ),
        TrackerPackage(
            "flyte",
            "callback-flyte",
            "flytekit",
            _flyte,
            _has("flyte/checkpoints/checkpoint-*"),
            wrapper="in_flyte_task.py",
        ),
    )
}
"""All trackers, by their name in `report_to`."""
