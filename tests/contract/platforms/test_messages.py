"""`Messages`, on every platform."""

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fleetctl.errors import FleetError, Partial, Pending, Unavailable, UsageError
from fleetctl.model.device import Device
from fleetctl.platforms.messages import CommandResult, RawPublished
from fleetctl.platforms.protocol import Targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.contract.platforms.conftest import Fleet, Side

BASE = "acme/oslo/pump"
STATUS = {"status": "online", "firmwareVersion": "2.0.0", "digest": "sha256:" + "0" * 64, "clock": "none", "heartbeat": 30}


@pytest.fixture
def devices(fleet: "Fleet") -> "Sequence[Device]":
    for name in ("p1", "p2"):
        fleet.devices.add(name, device_type="pump", location="oslo", labels={})
    return fleet.devices.resolve(Targets(("p1", "p2")))


def announce(side: "Side", *names: str, **more: object) -> None:
    for name in names:
        side.say(f"{BASE}/{name}/status", json.dumps({**STATUS, "session": "3-1", **more}).encode(), retain=True)


def command(
    fleet: "Fleet", devices: "Sequence[Device]", *, wait: bool = True, timeout: float = 5.0
) -> tuple[dict[str, CommandResult], FleetError | None]:
    results: dict[str, CommandResult] = {}
    try:
        for result in fleet.messages.publish(devices, "ping", {"n": 1}, wait=wait, timeout=timeout):
            results[result.id] = result
    except FleetError as error:
        return results, error
    return results, None


class Devices:
    """Answer commands as they are told to."""

    def __init__(self, **statuses: list[str]) -> None:
        self.statuses = statuses
        self.received: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, topic: str, payload: bytes) -> list[tuple[str, bytes]]:
        said = json.loads(payload)
        self.received.append((topic, said))
        replies = [{"id": said["id"], "status": status, "result": {"pong": 1}, "timestamp": None} for status in self._for(topic)]
        return [(f"{topic}/reply", b"garbage"), *((f"{topic}/reply", json.dumps(reply).encode()) for reply in replies)]

    def _for(self, topic: str) -> list[str]:
        return self.statuses.get(topic.split("/")[3], [])


class TestCommands:
    def test_a_command_names_the_session_it_is_meant_for(self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]") -> None:
        announce(side, "p1", "p2")
        simulated = Devices(p1=["accepted", "succeeded"], p2=["succeeded"])
        with side.answering(f"{BASE}/+/commands/ping", simulated):
            results, error = command(fleet, devices)

        assert error is None
        assert {name: (result.status, result.session, result.result) for name, result in results.items()} == {
            "p1": ("succeeded", "3-1", {"pong": 1}),
            "p2": ("succeeded", "3-1", {"pong": 1}),
        }
        assert sorted(topic for topic, _ in simulated.received) == [f"{BASE}/p1/commands/ping", f"{BASE}/p2/commands/ping"]
        for _, said in simulated.received:
            assert said.keys() == {"id", "session", "args", "expires"}
            assert (said["session"], said["args"]) == ("3-1", {"n": 1})

    def test_without_waiting_it_is_sent(self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]") -> None:
        announce(side, "p1", "p2")

        results, error = command(fleet, devices, wait=False)

        assert error is None
        assert [result.status for result in results.values()] == ["sent", "sent"]

    def test_who_is_not_there_is_not_sent_anything(self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]") -> None:
        announce(side, "p1", status="offline")
        simulated = Devices()
        with side.answering(f"{BASE}/+/commands/#", simulated):
            results, error = command(fleet, devices)

        assert isinstance(error, Unavailable)
        assert {name: result.status for name, result in results.items()} == {"p1": "offline", "p2": "unknown"}
        assert simulated.received == []

    def test_some_doing_it_is_partial(self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]") -> None:
        announce(side, "p1", "p2")
        with side.answering(f"{BASE}/+/commands/ping", Devices(p1=["succeeded"], p2=["accepted", "failed"])):
            results, error = command(fleet, devices)

        assert isinstance(error, Partial)
        assert {name: result.status for name, result in results.items()} == {"p1": "succeeded", "p2": "failed"}

    def test_all_refusing_it_is_a_failure(self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]") -> None:
        announce(side, "p1", "p2")
        with side.answering(f"{BASE}/+/commands/ping", Devices(p1=["rejected"], p2=["failed"])):
            results, error = command(fleet, devices)

        assert error is not None
        assert error.status == 1
        assert sorted(result.status for result in results.values()) == ["failed", "rejected"]

    def test_no_answer_in_time_is_pending(self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]") -> None:
        announce(side, "p1", "p2")
        with side.answering(f"{BASE}/+/commands/ping", Devices(p1=["accepted"])):
            results, error = command(fleet, devices, timeout=0.5)

        assert isinstance(error, Pending)
        assert {name: result.status for name, result in results.items()} == {"p1": "accepted", "p2": "timedOut"}

    def test_a_device_whose_status_is_garbage_is_unknown(self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]") -> None:
        side.say(f"{BASE}/p1/status", b"\xff\x00", retain=True)

        assert command(fleet, devices[:1])[0]["p1"].status == "unknown"

    @pytest.mark.parametrize("name", ["", "a/b", "+", "x" * 33, "_x"])
    def test_a_command_that_is_no_level_is_refused(self, fleet: "Fleet", devices: "Sequence[Device]", name: str) -> None:
        with pytest.raises(UsageError):
            fleet.messages.publish(devices, name, {})

    def test_without_a_broker_nothing_is_sent(self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]") -> None:
        side.leave()

        results, error = command(fleet, devices)
        assert isinstance(error, Unavailable)
        assert results == {}


class TestRaw:
    def test_a_raw_message_is_published_and_may_be_retained(self, side: "Side", fleet: "Fleet") -> None:
        sent = fleet.messages.publish_raw("acme/notes", b"hello", retain=True)

        assert sent == RawPublished("acme/notes", 5, 1, True)
        assert side.retained("acme/notes") == b"hello"
        fleet.messages.publish_raw("acme/notes", b"", retain=True)
        assert side.retained("acme/notes") is None

    @pytest.mark.parametrize("topic", ["", "a/#", "a/+/b", "a\0b", "\ud800"])
    def test_what_is_no_topic_is_refused(self, fleet: "Fleet", topic: str) -> None:
        with pytest.raises(UsageError):
            fleet.messages.publish_raw(topic, b"")

    def test_a_payload_has_a_limit(self, fleet: "Fleet") -> None:
        with pytest.raises(UsageError):
            fleet.messages.publish_raw("acme/x", b"x" * 131_073)


class TestTail:
    def test_retained_and_live_messages_are_shown_as_records(
        self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]"
    ) -> None:
        announce(side, "p1", timestamp="2026-01-15T10:30:00.000Z")
        (record,) = fleet.messages.tail(devices, channel="status", count=1)

        assert (record.topic, record.device_id, record.timestamp) == (f"{BASE}/p1/status", "p1", "2026-01-15T10:30:00.000Z")
        assert record.payload["session"] == "3-1"
        assert record.received_at.endswith("Z")

    @pytest.mark.parametrize(
        ("payload", "shown"),
        [
            (b'{"a":[1,2.5,null]}', {"a": [1, 2.5, None]}),
            (b"42", 42),
            (b'"text"', "text"),
            (b"plain text", "plain text"),
            (b"NaN", "NaN"),
            (b'1,"b":2', '1,"b":2'),
            (b'1,"payload":2', '1,"payload":2'),
            (b'{"a":1,"a":2}', '{"a":1,"a":2}'),
            (b"[" * 500 + b"]" * 500, "[" * 500 + "]" * 500),
            (b'"\\ud800"', '"\\ud800"'),
            (b"\xff\xfe", {"base64": "//4="}),
        ],
    )
    def test_any_payload_is_shown_and_none_is_fatal(
        self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]", payload: bytes, shown: object
    ) -> None:
        side.say(f"{BASE}/p1/status", payload, retain=True)
        (record,) = fleet.messages.tail(devices[:1], count=1)

        assert record.payload == shown
        assert record.timestamp is None

    def test_it_ends_after_its_duration(self, fleet: "Fleet", devices: "Sequence[Device]") -> None:
        assert list(fleet.messages.tail(devices, channel="telemetry", duration=0.2)) == []

    def test_only_the_named_devices_and_channel_are_shown(
        self, side: "Side", fleet: "Fleet", devices: "Sequence[Device]"
    ) -> None:
        done = threading.Event()

        def chatter() -> None:
            while not done.wait(0.03):
                for topic in ("p1/telemetry", "p2/telemetry", "p1/alerts", "p2/commands/ping", "p2/commands/ping/reply"):
                    side.say(f"{BASE}/{topic}", b'{"deviceId":"liar"}')

        thread = threading.Thread(target=chatter)
        thread.start()
        try:
            records = list(fleet.messages.tail(devices[1:], channel="telemetry", count=3, duration=20))
            everything = list(fleet.messages.tail(channel="telemetry", count=6, duration=20))
            commands = list(fleet.messages.tail(devices[1:], channel="commands", count=4, duration=20))
            filtered = list(fleet.messages.tail(filters=["acme/+/+/+/alerts"], count=2, duration=20))
        finally:
            done.set()
            thread.join()

        assert [(record.topic, record.device_id) for record in records] == [(f"{BASE}/p2/telemetry", "p2")] * 3
        assert {record.device_id for record in everything} == {"p1", "p2"}
        assert {record.topic for record in commands} == {f"{BASE}/p2/commands/ping", f"{BASE}/p2/commands/ping/reply"}
        assert {record.topic for record in filtered} == {f"{BASE}/p1/alerts"}

    def test_wrong_filters_and_channels_are_refused_at_once(self, fleet: "Fleet", devices: "Sequence[Device]") -> None:
        with pytest.raises(UsageError, match="is not a topic filter"):
            fleet.messages.tail(filters=["a/#/b"])
        with pytest.raises(UsageError, match="is no channel"):
            fleet.messages.tail(channel="telemetri")
        with pytest.raises(UsageError, match="exclude each other"):
            fleet.messages.tail(devices, ["a/#"])
