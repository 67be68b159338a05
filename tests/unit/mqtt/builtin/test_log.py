"""A defect of the broker goes into its log: not to the terminal, and not without end."""

import asyncio
from pathlib import Path

from fleetctl.mqtt.broker import BrokerConfig, Listener
from fleetctl.mqtt.builtin import BuiltinBroker
from fleetctl.mqtt.builtin.broker import LOG_BYTES


def test_a_defect_is_noted_for_its_owner_only_and_the_log_is_bounded(tmp_path: Path) -> None:
    file = tmp_path / "file"
    listener = Listener("127.0.0.1", 0, file, file, file, file, (), identity_is_client_id=True)
    broker = BuiltinBroker(BrokerConfig(listener, listener, tmp_path / "broker"))
    loop = asyncio.new_event_loop()
    try:
        broker._note(loop, {"message": "Fatal error", "exception": ValueError("a defect")})
        text = broker.log.read_text()
        assert "Fatal error" in text
        assert "ValueError: a defect" in text
        assert broker.log.stat().st_mode & 0o777 == 0o600
        for _ in range(3):
            broker._note(loop, {"message": "x" * LOG_BYTES})
        assert broker.log.stat().st_size < 2 * LOG_BYTES + 1000
    finally:
        loop.close()


def test_a_broker_that_never_started_has_ended_and_stops_without_complaint(tmp_path: Path) -> None:
    file = tmp_path / "file"
    listener = Listener("127.0.0.1", 0, file, file, file, file, (), identity_is_client_id=True)
    broker = BuiltinBroker(BrokerConfig(listener, listener, tmp_path / "broker"))
    broker.stop()
    assert broker.wait(0)
