"""Downloads from servers that behave and from servers that do not."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fleetctl.agent.download import Artifacts, DownloadFailed, Interrupted, fetch
from fleetctl.model.attempt import Code
from fleetctl.tls import client_context

BODY = bytes(range(256)) * 1000
NAME = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Answers with the next of `behaviours`, the last one for ever; remembers the ranges that were asked for."""

    daemon_threads = True

    def __init__(self, *behaviours: Callable[["Handler", int], None]) -> None:
        self.behaviours = list(behaviours)
        self.ranges: list[str | None] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def artifacts(self) -> Artifacts:
        return Artifacts(f"http://127.0.0.1:{self.server_address[1]}/base/", None, tries=3, pause=0.01)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        assert self.path == f"/base/sha256/{NAME}"
        wanted = self.headers["Range"]
        self.server.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        behaviours = self.server.behaviours
        (behaviours.pop(0) if len(behaviours) > 1 else behaviours[0])(self, start)

    def answer(self, status: int, body: bytes, length: int | None = None, span: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        if span:
            self.send_header("Content-Range", span)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def whole(handler: Handler, start: int) -> None:
    if start:
        handler.answer(206, BODY[start:], span=f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
    else:
        handler.answer(200, BODY)


def cut(handler: Handler, start: int) -> None:
    """A third of what is missing, and then the connection breaks."""
    part = BODY[start : start + (len(BODY) - start) // 3]
    status, span = (206, f"bytes {start}-{len(BODY) - 1}/{len(BODY)}") if start else (200, "")
    handler.answer(status, part, length=len(BODY) - start, span=span)


def without_ranges(handler: Handler, _start: int) -> None:
    handler.answer(200, BODY)


def wrong_range(handler: Handler, start: int) -> None:
    handler.answer(206, BODY[:10], span=f"bytes {start + 1}-{start + 10}/{len(BODY)}")


def too_much(handler: Handler, _start: int) -> None:
    handler.answer(200, BODY + b"more")


def status(code: int) -> Callable[[Handler, int], None]:
    return lambda handler, _start: handler.answer(code, b"")


def nonsense(handler: Handler, _start: int) -> None:
    handler.wfile.write(b"SSH-2.0-what\r\n")


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def begin(*behaviours: Callable[[Handler, int], None]) -> Server:
        servers.append(Server(*behaviours))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield begin
    for server in servers:
        server.shutdown()
        server.server_close()


def get(server: Server, target: Path, size: int = len(BODY)) -> list[int]:
    percents: list[int] = []
    fetch(server.artifacts, f"sha256:{NAME}", size, target, threading.Event(), percents.append)
    return percents


def test_an_artifact_arrives_whole_and_says_how_far_it_is(serve: Callable[..., Server], tmp_path: Path) -> None:
    percents = get(serve(whole), tmp_path / "image")
    assert (tmp_path / "image").read_bytes() == BODY
    assert percents == sorted(percents)
    assert percents[-1] == 100


def test_what_breaks_off_is_gone_on_with_by_ranges(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(cut, cut, cut, cut, cut, whole)
    get(server, tmp_path / "image")
    assert (tmp_path / "image").read_bytes() == BODY
    assert server.ranges[:2] == [None, f"bytes={len(BODY) // 3}-{len(BODY) - 1}"]
    assert len(server.ranges) == 6


def test_a_partial_file_from_before_is_kept(serve: Callable[..., Server], tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(BODY[:1000])
    server = serve(whole)
    get(server, tmp_path / "image")
    assert (tmp_path / "image").read_bytes() == BODY
    assert server.ranges == [f"bytes=1000-{len(BODY) - 1}"]


def test_a_file_that_is_complete_or_too_long_is_handled_without_a_guess(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(whole)
    (tmp_path / "image").write_bytes(BODY)
    get(server, tmp_path / "image")
    assert server.ranges == []
    (tmp_path / "image").write_bytes(BODY + b"x")
    get(server, tmp_path / "image")
    assert (tmp_path / "image").read_bytes() == BODY


@pytest.mark.parametrize("behaviour", [without_ranges, wrong_range, status(416), status(503), nonsense])
def test_a_server_that_does_not_do_ranges_costs_time_and_no_byte(
    serve: Callable[..., Server], tmp_path: Path, behaviour: Callable[[Handler, int], None]
) -> None:
    (tmp_path / "image").write_bytes(b"x" * 1000 if behaviour is without_ranges else BODY[:1000])
    get(serve(behaviour, whole), tmp_path / "image")
    assert (tmp_path / "image").read_bytes() == BODY


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (status(404), Code.CONNECTION_LOST),
        (status(500), Code.CONNECTION_LOST),
        (status(302), Code.CONNECTION_LOST),
        (nonsense, Code.CONNECTION_LOST),
        (status(403), Code.UNAUTHORIZED),
        (status(401), Code.UNAUTHORIZED),
        (too_much, Code.INTEGRITY),
    ],
)
def test_what_cannot_be_had_has_a_code(
    serve: Callable[..., Server], tmp_path: Path, behaviour: Callable[[Handler, int], None], code: Code
) -> None:
    with pytest.raises(DownloadFailed) as caught:
        get(serve(behaviour), tmp_path / "image")
    assert caught.value.code is code
    assert not (tmp_path / "image").exists() or (tmp_path / "image").stat().st_size <= len(BODY)


def test_a_server_that_is_not_there_has_one_too(tmp_path: Path) -> None:
    artifacts = Artifacts("http://127.0.0.1:9", None, tries=2, pause=0.01)
    with pytest.raises(DownloadFailed, match="refused") as caught:
        fetch(artifacts, f"sha256:{NAME}", 10, tmp_path / "image", threading.Event(), lambda _: None)
    assert caught.value.code is Code.CONNECTION_LOST


def test_a_download_stops_when_nobody_waits(serve: Callable[..., Server], tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        fetch(serve(whole).artifacts, f"sha256:{NAME}", len(BODY), tmp_path / "image", stop, lambda _: None)


def test_the_artifact_server_wants_the_devices_certificate(fleet: Any, tmp_path: Path) -> None:
    release = fleet.release("2.0.0", BODY)
    place = fleet.bundle("downloader")
    base, ca = f"https://localhost:{fleet.server.port}", place / "ca.pem"
    known = Artifacts(base, client_context(ca, place / "device.pem", place / "device.key"))
    fetch(known, release.digest, len(BODY), tmp_path / "image", threading.Event(), lambda _: None)
    assert (tmp_path / "image").read_bytes() == BODY
    nobody = Artifacts(base, client_context(ca), tries=2, pause=0.01)
    with pytest.raises(DownloadFailed) as caught:
        fetch(nobody, release.digest, len(BODY), tmp_path / "other", threading.Event(), lambda _: None)
    assert caught.value.code in (Code.UNAUTHORIZED, Code.CONNECTION_LOST)
