"""Addresses of fsspec, such as `s3://bucket/run`: their checks, parts and local copies."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any, Final

from callback_core.tracking import Redaction

_PROTOCOL: Final = re.compile(r"([A-Za-z][\w+.-]+)://")  # one letter would be a drive of Windows

_PASSWORD: Final = re.compile(r"(://[^/:@]*):[^/@]*@")


def is_address(value: Any) -> bool:
    """Return whether `value` is an address, and not a path on this machine."""
    return isinstance(value, str) and _PROTOCOL.match(value) is not None


def joined(address: str, name: str) -> str:
    """Return the address of the file or directory `name` in `address`."""
    return f"{address.rstrip('/')}/{name}"


def parent_and_name(address: str) -> tuple[str, str]:
    """Return the address of the directory that `address` is in, and its name there."""
    parent, _, name = address.rstrip("/").rpartition("/")
    return parent, name


def shown(address: str) -> str:
    """Return `address` for messages, without users, passwords and keys."""
    return str(Redaction().of(address))


def local_copy(address: str) -> Path:
    """Return the directory in the user's cache whose files belong to `address`.

    Its name consists of the address as it is shown, and a digest of the address without the
    password. So each address has its own directory, which stays the same if the password changes.
    """
    address = address.rstrip("/")
    name = re.sub(r"[^\w.-]+", "_", shown(address))[-80:]
    digest = hashlib.sha256(_PASSWORD.sub(r"\1@", address).encode()).hexdigest()[:8]
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser().absolute() / "trainer-torch" / f"{name}-{digest}"


def check_address(argument: str, address: str) -> None:
    """Check that fsspec and its packages support `address`, without connecting to it.

    Args:
        argument: The name of the argument, for messages.
        address: The address.

    Raises:
        ModuleNotFoundError: A package is missing. The message says which to install.
        ValueError: There is no such protocol, or nothing follows it.
    """
    found = _PROTOCOL.match(address)
    if found is None or not address[found.end() :].strip("/"):
        raise ValueError(
            f"{argument} is {shown(address)!r}, but must name a directory, as in s3://bucket/run."
        )
    protocol = found[1]
    try:
        from fsspec.registry import get_filesystem_class, known_implementations
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{argument} is {shown(address)!r}, which needs fsspec: "
            "pip install 'trainer-torch[remote]'",
            name="fsspec",
        ) from error
    try:
        get_filesystem_class(protocol)
    except ImportError as error:
        package = str(known_implementations.get(protocol, {}).get("class", "")).partition(".")[0]
        if package in ("", "fsspec"):
            package = getattr(error.__cause__ or error, "name", None) or f"fsspec[{protocol}]"
        raise ModuleNotFoundError(
            f"{argument} is {shown(address)!r}, which needs {package}: pip install {package}",
            name=package,
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{argument} is {shown(address)!r}, but fsspec has no protocol {protocol!r}. It has "
            "s3, gs, abfs, hdfs, sftp and file, for example. For others, install their package."
        ) from error


def check_apart(output_dir: str, remote: str) -> None:
    """Check that neither the local directory nor an address is in the other.

    Args:
        output_dir: The local directory.
        remote: The address, which `check_address` accepts.

    Raises:
        ValueError: One is in the other.
    """
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem
    from fsspec.registry import get_filesystem_class

    if not issubclass(get_filesystem_class(remote.partition("://")[0]), LocalFileSystem):
        return
    own, other = Path(output_dir).resolve(), Path(url_to_fs(remote)[1]).resolve()
    if own.is_relative_to(other) or other.is_relative_to(own):
        raise ValueError(
            f"The local output_dir is {output_dir!r}, and remote_output_dir is {shown(remote)!r}, "
            "so that one of them is in the other. Set both to separate directories."
        )
