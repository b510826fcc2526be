"""Which repository of DagsHub a training belongs to."""

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
        host: The address of DagsHub, without a slash at the end.
        owner: The user or the organization.
        name: The repository's name.
    """

    host: str
    owner: str
    name: str

    @property
    def url(self) -> str:
        """Its page."""
        return f"{self.host}/{self.owner}/{self.name}"

    @property
    def tracking_uri(self) -> str:
        """Its MLflow server."""
        return f"{self.url}.mlflow"


def dagshub_host() -> str:
    """Return the address of DagsHub, as its SDK reads it from the environment."""
    return os.environ.get("DAGSHUB_CLIENT_HOST", "https://dagshub.com").rstrip("/")


def chosen_repository(given: str | None) -> Repository:
    """Return the repository that is `given`, or that of `MLFLOW_TRACKING_URI`, or of a git remote.

    Args:
        given: `owner/name`, or the repository's address.

    Raises:
        ValueError: It is neither.
        NotConfigured: There is no repository to be found.
    """
    if given is not None:
        found = _of_path(given) or at_address(given)
        if found is None:
            raise ValueError(
                f"repository is {Redaction().of(given)!r}, it must be a repository of DagsHub: "
                f"owner/name, or its address, {dagshub_host()}/owner/name."
            )
        return found
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    found = at_address(uri, suffix=".mlflow") or _of_git_remotes()
    if found is None:
        host = dagshub_host()
        which = f"is {Redaction().of(uri)!r}" if uri else "is not set"
        raise NotConfigured(
            "DagsHubCallback does not know its repository. Pass repository='owner/name', or set "
            f"MLFLOW_TRACKING_URI, which {which}, to {host}/owner/name.mlflow, or train in a clone "
            f"with a git remote at {urlsplit(host).hostname}; or leave dagshub out of report_to."
        )
    return found


def _of_path(path: str) -> Repository | None:
    match = re.fullmatch(rf"({_NAME})/({_NAME})", path)
    return None if match is None else Repository(dagshub_host(), *match.groups())


def at_address(address: str, suffix: str | None = None) -> Repository | None:
    """Return the repository at an address, without the user and password that may be in it.

    Args:
        address: The address.
        suffix: What its name must end with: `.git`, or `.mlflow`.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or suffix not in (None, match["suffix"]):
        return None
    return Repository(match["scheme"] + match["rest"], match["owner"], match["name"])


def _of_git_remotes() -> Repository | None:
    """Return the repository of the first git remote, here, that is at DagsHub."""
    host = urlsplit(dagshub_host())
    path = re.escape(host.path.strip("/"))
    at_dagshub = re.compile(
        rf"(?:[\w+]+://)?(?:[^/@]*@)?{re.escape(host.hostname or '')}(?::\d+)?[:/]/?"
        rf"{f'{path}/' if path else ''}(?P<path>{_NAME}/{_NAME}?)(?:\.git)?/?"
    )
    matches = (at_dagshub.fullmatch(remote) for remote in _git_remotes())
    return next((_of_path(match["path"]) for match in matches if match), None)


def _git_remotes() -> list[str]:
    """Return the addresses of the git remotes here; none where there is no git."""
    command = ["git", "config", "--get-regexp", r"^remote\..*\.url$"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.partition(" ")[2] for line in done.stdout.splitlines()]
