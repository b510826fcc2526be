"""Stores on this machine to which trainings upload: a real S3 server, and a directory."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.error import URLError
from urllib.parse import quote, unquote
from urllib.request import Request, urlopen
from xml.etree import ElementTree

_BUCKET = "bucket"


class Store(Protocol):
    """Somewhere to upload to."""

    address: str

    def keys(self, prefix: str) -> list[str]:
        """Return the names of all files whose names begin with `prefix`."""


class Directory:
    """A directory, as a store whose address begins with `file://`."""

    def __init__(self, path: Path) -> None:
        self._path, self.address = path, f"file://{path}"

    def keys(self, prefix: str) -> list[str]:
        """Return the relative paths of all files that begin with `prefix`.

        A manifest that a kill has cut short is left out, because real stores show whole files only.
        """
        files = (one for one in self._path.rglob("*") if one.is_file() and not _is_torn(one))
        names = [one.relative_to(self._path).as_posix() for one in files]
        return [name for name in names if name.startswith(prefix)]


class S3Bucket:
    """Creates a bucket on an S3 server."""

    def __init__(self, url: str) -> None:
        self._url, self.address = f"{url}/{_BUCKET}", f"s3://{_BUCKET}"
        with urlopen(Request(self._url, method="PUT")):
            pass

    def keys(self, prefix: str) -> list[str]:
        """Return the keys of all objects that begin with `prefix`."""
        found: list[str] = []
        query: str | None = "list-type=2&encoding-type=url"
        while query is not None:
            with urlopen(f"{self._url}?{query}&prefix={quote(prefix)}") as answer:
                tree = ElementTree.fromstring(answer.read())
            space = tree.tag.partition("}")[0] + "}"
            found += [unquote(str(one.text)) for one in tree.iter(f"{space}Key")]
            token = tree.findtext(f"{space}NextContinuationToken")
            query = token and f"list-type=2&encoding-type=url&continuation-token={quote(token)}"
        return found


def _is_torn(file: Path) -> bool:
    return file.name == "manifest.json" and not file.read_text("utf-8").endswith("}\n")


def complete(store: Store, prefix: str) -> set[str]:
    """Return the names of the checkpoints below `prefix` that have a manifest."""
    keys = store.keys(prefix)
    return {key.split("/")[-2] for key in keys if key.endswith("/manifest.json")}


def begun(store: Store, prefix: str) -> set[str]:
    """Return the names of the checkpoints below `prefix` that have at least one file."""
    return {key.split("/")[-2] for key in store.keys(prefix) if "/checkpoint-" in key}


@contextmanager
def s3_bucket() -> Iterator[S3Bucket]:
    """Run moto's server in the context. Variables that point to it stay in the environment.

    It needs `pip install s3fs 'moto[server]'`.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        while True:
            try:
                bucket = S3Bucket(url)
                break
            except URLError:
                if server.poll() is not None:
                    raise RuntimeError("moto's server does not start.") from None
                time.sleep(0.1)
        os.environ |= {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        yield bucket
    finally:
        server.terminate()
        server.wait()
