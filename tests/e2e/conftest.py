"""Consoles: one whose fleet has no broker, and one whose fleet runs for all the tests of a session."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fleetctl.demo import place
from tests.e2e.console import Console, files_of
from tests.e2e.running import RunningFleet


@pytest.fixture
def console(tmp_path: Path) -> Console:
    """A context `default` of tenant `acme` with device `pump-1`; no broker answers at its ports."""
    return _founded(tmp_path)


def _founded(folder: Path) -> Console:
    made = Console(folder / "home")
    port = place.free_ports()
    assert made.run("init", "--tenant", "acme", "--broker", f"mqtts://localhost:{port}").status == 0
    assert made.run("provision", "add", "pump-1", "--type", "pump", "--location", "oslo").status == 0
    return made


@pytest.fixture(scope="session")
def _quiet_console(tmp_path_factory: pytest.TempPathFactory) -> Console:
    return _founded(tmp_path_factory.mktemp("quiet"))


@pytest.fixture
def unchanged(_quiet_console: Console) -> Iterator[Console]:
    """Such a console shared by all tests: not one may change a file of it."""
    before = files_of(_quiet_console.home)
    yield _quiet_console
    assert files_of(_quiet_console.home) == before


@pytest.fixture(scope="session")
def running_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """Broker, artifact server and two devices, shared: each test uses topics that no other looks at."""
    with ExitStack() as stack:
        yield RunningFleet(tmp_path_factory.mktemp("fleet"), stack)
