"""Fetching an artifact by its digest: HTTPS with the device's certificate, by ranges, going on where it was (RFC 9110)."""

import http.client
import random
import re
import ssl
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fleetctl import tls
from fleetctl.errors import Denied
from fleetctl.model.attempt import Code

CHUNK = 1 << 16
TIMEOUT = 30.0
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


class DownloadFailed(Exception):
    """The artifact could not be fetched; `code` says whose fault that is."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Interrupted(Exception):
    """Nobody waits for this any more."""


class _Retry(Exception):
    """This try failed; another may succeed."""


@dataclass(frozen=True, slots=True)
class Artifacts:
    """Where artifacts are: `{base}/sha256/<hex>`; `context` shows the device's certificate.

    `tries` is how often in a row nothing may arrive, `pause` how many seconds the first wait lasts; it doubles, jittered.
    """

    base: str
    context: ssl.SSLContext | None
    tries: int = 6
    pause: float = 0.5


def fetch(
    artifacts: Artifacts, digest: str, size: int, target: Path, stop: threading.Event, report: Callable[[int], None]
) -> None:
    """Bring `target` to exactly `size` bytes; what is there already is kept, and what arrives is not yet verified.

    Raises:
        DownloadFailed: it cannot be had; what has arrived stays for the next time.
        Interrupted: `stop` was set.
        OSError: the file cannot be written (no space).
    """
    name = digest.removeprefix("sha256:")
    left = artifacts.tries
    while True:
        before = _length(target)
        if before > size:
            target.unlink()
            continue
        try:
            _transfer(artifacts, name, size, target, stop, report)
        except _Retry as error:
            left = artifacts.tries if _length(target) > before else left - 1
            if left <= 0:
                raise DownloadFailed(Code.CONNECTION_LOST, str(error)) from error
            seconds = artifacts.pause * 2 ** (artifacts.tries - left)
            if stop.wait(seconds * random.uniform(0.5, 1.0)):  # noqa: S311
                raise Interrupted from error
        if _length(target) == size:
            return


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _transfer(
    artifacts: Artifacts, name: str, size: int, target: Path, stop: threading.Event, report: Callable[[int], None]
) -> None:
    start = _length(target)
    if start == size:
        return
    with closing(_connection(artifacts)) as connection, _ask(connection, artifacts, name, start, size) as response:
        offset = _offset(response, start, size, target)
        with target.open("r+b" if offset else "wb") as sink:
            sink.seek(offset)
            while chunk := _chunk(response, artifacts):
                if stop.is_set():
                    raise Interrupted
                if (offset := offset + len(chunk)) > size:
                    raise DownloadFailed(Code.INTEGRITY, f"the artifact server sends more than {size} bytes")
                sink.write(chunk)
                report(offset * 100 // size)
        if offset < size:
            raise _Retry(f"the transfer ended after {offset} of {size} bytes")


def _connection(artifacts: Artifacts) -> http.client.HTTPConnection:
    parts = urlsplit(artifacts.base)
    if parts.scheme == "https":
        return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=TIMEOUT, context=artifacts.context)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)


def _ask(
    connection: http.client.HTTPConnection, artifacts: Artifacts, name: str, start: int, size: int
) -> http.client.HTTPResponse:
    headers = {"Range": f"bytes={start}-{size - 1}", "If-Range": f'"{name}"'} if start else {}
    path = urlsplit(artifacts.base).path.rstrip("/")
    try:
        connection.request("GET", f"{path}/sha256/{name}", headers=headers)
        return connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        raise _translated(error, artifacts) from error


def _offset(response: http.client.HTTPResponse, start: int, size: int, target: Path) -> int:
    """Where the body belongs: 206 goes on at `start`, 200 begins again."""
    if response.status == http.HTTPStatus.OK:
        return 0
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        found = _CONTENT_RANGE.fullmatch(response.getheader("Content-Range", ""))
        if found and int(found[1]) == start and found[3] in ("*", str(size)):
            return start
    if response.status == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        target.unlink(missing_ok=True)
    detail = f"the artifact server answers {response.status}"
    if response.status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
        raise DownloadFailed(Code.UNAUTHORIZED, detail)
    raise _Retry(detail)


def _chunk(response: http.client.HTTPResponse, artifacts: Artifacts) -> bytes:
    try:
        return response.read1(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _translated(error, artifacts) from error


def _translated(error: Exception, artifacts: Artifacts) -> Exception:
    host = urlsplit(artifacts.base).netloc
    if isinstance(error, ssl.SSLError):
        explained = tls.explain(error, host)
        if isinstance(explained, Denied):
            return DownloadFailed(Code.UNAUTHORIZED, explained.message)
        return _Retry(explained.message)
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return _Retry(f"no artifact from `{host}`: {str(reason).lower()}")
