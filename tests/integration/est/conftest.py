"""EST in front of a fleet for each test that asks for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.est.stand import Stand


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    made = Stand(tmp_path)
    made.service.start()
    try:
        yield made
    finally:
        made.close()
