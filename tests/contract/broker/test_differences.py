"""Where the engines differ, by name: nothing in fleetctl may depend on either side of these.

Not tested, because the amounts depend on the machine: mosquitto goes on answering the pings of a client that reads nothing, the
built-in broker stops reading from it. Only the built-in broker gives every device a share of the retained messages.
"""

import ssl
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fleetctl.mqtt.codec import ConnectPacket, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.broker.conftest import Stand

NOT_AUTHORIZED, NO_MATCH = 0x87, 0x10


class TestDifferences:
    """mosquitto 2.0 on the left, the built-in broker on the right of each `differ`."""

    @staticmethod
    def differ(stand: "Stand", mosquitto: object, builtin: object) -> object:
        return mosquitto if stand.engine == "mosquitto" else builtin

    def test_a_denied_subscription_is_granted_by_mosquitto_which_delivers_nothing(self, stand: "Stand") -> None:
        name, operator = stand.unique("dev"), stand.connect()
        device = stand.connect(name=name)
        asked = ["acme/h/s/other/commands/ping", "acme/h/s/other/#", f"acme/h/s/{name}/telemetry", f"acme/h/s/{name}/commands/+"]
        assert device.subscribe(*asked) == self.differ(stand, [1, 1, 1, 1], [NOT_AUTHORIZED] * 3 + [1])
        operator.publish("acme/h/s/other/commands/ping")
        operator.publish(f"acme/h/s/{name}/telemetry")
        assert device.nothing_but(f"acme/h/s/{name}/commands/end", operator) == []

    def test_only_mosquitto_retains_the_telemetry_of_a_device_that_asks_for_it(self, stand: "Stand") -> None:
        topic, operator = f"acme/h/s/{(name := stand.unique('dev'))}/telemetry", stand.connect()
        assert stand.connect(name=name).publish(topic, retain=True) == NO_MATCH
        operator.subscribe(topic, "acme/differs/end")
        assert operator.nothing_but("acme/differs/end", operator) == self.differ(stand, [topic], [])

    def test_only_the_builtin_broker_lets_one_certificate_in_eight_times_at_once(self, stand: "Stand") -> None:
        name = stand.unique("dev")
        for _ in range(9):
            raw = stand.raw(name)
        try:
            raw.sendall(encode(ConnectPacket(name, clean_start=True)))
            turned_away = not raw.recv(1)
        except (ConnectionError, ssl.SSLEOFError):
            turned_away = True
        assert stand.connect(stand.unique("op")).publish("acme/differs/end") == NO_MATCH
        assert turned_away is self.differ(stand, False, True)

    def test_only_mosquitto_speaks_mqtt_3(self, stand: "Stand", tree: str) -> None:
        done = stand.pub("op:alice", f"{tree}/a", "-m", "x", "-V", "311")
        assert done.returncode == self.differ(stand, 0, 1)
        assert ("unacceptable protocol version" in done.stderr) is self.differ(stand, False, True)

    def test_only_mosquitto_offers_qos_2(self, stand: "Stand", tree: str) -> None:
        client = stand.connect()
        assert client.greeting is not None
        assert getattr(client.greeting[2], "MaximumQoS", 2) == self.differ(stand, 2, 1)
        assert client.subscribe(f"{tree}/#", qos=2) == [self.differ(stand, 2, 1)]
        client.paho.publish(f"{tree}/a", b"x", 2)
        if stand.engine == "mosquitto":
            assert client.take(1)[0].qos == 2
        else:
            assert client.ended() == 0x9B

    def test_only_mosquitto_shares_subscriptions(self, stand: "Stand", tree: str) -> None:
        client = stand.connect()
        assert client.greeting is not None
        assert getattr(client.greeting[2], "SharedSubscriptionAvailable", 1) == self.differ(stand, 1, 0)
        assert client.subscribe(f"$share/group/{tree}/#") == [self.differ(stand, 1, 0x9E)]

    def test_only_mosquitto_takes_topic_aliases(self, stand: "Stand") -> None:
        client = stand.connect()
        assert client.greeting is not None
        assert getattr(client.greeting[2], "TopicAliasMaximum", 0) == self.differ(stand, 10, 0)

    def test_a_client_that_is_taken_over_is_told_so_by_the_builtin_broker_only(self, stand: "Stand") -> None:
        name = stand.unique("same")
        first = stand.connect(name)
        stand.connect(name)
        assert first.ended() == self.differ(stand, 0x80, 0x8E)

    @pytest.mark.parametrize("names", [("a", "b"), ("dev/1",), ("#",)], ids=["two", "slash", "wildcard"])
    def test_a_common_name_that_is_no_identity_enters_mosquitto_only(self, stand: "Stand", names: tuple[str, ...]) -> None:
        client = stand.connect(name="dev-x", identity=stand.devices.issue(*names), welcome=False)
        assert client.greeting is not None
        assert client.greeting[0] == self.differ(stand, 0, NOT_AUTHORIZED)

    def test_a_will_that_may_not_be_published_is_refused_by_the_builtin_broker_at_once(self, stand: "Stand") -> None:
        listener, name = stand.connect(), stand.unique("dev")
        listener.subscribe("acme/h/s/victim/status")
        client = stand.connect(name=name, will=("acme/h/s/victim/status", b"offline", 1, True), welcome=False)
        assert client.greeting is not None
        assert client.greeting[0] == self.differ(stand, 0, NOT_AUTHORIZED)
        client.drop()
        assert listener.nothing_but("acme/h/s/victim/status", stand.connect()) == []

    def test_a_revoked_session_is_cut_by_the_builtin_broker_and_lives_on_in_mosquitto(
        self, stand: "Stand", tmp_path: Path, make_stand: "Callable[..., Stand]"
    ) -> None:
        with ExitStack() as exits:
            own = make_stand(tmp_path, stand.engine, exits)
            witness = own.connect()
            witness.subscribe("acme/h/s/+/status")
            live = own.connect(name="dev-1", will=("acme/h/s/dev-1/status", b"offline", 1, False))
            spared = own.connect(name="dev-2")
            own.devices.revoke(own.identity("dev-1"))
            own.broker.reload()
            assert spared.publish("acme/h/s/dev-2/status") == 0
            if stand.engine == "mosquitto":
                assert live.publish("acme/h/s/dev-1/telemetry") == 0x10
            else:
                assert live.ended() == 0x98
                assert sorted(witness.topics(2)) == ["acme/h/s/dev-1/status", "acme/h/s/dev-2/status"]

    # -- the claims listener

    def test_a_claim_leaves_nothing_behind_in_the_builtin_broker_only(self, stand: "Stand") -> None:
        base, operator = f"acme/_fleet/provision/claim:x/{(serial := stand.unique('SN'))}", stand.connect()
        device = stand.connect(serial, "claim:x", SessionExpiryInterval=60)
        assert device.publish(f"{base}/request", retain=True) == NO_MATCH
        device.subscribe(f"{base}/reply")
        device.leave()
        operator.subscribe(f"{base}/request", "acme/differs/end")
        assert operator.nothing_but("acme/differs/end", operator) == self.differ(stand, [f"{base}/request"], [])
        back = stand.connect(serial, "claim:x", clean_start=False)
        assert back.greeting is not None
        assert back.greeting[1] is self.differ(stand, True, False)
        operator.publish(f"{base}/request", b"", retain=True)

    def test_a_claim_that_calls_itself_like_a_device_puts_it_out_of_mosquitto_only(self, stand: "Stand") -> None:
        name = stand.unique("dev")
        device = stand.connect(name=name)
        thief = stand.connect(name, "claim:x", welcome=False)
        assert thief.greeting is not None
        assert thief.greeting[0] == self.differ(stand, 0, 0x85)
        if stand.engine == "mosquitto":
            assert device.ended() == 0x80
        else:
            assert device.publish(f"acme/h/s/{name}/status") == NO_MATCH
        # the device gets its place back with its next attempt, and nothing of its session was given away
        assert stand.connect(name=name).publish(f"acme/h/s/{name}/status") == NO_MATCH

    def test_a_client_id_of_two_levels_enters_mosquitto_and_speaks_below_its_own_claim_only(self, stand: "Stand") -> None:
        client = stand.connect("a/b", "claim:x", welcome=False)
        assert client.greeting is not None
        assert client.greeting[0] == self.differ(stand, 0, 0x85)
        if stand.engine == "mosquitto":
            assert client.publish("acme/_fleet/provision/claim:x/a/b/request") == NO_MATCH
