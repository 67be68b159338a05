"""A real PostgreSQL for the tests: one server a run, a database of its own for each test."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

START_SECONDS = 30.0


def programs() -> Path:
    """Where Debian keeps them, off everybody's PATH."""
    found = shutil.which("postgres")
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True) or ([Path(found).resolve().parent] if found else [])
    if not places:
        raise AssertionError("PostgreSQL is not installed: apt-get install postgresql")
    return places[0]


def as_owner(*words: str) -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["runuser", "-u", "postgres", "--", *words] if os.geteuid() == 0 else list(words)


@contextmanager
def server() -> Iterator[str]:
    """The URL of a server without a database, on a free port of this machine."""
    folder = Path(tempfile.mkdtemp(prefix="fleetctl-postgres-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        data = str(folder / "data")
        words = ["-D", data, "-A", "trust", "-U", "fleet", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(as_owner(str(programs() / "initdb"), *words), check=True, stdout=subprocess.DEVNULL)
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "max_connections=30"]
        command = [str(programs() / "postgres"), "-D", data, "-p", str(port), *(w for s in settings for w in ("-c", s))]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(as_owner(*command), stdout=log, stderr=log)
        try:
            _wait(port, process, folder / "log")
            yield f"postgresql://fleet@127.0.0.1:{port}"
        finally:
            subprocess.run(as_owner(str(programs() / "pg_ctl"), "-D", data, "-m", "immediate", "-s", "stop"), check=False)
            process.wait(20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    ready = [str(programs() / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    while subprocess.run(ready, check=False).returncode:
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"PostgreSQL did not start:\n{log.read_text()}")
        time.sleep(0.05)
