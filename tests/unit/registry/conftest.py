from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetctl.registry import Registry


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry.db"


@pytest.fixture
def registry(path: Path) -> Iterator[Registry]:
    with Registry.create(path, "acme") as made:
        yield made
