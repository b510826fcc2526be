"""Finds the DagsHub repository of a training."""

from __future__ import annotations

import os
import re
import subprocess
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from callback_core import NotConfigured
from callback_core.tracking import Redaction

_NAME: Final = r"[\w.-]+"
_ADDRESS: Final = re.compile(
    rf"(?P<scheme>https?://)(?:[^/@]*@)?(?P<rest>[^/@?#]+(?:/[^?#]+)?)"
    rf"/(?P<owner>{_NAME})/(?P<name>{_NAME}?)(?P<suffix>\.git|\.mlflow)?/?"
)


class Repository(NamedTuple):
    """A repository.

    Attributes:
        host: The address of DagsHub, without a trailing slash.
        owner: The user or the organization.
        name: The repository's name.
    """

    host: str
    owner: str
    name: str

    @property
    def url(self) -> str:
        """The address of the repository's page."""
        return f"{self.host}/{self.owner}/{self.name}"

    @property
    def tracking_uri(self) -> str:
        """The address of the repository's MLflow server."""
        return f"{self.url}.mlflow"


def dagshub_host() -> str:
    """Return the address of DagsHub, as its SDK reads it from the environment."""
    return os.environ.get("DAGSHUB_CLIENT_HOST", "https://dagshub.com").rstrip("/")


def find_repository(given: str | None) -> Repository:
    """Return the given repository, or that of `MLFLOW_TRACKING_URI`, or that of a git remote.

    Args:
        given: `owner/name`, or the repository's address; `None` to search.

    Raises:
        ValueError: `given` is neither.
        NotConfigured: No repository was found.
    """
    if given is not None:
        found = _from_name(given) or from_address(given)
        if found is None:
            raise ValueError(
                f"repository is {Redaction().of(given)!r}, it must be a repository of DagsHub: "
                f"owner/name, or its address, {dagshub_host()}/owner/name."
            )
        return found
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    found = from_address(uri, suffix=".mlflow") or _from_git_remotes()
    if found is None:
        host = dagshub_host()
        now = f"now {Redaction().of(uri)!r}" if uri else "now unset"
        raise NotConfigured(
            "DagsHubCallback found no repository. Pass repository='owner/name', or set "
            f"MLFLOW_TRACKING_URI ({now}) to {host}/owner/name.mlflow, or train in a clone with a "
            f"git remote at {urlsplit(host).hostname}, or leave dagshub out of report_to."
        )
    return found


def _from_name(path: str) -> Repository | None:
    match = re.fullmatch(rf"({_NAME})/({_NAME})", path)
    return None if match is None else Repository(dagshub_host(), *match.groups())


def from_address(address: str, suffix: str | None = None) -> Repository | None:
    """Return the repository at an address, without user name and password.

    Args:
        address: The address.
        suffix: The required suffix of the address, `.git` or `.mlflow`; `None` accepts any.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or suffix not in (None, match["suffix"]):
        return None
    return Repository(match["scheme"] + match["rest"], match["owner"], match["name"])


def _from_git_remotes() -> Repository | None:
    """Return the repository of the working directory's first git remote at DagsHub."""
    host = urlsplit(dagshub_host())
    path = re.escape(host.path.strip("/"))
    at_dagshub = re.compile(
        rf"(?:[\w+]+://)?(?:[^/@]*@)?{re.escape(host.hostname or '')}(?::\d+)?[:/]/?"
        rf"{f'{path}/' if path else ''}(?P<path>{_NAME}/{_NAME}?)(?:\.git)?/?"
    )
    matches = (at_dagshub.fullmatch(remote) for remote in _git_remotes())
    return next((_from_name(match["path"]) for match in matches if match), None)


def _git_remotes() -> list[str]:
    """Return the addresses of the working directory's git remotes; none without git."""
    command = ["git", "config", "--get-regexp", r"^remote\..*\.url$"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.partition(" ")[2] for line in done.stdout.splitlines()]
