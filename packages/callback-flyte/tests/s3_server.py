"""The part of S3 that flytekit uses, for its real client over real connections."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import md5
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from callback_contract.testing import Answer, Request, StandIn

BUCKET = "bucket"
_TIME = "2026-01-01T00:00:00.000Z"


class S3Server(StandIn):
    """A server with one bucket.

    Attributes:
        objects: The objects, by key.
        may_delete: Whether objects may be deleted.
        hangs_after: Returns whether the server stops answering once a key was written.
    """

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, bytes] = {}
        self.may_delete = True
        self.hangs_after: Callable[[str], bool] = lambda key: False

    def variables(self) -> dict[str, str]:
        """Return the environment variables that point flytekit to this server."""
        return {
            "FLYTE_AWS_ENDPOINT": self.url,
            "FLYTE_AWS_ACCESS_KEY_ID": "user",
            "FLYTE_AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REGION": "us-east-1",
        }

    def answer(self, request: Request) -> Answer:
        """Answer a request."""
        url = urlsplit(request.path)
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        query = {name: values[0] for name, values in parse_qs(url.query, True).items()}
        assert bucket == BUCKET, request.path
        if request.method == "GET" and not key:
            return _xml(self._list(query))
        if request.method == "PUT":
            self.objects[key] = _content(request)
            if self.hangs_after(key):
                self.mode = "silent"
            return Answer(headers={"ETag": _tag(self.objects[key])}, body=b"")
        if request.method == "POST" and "delete" in query:
            return _xml(self._delete(request.body)) if self.may_delete else Answer(403, b"")
        if request.method == "DELETE":
            if self.may_delete:
                self.objects.pop(key, None)
            return Answer(204 if self.may_delete else 403, b"")
        if key not in self.objects:
            return Answer(404, b"", {})
        return Answer(body=self.objects[key], headers={"ETag": _tag(self.objects[key])})

    def _list(self, query: dict[str, str]) -> str:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        found, folders = [], set()
        for key, content in sorted(self.objects.items()):
            if not key.startswith(prefix):
                continue
            name, inside, _ = (
                key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            )
            if inside:
                folders.add(f"{prefix}{name}{delimiter}")
            else:
                found.append((key, content))
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{_TIME}</LastModified>"
            f"<ETag>{_tag(content)}</ETag><Size>{len(content)}</Size></Contents>"
            for key, content in found
        )
        common = "".join(
            f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
            for folder in sorted(folders)
        )
        count = f"<KeyCount>{len(found) + len(folders)}</KeyCount>"
        return (
            f"<ListBucketResult><Name>{BUCKET}</Name><IsTruncated>false</IsTruncated>"
            f"{count}{contents}{common}</ListBucketResult>"
        )

    def _delete(self, body: bytes) -> str:
        keys = [e.text or "" for e in ElementTree.fromstring(body).iter() if e.tag.endswith("Key")]
        for key in keys:
            self.objects.pop(key, None)
        gone = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        return f"<DeleteResult>{gone}</DeleteResult>"


def _tag(content: bytes) -> str:
    return f'"{md5(content).hexdigest()}"'


def _xml(text: str) -> Answer:
    return Answer(body=text.encode(), headers={"Content-Type": "application/xml"})


def _content(request: Request) -> bytes:
    """Return the content of a request, decoding signed chunks."""
    if "aws-chunked" not in request.headers.get("Content-Encoding", ""):
        return request.body
    rest, parts = request.body, []
    while rest:
        head, _, rest = rest.partition(b"\r\n")
        size = int(head.partition(b";")[0], 16)
        if not size:
            break
        parts.append(rest[:size])
        rest = rest[size + 2 :]
    return b"".join(parts)
