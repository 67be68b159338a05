"""A fleet for each test that asks for one."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.ota.stand import Stand


@pytest.fixture
def new_stand(tmp_path: Path) -> Iterator[Callable[[str], Stand]]:
    with ExitStack() as stack:
        yield lambda engine: Stand(tmp_path, stack, engine)


@pytest.fixture
def stand(new_stand: Callable[[str], Stand]) -> Stand:
    return new_stand("mosquitto")
