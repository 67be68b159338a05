"""The artifact server as curl and a device's certificate meet it."""

import hashlib
import socket
import ssl
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fleetctl.demo import firmware
from fleetctl.demo.processes import child
from fleetctl.errors import FleetError
from fleetctl.ota.server import EACH
from tests.integration.ota.stand import Stand


class Shelf:
    """A served release and a device that fetches it."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand
        self.image = firmware.image("2.0.0", firmware.HEALTHY)
        self.name = hashlib.sha256(self.image).hexdigest()
        stand.release("2.0.0")
        self.bundle = stand.folder / "bundles" / stand.add(1)[0]
        stand.run("serve", "ota", "serve", "--context", "test").wait_for("serving", 10.0)
        self.base = stand.fleet.context.artifacts

    def curl(self, *words: str, path: str | None = None, certificate: bool = True) -> subprocess.CompletedProcess[bytes]:
        command = ["curl", "-sS", "--max-time", "10", "--cacert", str(self.bundle / "ca.pem")]
        if certificate:
            command += ["--cert", str(self.bundle / "device.pem"), "--key", str(self.bundle / "device.key")]
        return subprocess.run([*command, *words, self.base + (path or f"/sha256/{self.name}")], capture_output=True, check=False)

    def status(self, *words: str, path: str | None = None) -> str:
        return self.curl(*words, "-o", "/dev/null", "-w", "%{http_code}", path=path).stdout.decode()


@pytest.fixture
def shelf(stand: Stand) -> Shelf:
    return Shelf(stand)


def test_an_image_is_served_whole_in_parts_and_from_where_it_broke_off(shelf: Shelf, tmp_path: Path) -> None:
    assert shelf.curl().stdout == shelf.image
    assert shelf.curl("-r", "100-199").stdout == shelf.image[100:200]
    assert shelf.curl("-r", "-10").stdout == shelf.image[-10:]
    assert shelf.status("-r", "100-199") == "206"
    assert shelf.status("-r", f"{len(shelf.image)}-") == "416"
    part = tmp_path / "part"
    part.write_bytes(shelf.image[:1000])
    shelf.curl("-C", "-", "-o", str(part))
    assert part.read_bytes() == shelf.image


def test_a_range_of_another_version_gets_the_whole(shelf: Shelf) -> None:
    assert shelf.status("-r", "0-9", "-H", 'If-Range: "other"') == "200"
    assert shelf.status("-r", "0-9", "-H", f'If-Range: "{shelf.name}"') == "206"


def test_the_head_says_that_it_never_changes(shelf: Shelf) -> None:
    head = shelf.curl("-I").stdout.decode().lower()
    assert f'etag: "{shelf.name}"' in head
    assert "immutable" in head
    assert f"content-length: {len(shelf.image)}" in head


@pytest.mark.parametrize(
    "path",
    ["/", "/sha256/", "/sha256/../manifests/pump@2.0.0.cose", "/manifests/pump@2.0.0.cose", "/sha256/" + "0" * 64, "/lock"],
)
def test_only_digests_are_served(shelf: Shelf, path: str) -> None:
    assert shelf.status("--path-as-is", path=path) == "404"


def test_nobody_without_a_certificate_is_served_and_a_revoked_one_is_refused_at_once(shelf: Shelf) -> None:
    assert shelf.curl(certificate=False).returncode != 0
    assert shelf.status() == "200"
    shelf.stand.fleet.certificates.revoke("pump-1", "keyCompromise")
    assert shelf.curl().returncode != 0


def test_a_taken_port_is_named(shelf: Shelf) -> None:
    with (
        child(
            "second", ["ota", "serve", "--context", "test", "-o", "jsonl"], shelf.stand.environ, shelf.stand.folder / "log"
        ) as second,
        pytest.raises(FleetError),
    ):
        second.wait_for("serving", 10.0)
    assert "cannot serve artifacts on" in (shelf.stand.folder / "log").read_text()


def test_one_certificate_holds_only_so_many_connections(shelf: Shelf) -> None:
    context = ssl.create_default_context(cafile=str(shelf.bundle / "ca.pem"))
    context.load_cert_chain(shelf.bundle / "device.pem", shelf.bundle / "device.key")
    address = urlsplit(shelf.base)
    with ExitStack() as held:

        def connect() -> ssl.SSLSocket:
            tcp = held.enter_context(socket.create_connection((address.hostname or "", address.port or 0), timeout=5))
            return held.enter_context(context.wrap_socket(tcp, server_hostname=address.hostname))

        for _ in range(EACH):
            connect().sendall(f"HEAD /sha256/{shelf.name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        deadline = time.monotonic() + 10
        while shelf.curl("--max-time", "2").returncode == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert shelf.curl("--max-time", "2").returncode != 0
    assert shelf.status("--retry", "20", "--retry-delay", "0", "--retry-all-errors") == "200"
