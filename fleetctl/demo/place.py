"""Where the demo happens: a temporary home, three free ports in a row, and nothing left of either."""

import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fleetctl.errors import Unavailable

FIRST_PORT, LAST_PORT = 20000, 32000
TRIES = 1000
HOST = "127.0.0.1"


@contextmanager
def home() -> Iterator[Path]:
    """A folder that only we can read, removed at the end however that comes."""
    folder = Path(tempfile.mkdtemp(prefix="fleetctl-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_ports() -> int:
    """The first of three ports in a row that nobody uses: devices, fleet, artifacts; two demos that begin at once rarely meet."""
    for _ in range(TRIES):
        port = FIRST_PORT + secrets.randbelow((LAST_PORT - FIRST_PORT) // 3) * 3
        if _are_free(range(port, port + 3)):
            return port
    raise Unavailable(f"no three free ports between {FIRST_PORT} and {LAST_PORT}", "end what uses them: ss -ltnp")


def _are_free(ports: range) -> bool:
    with ExitStack() as held:
        for port in ports:
            probe = held.enter_context(socket.socket())
            try:
                probe.bind((HOST, port))
            except OSError:
                return False
    return True
