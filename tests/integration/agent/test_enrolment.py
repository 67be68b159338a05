"""A device with nothing but a claim, a real broker with a listener for claims, and a fleet side that says what the test wants."""

import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from fleetctl.agent import run as agents
from fleetctl.agent.identity import Identity
from fleetctl.agent.settings import Settings
from fleetctl.errors import Conflict, Denied, UsageError
from fleetctl.keys.store import load_key, public_pem
from fleetctl.model.device import DevicePath
from fleetctl.model.topic import Channel
from fleetctl.pki.csr import SigningRequest, parse_csr
from fleetctl.wire import bundle
from fleetctl.wire.provision import ProvisionReply, ProvisionRequest, reply_topic, request_filter, split_request

QUICK = Settings(heartbeat=0.5, telemetry=0.3, reboot_delay=0.1, backoff=0.1, backoff_limit=0.5)
Decide = Callable[[str, SigningRequest, ProvisionRequest], ProvisionReply]


class Office:
    """The fleet's side of the exchange: gives nonces, and lets `decide` answer signing requests."""

    def __init__(self, fleet: Any) -> None:
        self.fleet = fleet
        self.decide: Decide = self.grant
        self.asked: list[tuple[str, SigningRequest]] = []
        self.noise: list[bytes] = []
        self._stop, self._ready = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        assert self._ready.wait(10)

    def grant(self, serial: str, request: SigningRequest, asked: ProvisionRequest, **changes: Any) -> ProvisionReply:
        path = changes.pop("path", self.fleet.path(f"dev-{serial.lower()}"))
        key = changes.pop("key", request.public_key)
        pem = self.fleet.devices.certify(changes.pop("named", path), key).decode()
        return ProvisionReply(asked.id, "enrol", "accepted", path=path, certificate=changes.get("certificate", pem))

    def _serve(self) -> None:
        with self.fleet.session() as session:
            session.subscribe([request_filter("acme")])
            self._ready.set()
            while not self._stop.is_set():
                for message in session.receive(0.1):
                    claim, serial = split_request(message.topic) or ("", "")
                    for noise in self.noise:
                        session.publish(reply_topic("acme", claim, serial), noise)
                    reply = self._answer(serial, ProvisionRequest.decode(message.payload))
                    session.publish(reply_topic("acme", claim, serial), reply.encode())

    def _answer(self, serial: str, request: ProvisionRequest) -> ProvisionReply:
        if request.step == "hello":
            return ProvisionReply(request.id, "hello", "accepted", nonce=f"nonce-{serial}")
        parsed = parse_csr((request.csr or "").encode())
        assert parsed.challenge == f"nonce-{serial}"
        self.asked.append((serial, parsed))
        return self.decide(serial, parsed, request)

    def end(self) -> None:
        self._stop.set()
        self._thread.join(10)


@pytest.fixture
def office(fleet: Any) -> Iterator[Office]:
    made = Office(fleet)
    yield made
    made.end()


@pytest.fixture
def claim(fleet: Any, tmp_path: Path) -> Path:
    found: Path = fleet.claim("line-1", tmp_path / "claim")
    return found


@pytest.fixture
def enrol(claim: Path, tmp_path: Path, watch: Any) -> Callable[..., Any]:
    def begin(serial: str, settings: Settings = QUICK) -> Any:
        state = tmp_path / serial
        return watch(lambda stop: agents.run(claim, state, serial=serial, settings=settings, stop=stop))

    return begin


def answering(office: Office, **changes: Any) -> Decide:
    return lambda serial, request, asked: office.grant(serial, request, asked, **dict(changes))


def refusing(code: str, status: Any = "rejected", times: int = 99, retry: float | None = None) -> Decide:
    left = [times]

    def decide(serial: str, request: SigningRequest, asked: ProvisionRequest) -> ProvisionReply:
        left[0] -= 1
        return ProvisionReply(asked.id, "enrol", status, code, "because", retry_after=retry)

    return decide


def test_a_device_with_nothing_but_a_claim_becomes_a_device_of_the_fleet(
    fleet: Any, office: Office, enrol: Any, tmp_path: Path
) -> None:
    agent = enrol("SN1")
    agent.wait("online", deviceId="dev-sn1")
    assert agent.of("enrolling")[0]["deviceId"] == "SN1"
    assert agent.of("enrolled")[0]["device"] == "acme/hall/pump/dev-sn1"
    assert fleet.retained("dev-sn1", Channel.STATUS)["status"] == "online"
    identity = tmp_path / "SN1" / "identity"
    assert {path.name for path in identity.iterdir()} == set(bundle.FILES)
    assert stat.S_IMODE((identity / bundle.KEY).stat().st_mode) == 0o600
    certificate = x509.load_pem_x509_certificate((identity / bundle.CERTIFICATE).read_bytes())
    assert certificate.public_key() == load_key(identity / bundle.KEY).public_key()
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    assert Identity.load(identity).config.device == fleet.path("dev-sn1")


def test_a_device_that_has_enrolled_never_asks_again(office: Office, enrol: Any, claim: Path) -> None:
    first = enrol("SN2")
    first.wait("online")
    first.end()
    for path in claim.iterdir():
        path.unlink()
    again = enrol("SN2")
    again.wait("online", deviceId="dev-sn2")
    assert again.of("enrolling") == []
    assert len(office.asked) == 1


def test_a_device_asks_with_one_key_however_often_it_starts(office: Office, enrol: Any) -> None:
    office.decide = refusing("pending", "pending", retry=0.1)
    for _ in range(2):
        agent = enrol("SN3")
        shown = agent.wait("pending", 2)[0]
        assert (shown["code"], shown["key"]) == ("pending", office.asked[0][1].spki)
        agent.end()
    office.decide = office.grant
    enrol("SN3").wait("online")
    assert len(office.asked) >= 5
    assert len({request.spki for _, request in office.asked}) == 1


@pytest.mark.parametrize("code", ["rate_limited", "not_yet_open", "quota", "no_nonce", "stale_csr"])
def test_what_may_change_is_asked_again(office: Office, enrol: Any, code: str) -> None:
    office.decide = refusing(code)
    agent = enrol(f"SN4-{code}")
    assert agent.wait("refused", 2, code=code)[0]["reason"] == "because"
    office.decide = office.grant
    agent.wait("online")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("already_active", Conflict),
        ("already_claimed", Conflict),
        ("duplicate_key", Conflict),
        ("serial_not_in_batch", Denied),
        ("claim_expired", Denied),
        ("claim_revoked", Denied),
        ("batch_closed", Denied),
        ("bad_csr", Denied),
        ("rejected", Denied),
        ("something_new", Denied),
    ],
)
def test_a_refusal_for_good_ends_the_agent_and_says_why(
    office: Office, claim: Path, tmp_path: Path, code: str, kind: Any
) -> None:
    office.decide = refusing(code)
    events: list[Any] = []
    with pytest.raises(kind, match=code) as refusal:
        events.extend(agents.run(claim, tmp_path / "state", serial="SN5", settings=QUICK))
    assert "because" in refusal.value.message
    assert not (tmp_path / "state" / "identity").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"certificate": "-----BEGIN CERTIFICATE-----\ngarbage\n-----END CERTIFICATE-----"}, "does not parse"),
        ({"key": ec.generate_private_key(ec.SECP256R1()).public_key()}, "another key"),
        ({"named": DevicePath("acme", "hall", "pump", "somebody-else")}, "another device"),
        ({"named": DevicePath("acme", "cellar", "pump", "dev-sn6")}, "another address"),
        ({"path": DevicePath("evil", "hall", "pump", "dev-sn6")}, "tenant"),
    ],
)
def test_a_certificate_that_is_not_for_this_device_is_not_stored(
    office: Office, enrol: Any, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    office.decide = answering(office, **changes)
    agent = enrol("SN6")
    assert words in agent.wait("waiting", 2)[0]["reason"]
    assert not (tmp_path / "SN6" / "identity").exists()
    office.decide = office.grant
    agent.wait("online")


def test_answers_to_others_and_garbage_are_passed_over(office: Office, enrol: Any) -> None:
    office.noise = [
        b"garbage",
        b"[]",
        b'{"id":"other","step":"enrol","status":"rejected","code":"claim_revoked"}',
        b'{"id":"other","step":"hello","status":"accepted","nonce":"wrong"}',
        b"x" * 70_000,
    ]
    agent = enrol("SN7")
    agent.wait("online")
    assert agent.of("refused") == agent.of("waiting") == []


NAMELESS = b'{"id":null,"step":null,"status":"rejected","code":"bad_request","detail":"garbage"}'


def test_what_another_holder_of_the_claim_was_answered_ends_nobody(office: Office, enrol: Any) -> None:
    office.noise = [NAMELESS]
    agent = enrol("SN10")
    agent.wait("online")
    assert agent.of("refused") == agent.of("waiting") == []


def test_a_refusal_without_a_name_is_told_where_nothing_else_comes(office: Office, enrol: Any) -> None:
    office.decide = lambda serial, request, asked: ProvisionReply.decode(NAMELESS)
    agent = enrol("SN11", replace(QUICK, enrol_timeout=0.5))
    assert agent.wait("refused", code="bad_request")[0]["reason"] == "garbage"
    office.decide = office.grant
    agent.wait("online")


def test_a_fleet_side_that_is_not_there_is_waited_for(fleet: Any, enrol: Any) -> None:
    agent = enrol("SN8", replace(QUICK, enrol_timeout=0.4))
    assert "nobody answered the hello" in agent.wait("waiting", 2)[0]["reason"]
    late = Office(fleet)
    try:
        agent.wait("online")
    finally:
        late.end()


def test_a_claim_needs_a_serial_and_a_bundle_takes_none(fleet: Any, claim: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a claim"):
        next(agents.run(claim, tmp_path / "a"))
    with pytest.raises(UsageError, match="its name already"):
        next(agents.run(fleet.bundle("named"), tmp_path / "b", serial="SN9"))
    with pytest.raises(UsageError, match="is not a name"):
        next(agents.run(claim, serial="../SN9"))


def test_many_enrol_with_one_claim_in_one_process(office: Office, claim: Path, tmp_path: Path, watch: Any) -> None:
    office.decide = lambda serial, request, asked: (
        refusing("serial_not_in_batch")(serial, request, asked) if serial == "S03" else office.grant(serial, request, asked)
    )
    serials = [f"S{number:02d}" for number in range(1, 9)]
    agent = watch(lambda stop: agents.simulate_claim(claim, serials, tmp_path / "many", settings=QUICK, stop=stop))
    agent.wait("online", 7)
    assert [event["deviceId"] for event in agent.wait("refused", 1, final=True)] == ["S03"]
    agent.end()
    keys = {public_pem(load_key(tmp_path / "many" / serial / "identity" / bundle.KEY)) for serial in serials if serial != "S03"}
    assert len(keys) == 7
