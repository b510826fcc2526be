"""The tracker packages of this repository, and how each runs on a machine without an account."""

import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent

Variables = dict[str, str]


class TrackerPackage(NamedTuple):
    """A tracker's package.

    Attributes:
        name: What `report_to` calls it.
        package: Its name on a package index.
        module: What is imported with its SDK.
        local: Given a folder, the environment variables with which it keeps a run in there.
        stored: What there is in that folder then, as a pattern of paths.
        service: Given a URL, the variables with which it looks for its service there; `None` where
            it has none.
    """

    name: str
    package: str
    module: str
    local: Callable[[Path], Variables]
    stored: str
    service: Callable[[str], Variables] | None = None

    @property
    def lock(self) -> Path:
        """The pins that it is tested with: those of the resolve that is named like it."""
        name = self.package.removeprefix("callback-")
        own = ROOT / "locks" / f"{name}.txt"
        return own if own.exists() else ROOT / "locks" / "torch.txt"

    @property
    def sdk(self) -> tuple[str, str]:
        """The distribution of its SDK, and the oldest version that its package admits."""
        for requirement in project_of(self.package)["dependencies"]:
            name, oldest = re.match(r"([\w.-]+)(?:>=([\w.]+))?", requirement).groups()  # type: ignore[union-attr]
            if not is_ours(name):
                return name, oldest
        raise LookupError(f"{self.package} requires no SDK")


def is_ours(package: str) -> bool:
    """Whether a distribution is one of this repository."""
    return (ROOT / "packages" / package).is_dir()


def project_of(package: str) -> dict[str, Any]:
    """The `[project]` table of a package of ours."""
    text = (ROOT / "packages" / package / "pyproject.toml").read_text(encoding="utf-8")
    project: dict[str, Any] = tomllib.loads(text)["project"]
    return project


def with_what_it_needs(package: str) -> Iterator[str]:
    """The packages of ours that are installed for one, itself the last."""
    for requirement in project_of(package)["dependencies"]:
        name = re.split(r"[^\w-]", requirement, maxsplit=1)[0]
        if is_ours(name):
            yield from with_what_it_needs(name)
    yield package


def _comet_away(url: str) -> Variables:
    return {"COMET_URL_OVERRIDE": f"{url}/clientlib/", "COMET_API_KEY": "k" * 25}


def _clearml_away(url: str) -> Variables:
    hosts = {f"CLEARML_{kind}_HOST": url for kind in ("API", "WEB", "FILES")}
    return {**hosts, "CLEARML_API_ACCESS_KEY": "access", "CLEARML_API_SECRET_KEY": "secret"}


TRACKERS = {
    tracker.name: tracker
    for tracker in (
        TrackerPackage(
            "tensorboard",
            "callback-tensorboard",
            "tensorboard.summary.writer.event_file_writer",
            lambda folder: {"TENSORBOARD_LOGGING_DIR": str(folder)},
            "**/events.out.tfevents.*",
        ),
        TrackerPackage(
            "comet_ml",
            "callback-comet",
            "comet_ml",
            lambda folder: {"COMET_MODE": "OFFLINE", "COMET_OFFLINE_DIRECTORY": str(folder)},
            "*.zip",
            _comet_away,
        ),
        TrackerPackage(
            "mlflow",
            "callback-mlflow",
            "mlflow",
            lambda folder: {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"},
            "mlflow.db",
            lambda url: {"MLFLOW_TRACKING_URI": url},
        ),
        TrackerPackage(
            "codecarbon",
            "callback-codecarbon",
            "codecarbon",
            lambda folder: {
                "CODECARBON_COUNTRY_ISO_CODE": "SWE",
                "CODECARBON_OUTPUT_DIR": str(folder),
            },
            "emissions.csv",
        ),
        TrackerPackage(
            "clearml",
            "callback-clearml",
            "clearml",
            lambda folder: {"CLEARML_OFFLINE_MODE": "1", "CLEARML_CACHE_DIR": str(folder)},
            "**/*.zip",
            _clearml_away,
        ),
    )
}
"""By what `report_to` calls them."""
