"""The claims listener: a device without an identity asks for one, as the serial number that is its client id."""

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.contract.broker.test_broker import ALERTS, CUT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.contract.broker.conftest import Stand

NOT_AUTHORIZED, NO_MATCH, CLIENT_ID_NOT_VALID = 0x87, 0x10, 0x85
CLAIM = "claim:line-7"
BASE = f"acme/_fleet/provision/{CLAIM}"
SERVICE = ("acme/_fleet/provision/+/+/request", "acme/end/#")
REVOKED = r"(?i)revoked|closed|reset|eof"


class TestClaims:
    """One claim is held by many devices at once; its name and the serial number are levels of the only topics that it has."""

    def test_a_device_asks_as_its_serial_number_and_hears_the_answer(self, stand: "Stand") -> None:
        serial, service = stand.unique("SN"), stand.connect()
        service.subscribe(*SERVICE)
        device = stand.connect(serial, CLAIM)
        assert device.subscribe(f"{BASE}/{serial}/reply") == [1]
        assert device.publish(f"{BASE}/{serial}/request", b"hello") == 0
        assert service.topics(1) == [f"{BASE}/{serial}/request"]
        assert service.publish(f"{BASE}/{serial}/reply", b"nonce") == 0
        assert device.take(1)[0].payload == b"nonce"

    def test_devices_of_one_claim_do_not_put_each_other_out(self, stand: "Stand") -> None:
        serials = [stand.unique("SN") for _ in range(12)]
        devices = [stand.connect(serial, CLAIM) for serial in serials]
        for serial, device in zip(serials, devices, strict=True):
            assert device.publish(f"{BASE}/{serial}/request") == NO_MATCH

    def test_a_device_that_comes_again_takes_its_own_place(self, stand: "Stand") -> None:
        serial = stand.unique("SN")
        first = stand.connect(serial, CLAIM)
        stand.connect(serial, CLAIM)
        assert first.ended() in CUT

    @pytest.mark.parametrize(
        "topic",
        [
            f"{BASE}/other/request",
            "acme/_fleet/provision/claim:other/{serial}/request",
            f"{BASE}/{{serial}}/reply",
            f"{BASE}/{{serial}}/request/more",
            "acme/_fleet/trust",
            "acme/h/s/{serial}/status",
            "other/_fleet/provision/claim:line-7/{serial}/request",
        ],
    )
    def test_a_claim_writes_nothing_but_its_own_requests(self, stand: "Stand", topic: str) -> None:
        serial = stand.unique("SN")
        assert stand.connect(serial, CLAIM).publish(topic.format(serial=serial), retain=True) == NOT_AUTHORIZED

    def test_a_claim_overhears_nobody(self, stand: "Stand") -> None:
        serial, service = stand.unique("SN"), stand.connect()
        thief = stand.connect(serial, CLAIM)
        thief.subscribe(f"{BASE}/+/reply", "acme/#", "#", f"{BASE}/{serial}/request", f"{BASE}/{serial}/reply")
        for topic in (f"{BASE}/victim/reply", f"{BASE}/victim/request", "acme/_fleet/trust", f"{BASE}/{serial}/request"):
            service.publish(topic)
        assert thief.nothing_but(f"{BASE}/{serial}/reply", service) == []

    @pytest.mark.parametrize(
        "client_id",
        ["victim/request", "+", "#", "victim/#", "+/request", "../victim", "victim/../victim", "%c", "%u", "a/%c"],
    )
    def test_a_client_id_never_stands_for_more_than_one_level(self, stand: "Stand", client_id: str) -> None:
        service = stand.connect()
        service.subscribe(*SERVICE, f"{BASE}/#")
        thief = stand.connect(client_id, CLAIM, welcome=False)
        if thief.greeting is not None and thief.greeting[0] == 0:
            for topic in (f"{BASE}/victim/request", "acme/_fleet/provision/victim/request", f"{BASE}/request"):
                assert thief.publish(topic) == NOT_AUTHORIZED
            thief.subscribe(f"{BASE}/victim/reply", f"{BASE}/+/reply", f"{BASE}/#")
        service.publish(f"{BASE}/victim/reply", b"secret")
        assert service.nothing_but("acme/end/1", stand.connect()) == [f"{BASE}/victim/reply"]
        assert thief.messages == []

    def test_a_client_id_with_a_slash_reaches_no_topic_that_a_service_reads(self, stand: "Stand") -> None:
        service = stand.connect()
        service.subscribe(*SERVICE)
        thief = stand.connect("victim/x", CLAIM, welcome=False)
        if thief.greeting is not None and thief.greeting[0] == 0:
            thief.publish(f"{BASE}/victim/x/request")
        assert service.nothing_but("acme/end/2", stand.connect()) == []

    def test_only_a_claim_opens_the_door_for_claims_and_it_opens_no_other(self, stand: "Stand") -> None:
        for name, other in ((CLAIM, "dev-1"), (CLAIM, "op:alice"), ("dev-1", CLAIM), ("op:alice", CLAIM)):
            with pytest.raises(OSError, match=ALERTS):
                stand.knock(stand.raw(other, identity=stand.identity(name)))

    def test_a_will_stays_within_the_rules(self, stand: "Stand") -> None:
        serial, service = stand.unique("SN"), stand.connect()
        service.subscribe("acme/h/s/victim/status", *SERVICE)
        evil = stand.connect(serial, CLAIM, will=("acme/h/s/victim/status", b"offline", 1, True), welcome=False)
        evil.drop()
        stand.connect(serial, CLAIM, will=(f"{BASE}/{serial}/request", b"gone", 1, False)).drop()
        assert service.topics(1) == [f"{BASE}/{serial}/request"]
        assert service.nothing_but("acme/end/3", stand.connect()) == []

    def test_a_revoked_claim_is_refused_after_a_reload_and_another_is_not(
        self, stand: "Stand", tmp_path: "Path", make_stand: "Callable[..., Stand]"
    ) -> None:
        with ExitStack() as exits:
            own = make_stand(tmp_path, stand.engine, exits)
            own.connect("SN-1", "claim:stolen").leave()
            own.claims.revoke(own.identity("claim:stolen"))
            own.broker.reload()
            with pytest.raises(OSError, match=REVOKED):
                own.knock(own.raw("claim:stolen"))
            assert own.connect("SN-1", CLAIM).publish(f"{BASE}/SN-1/request") == NO_MATCH

    def test_an_authority_that_is_added_while_it_runs_is_accepted_after_a_reload(
        self, stand: "Stand", tmp_path: "Path", make_stand: "Callable[..., Stand]"
    ) -> None:
        with ExitStack() as exits:
            own = make_stand(tmp_path, stand.engine, exits)
            old, new = own.connect(name="dev-1"), type(own.devices)(tmp_path / "devices-2")
            identity = new.issue("dev-2")
            with pytest.raises(OSError, match=ALERTS):
                own.knock(own.raw("dev-2", identity=identity))
            own.devices.ca.write_bytes(new.ca.read_bytes() + own.devices.ca.read_bytes())
            own.devices.crl.write_bytes(new.crl.read_bytes() + own.devices.crl.read_bytes())
            own.broker.reload()
            assert own.connect(name="dev-2", identity=identity).publish("acme/h/s/dev-2/status") == NO_MATCH
            assert old.publish("acme/h/s/dev-1/status") == NO_MATCH
            own.devices.ca.write_bytes(new.ca.read_bytes())
            own.broker.reload()
            with pytest.raises(OSError, match=ALERTS):
                own.knock(own.raw("dev-1"))
