"""What every test gets: a home of its own, and in unit tests no network."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the person who runs the tests is read or written."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("FLEETCTL_HOME", str(home / "fleetctl"))
    for name in ("FLEETCTL_CONTEXT", "FLEETCTL_OUTPUT", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _no_sockets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit test that opens a connection is not one; pairs within the process are allowed."""
    if Path(__file__).parent / "unit" in request.path.parents:

        def refuse(*_: object) -> None:
            raise AssertionError("a unit test opened a connection")

        for name in ("connect", "connect_ex", "bind", "listen"):
            monkeypatch.setattr(socket.socket, name, refuse)


@dataclass(frozen=True, slots=True)
class Ran:
    """One finished run of the program."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """What it printed; it must have succeeded."""
        assert self.status == 0, self.err
        return json.loads(self.out)

    def error(self) -> dict[str, Any]:
        """The error that it told programs."""
        found: dict[str, Any] = json.loads(self.err.rstrip("\n").rsplit("\n", 1)[-1])["error"]
        assert found["status"] == self.status
        return found


Fleetctl = Callable[..., Ran]


@pytest.fixture
def fleetctl(_own_home: None) -> Fleetctl:
    """Runs the program as a process of its own: `fleetctl("provision", "list", "-o", "json")`."""

    def run(*words: str, stdin: str = "", timeout: float = 60, **environment: str) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "fleetctl", *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, **environment},
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a test that was skipped for a missing tool is a failure, not a rest."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("CI"):
        return
    for report in reporter.stats.get("skipped", []):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line(f"SKIPPED in CI, which counts as failed: {report.nodeid}")
