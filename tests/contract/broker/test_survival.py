"""What both engines survive, and what survives neither."""

import socket
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fleetctl.errors import ConfigError, FleetError, Unavailable
from fleetctl.mqtt.codec import ConnectPacket, QoS, SubscribePacket, TopicFilter, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.broker.conftest import Stand


class TestSurvival:
    """Nonsense, broken connections, revocation and restarts."""

    @pytest.mark.parametrize(
        "noise",
        [
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x30\xff\xff\xff\xff\x7f",
            b"\x00\x00",
            b"\x30\x04\x00\x02\xff\xfe",
            b"\xc0\x00",
            b"\x10\x02",
        ],
        ids=["http", "length", "reserved", "publish", "ping", "half"],
    )
    def test_a_stranger_who_talks_nonsense_is_cut_and_nobody_else(self, stand: "Stand", tree: str, noise: bytes) -> None:
        bystander, raw = stand.connect(), stand.raw()
        bystander.subscribe(f"{tree}/#")
        raw.sendall(noise)
        if noise != b"\x10\x02":
            stand.hear_out(raw)
        assert bystander.publish(f"{tree}/a") == 0

    @pytest.mark.parametrize(
        "noise",
        [
            b"\x32\x07\x00\x02\xff\xfe\x00\x01\x00",
            b"\x32\x06\x00\x01a\x00\x00\x00",
            b"\x82\x03\x00\x01\x00",
            b"\xf0\x7f",
        ],
        ids=["utf8", "packet-id-0", "no-filter", "auth"],
    )
    def test_a_client_that_breaks_the_protocol_is_cut_and_its_will_published(
        self, stand: "Stand", tree: str, noise: bytes
    ) -> None:
        listener = stand.connect()
        listener.subscribe(f"{tree}/#")
        client = stand.connect(will=(f"{tree}/will", b"", 1, False))
        raw = client.paho.socket()
        assert raw is not None
        raw.send(noise + bytes(127))
        assert client.ended() >= 0x80
        assert listener.topics(1) == [f"{tree}/will"]

    def test_a_hundred_connections_that_break_off_leave_the_others_served(self, stand: "Stand", tree: str) -> None:
        for number in range(100):
            with socket.create_connection(("127.0.0.1", stand.config.device.port)) as tcp:
                tcp.sendall(b"\x16\x03\x01" + bytes(number))
        client = stand.connect()
        client.subscribe(f"{tree}/#")
        assert client.publish(f"{tree}/a") == 0

    def test_nothing_outlives_the_engine_and_a_reload_refuses_the_revoked(
        self, stand: "Stand", tmp_path: Path, make_stand: "Callable[..., Stand]"
    ) -> None:
        with ExitStack() as exits:
            own = make_stand(tmp_path, stand.engine, exits)
            own.connect().publish("acme/kept", retain=True)
            bad = own.identity("op:bad")
            own.connect(identity=bad)
            own.people.revoke(bad)
            own.broker.reload()
            with pytest.raises(OSError, match=r"(?i)revoked|closed|reset|eof"):
                own.knock(own.raw(identity=bad))
            own.connect("survivor")
            own.broker.stop()
            assert own.broker.wait(5)
            own.broker.start()
            client = own.connect()
            client.subscribe("acme/#")
            assert client.nothing_but("acme/end", client) == []

    def test_a_taken_port_is_named(self, stand: "Stand") -> None:
        with pytest.raises(Unavailable, match=f"port `{stand.config.device.port}` is taken"):
            stand.another(stand.config).start()

    def test_other_addresses_than_loopback_need_permission(self, stand: "Stand") -> None:
        open_to_all = replace(stand.config, fleet=replace(stand.config.fleet, host="0.0.0.0"))  # noqa: S104
        with pytest.raises(ConfigError, match="reachable from other machines"):
            stand.another(open_to_all).start()

    @pytest.mark.parametrize("name", ["cert", "client_ca", "crl"])
    def test_a_damaged_file_stops_the_start_and_leaves_nothing(
        self, stand: "Stand", tmp_path: Path, make_stand: "Callable[..., Stand]", name: str
    ) -> None:
        with ExitStack() as exits:
            own = make_stand(tmp_path, stand.engine, exits)
            own.broker.stop()
            threads = threading.active_count()
            getattr(own.config.device, name).write_text("damaged")
            with pytest.raises(FleetError):
                own.broker.start()
            assert threading.active_count() == threads
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", own.config.fleet.port), timeout=2)

    def test_a_reload_with_a_damaged_file_is_reported_and_sessions_go_on(
        self, stand: "Stand", tmp_path: Path, make_stand: "Callable[..., Stand]"
    ) -> None:
        with ExitStack() as exits:
            own = make_stand(tmp_path, stand.engine, exits)
            client = own.connect()
            own.config.device.key.write_text("damaged")
            with pytest.raises(FleetError):
                own.broker.reload()
            assert client.publish("acme/a") == 0x10

    def test_a_reader_that_never_reads_costs_bounded_memory_and_nobody_else(self, stand: "Stand", tree: str) -> None:
        deaf, sender, other = stand.raw(), stand.connect(), stand.connect()
        wanted = SubscribePacket(1, [TopicFilter(f"{tree}/bulk", max_qos=QoS.AT_MOST_ONCE)])
        deaf.sendall(encode(ConnectPacket("deaf", clean_start=True)) + encode(wanted))
        other.subscribe(f"{tree}/other")
        for _ in range(300):
            sender.paho.publish(f"{tree}/bulk", bytes(100 * 1024), 0)
        assert sender.publish(f"{tree}/other") == 0
        assert other.topics(1) == [f"{tree}/other"]
