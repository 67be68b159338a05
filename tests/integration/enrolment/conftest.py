"""One broker for all the attacks of a module: each has a batch and a claim of its own."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from fleetctl.mqtt.broker import find_mosquitto
from tests.integration.enrolment.stand import Serving, Stand, serving


@pytest.fixture(scope="module", params=["mosquitto", "builtin"])
def stand(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    if request.param == "mosquitto" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    with ExitStack() as stack:
        made = Stand(tmp_path_factory.mktemp("enrolment"), stack)
        made.run_broker(request.param)
        yield made


@pytest.fixture(scope="module")
def service(stand: Stand) -> Iterator[Serving]:
    with serving(stand) as running:
        yield running
