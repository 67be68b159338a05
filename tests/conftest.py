"""What every test gets: a home of its own, and in unit tests no network."""

import socket
from pathlib import Path

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
