"""One registry for each kind of database that there is: what holds for one holds for the other."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest

from fleetctl.registry import Registry
from tests.contract.registry.postgres import server

_NUMBERS = count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where a registry may be made."""
    if request.param == "sqlite":
        return tmp_path / "registry.db"
    url: str = request.getfixturevalue("postgres")
    name = f"test{next(_NUMBERS)}"
    with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return f"{url}/{name}"


@pytest.fixture
def registry(place: Path | str) -> Iterator[Registry]:
    with Registry.create(place, "acme") as made:
        yield made
