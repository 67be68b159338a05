"""Attacks on trust, written against a small fleet that signs whatever it is told to."""

import hashlib
from dataclasses import dataclass, field, replace

import pytest

from fleetctl.errors import Malformed, Untrusted
from fleetctl.keys.cose import Signer, UnknownKey, trust_key
from fleetctl.keys.store import PublicKey, generate_key
from fleetctl.keys.trust import (
    MANIFEST_AAD,
    UnverifiedAssignment,
    UnverifiedManifest,
    UnverifiedTrust,
    assignment_aad,
    plan_aad,
    sign_assignment,
    sign_manifest,
    sign_trust,
    state_aad,
    trust_aad,
)
from fleetctl.model.device import DevicePath
from fleetctl.wire import desired
from fleetctl.wire.assignment import Assignment
from fleetctl.wire.document import canonical_cbor, parse_cbor
from fleetctl.wire.manifest import Manifest
from fleetctl.wire.trust import TrustDocument

PATH = DevicePath("acme", "oslo", "pump", "pump-1")
NOW = 1768473000


def new_signer() -> Signer:
    return Signer(generate_key())


@dataclass
class Simulator:
    """A fleet whose documents a test may change before they are signed."""

    root: Signer = field(default_factory=new_signer)
    release: Signer = field(default_factory=new_signer)
    rollout: Signer = field(default_factory=new_signer)
    version: int = 3

    def __post_init__(self) -> None:
        self.trust = TrustDocument(
            self.version,
            "acme",
            (trust_key(self.release.public_key, "release"), trust_key(self.rollout.public_key, "rollout")),
        )
        self.manifest = Manifest("acme", "pump", "1.4.2", "app", 1000, bytes(32), "raw", 3, 7, "pump@1.4.2")
        self.assignment = Assignment("acme", "pump-1", "r-20260115", 5, "install", 1, self.manifest_digest)

    @property
    def root_key(self) -> PublicKey:
        return self.root.public_key

    @property
    def manifest_envelope(self) -> bytes:
        return sign_manifest(self.manifest, self.release)

    @property
    def manifest_digest(self) -> bytes:
        return hashlib.sha256(self.manifest_envelope).digest()

    @property
    def assignment_envelope(self) -> bytes:
        return sign_assignment(self.assignment, PATH, self.rollout)

    def payload(self) -> bytes:
        return desired.pack(self.assignment_envelope, self.manifest_envelope)


@pytest.fixture
def sim() -> Simulator:
    return Simulator()


def test_a_trust_document_of_the_root_counts(sim: Simulator) -> None:
    assert UnverifiedTrust(sign_trust(sim.trust, sim.root)).verify(sim.root_key, "acme") == sim.trust


def test_a_trust_document_of_another_root_does_not(sim: Simulator) -> None:
    with pytest.raises(UnknownKey, match="the trust document is signed by key"):
        UnverifiedTrust(sign_trust(sim.trust, new_signer())).verify(sim.root_key, "acme")


def test_a_release_key_cannot_sign_trust(sim: Simulator) -> None:
    with pytest.raises(UnknownKey):
        UnverifiedTrust(sign_trust(sim.trust, sim.release)).verify(sim.root_key, "acme")


def test_a_trust_document_never_goes_back(sim: Simulator) -> None:
    held = sign_trust(sim.trust, sim.root)
    older = sign_trust(replace(sim.trust, version=2), sim.root)
    same = sign_trust(replace(sim.trust, keys=()), sim.root)
    newer = sign_trust(replace(sim.trust, version=4), sim.root)
    for rollback in (older, same, held):
        with pytest.raises(Untrusted, match="version 3 is held already"):
            UnverifiedTrust(rollback).verify(sim.root_key, "acme", 3)
    for rollback in (older, same):
        with pytest.raises(Untrusted, match="version 3 is held already"):
            UnverifiedTrust(rollback).verify(sim.root_key, "acme", 3, held=held)
    assert UnverifiedTrust(held).verify(sim.root_key, "acme", 3, held=held) == sim.trust
    assert UnverifiedTrust(newer).verify(sim.root_key, "acme", 3, held=held).version == 4


def test_a_trust_document_of_another_tenant_does_not_count(sim: Simulator) -> None:
    with pytest.raises(Untrusted, match="its place"):
        UnverifiedTrust(sign_trust(replace(sim.trust, tenant="evil"), sim.root)).verify(sim.root_key, "acme")
    lying = sim.root.sign(replace(sim.trust, tenant="evil").encode(), trust_aad("acme"))
    with pytest.raises(Untrusted, match="is for tenant `evil`"):
        UnverifiedTrust(lying).verify(sim.root_key, "acme")


def test_a_signed_trust_document_that_makes_no_sense_is_untrusted(sim: Simulator) -> None:
    document = parse_cbor(sim.trust.encode())
    assert isinstance(document, dict)
    for wrong in ({**document, 7: 1}, {**document, 1: 1.5}, {**document, 3: [{1: 1}]}, [1]):
        with pytest.raises(Untrusted):
            UnverifiedTrust(sim.root.sign(canonical_cbor(wrong), trust_aad("acme"))).verify(sim.root_key, "acme")


def test_a_trust_document_that_no_device_would_accept_is_not_signed(sim: Simulator) -> None:
    with pytest.raises(Malformed):
        sign_trust(replace(sim.trust, keys=sim.trust.keys * 2), sim.root)


def test_an_update_that_is_all_right_is_verified(sim: Simulator) -> None:
    assignment, manifest = desired.unpack(sim.payload())
    assert UnverifiedAssignment(assignment).verify(sim.trust, PATH, NOW) == sim.assignment
    assert UnverifiedManifest(manifest).verify(sim.trust, NOW) == sim.manifest


def test_an_update_is_small() -> None:
    sim = Simulator()
    sim.manifest = replace(sim.manifest, vendor="Acme Pumps Ltd", size=1 << 24, security_counter=1000, sequence=1000)
    sim.assignment = replace(
        sim.assignment,
        manifest=sim.manifest_digest,
        order=1000,
        not_before=NOW,
        not_after=NOW + 86400,
        window=(60, 300),
        jitter=3600,
    )
    assert len(sim.payload()) < 600


def test_an_assignment_cannot_be_replayed_to_another_device(sim: Simulator) -> None:
    for other in ("acme/oslo/pump/pump-2", "acme/bergen/pump/pump-1", "acme/oslo/sensor/pump-1"):
        with pytest.raises(Untrusted, match="its place"):
            UnverifiedAssignment(sim.assignment_envelope).verify(sim.trust, DevicePath.parse(other), NOW)


def test_an_assignment_that_names_another_device_is_refused(sim: Simulator) -> None:
    for changed in (replace(sim.assignment, device_id="pump-2"), replace(sim.assignment, tenant="evil")):
        with pytest.raises(Untrusted, match="not for `acme/oslo/pump/pump-1`"):
            UnverifiedAssignment(sign_assignment(changed, PATH, sim.rollout)).verify(sim.trust, PATH, NOW)


def test_the_trust_of_another_tenant_verifies_nothing(sim: Simulator) -> None:
    with pytest.raises(Untrusted, match="trust document is for tenant `evil`"):
        UnverifiedAssignment(sim.assignment_envelope).verify(replace(sim.trust, tenant="evil"), PATH, NOW)


def test_a_release_key_cannot_assign_and_a_rollout_key_cannot_release(sim: Simulator) -> None:
    with pytest.raises(UnknownKey, match="no rollout key of trust document version 3"):
        UnverifiedAssignment(sign_assignment(sim.assignment, PATH, sim.release)).verify(sim.trust, PATH, NOW)
    with pytest.raises(UnknownKey, match=r"the manifest is signed by key .* no release key of trust document version 3"):
        UnverifiedManifest(sign_manifest(sim.manifest, sim.rollout)).verify(sim.trust, NOW)


def test_one_document_never_passes_for_another(sim: Simulator) -> None:
    both = replace(
        sim.trust,
        keys=(*sim.trust.keys, trust_key(sim.release.public_key, "rollout"), trust_key(sim.rollout.public_key, "release")),
    )
    with pytest.raises(Untrusted, match="its place"):
        UnverifiedManifest(sim.assignment_envelope).verify(both, NOW)
    with pytest.raises(Untrusted, match="its place"):
        UnverifiedAssignment(sim.manifest_envelope).verify(both, PATH, NOW)


def test_places_are_all_different() -> None:
    places = {
        MANIFEST_AAD,
        trust_aad("acme"),
        assignment_aad(PATH),
        plan_aad("acme", "r-1"),
        state_aad("acme", "r-1"),
        plan_aad("acme", "r-2"),
    }
    assert len(places) == 6
    assert assignment_aad(PATH) == b"acme/oslo/pump/pump-1/ota/desired"
    assert plan_aad("acme", "r-1") == b"acme/_fleet/rollouts/r-1/plan"


def test_an_unknown_critical_key_is_untrusted_although_signed(sim: Simulator) -> None:
    assignment, manifest = parse_cbor(sim.assignment.encode()), parse_cbor(sim.manifest.encode())
    assert isinstance(assignment, dict)
    assert isinstance(manifest, dict)
    signed = sim.rollout.sign(canonical_cbor({**assignment, 13: 1}), assignment_aad(PATH))
    with pytest.raises(Untrusted, match="critical key `13`"):
        UnverifiedAssignment(signed).verify(sim.trust, PATH, NOW)
    signed = sim.release.sign(canonical_cbor({**manifest, 11: 1}), MANIFEST_AAD)
    with pytest.raises(Untrusted, match="critical key `11`"):
        UnverifiedManifest(signed).verify(sim.trust, NOW)
    signed = sim.release.sign(canonical_cbor({**manifest, 111: 1}), MANIFEST_AAD)
    assert UnverifiedManifest(signed).verify(sim.trust, NOW) == sim.manifest


def test_a_signed_payload_that_is_not_canonical_is_untrusted(sim: Simulator) -> None:
    loose = sim.manifest.encode().replace(b"\x08\x03", b"\x08\x18\x03")
    assert loose != sim.manifest.encode()
    with pytest.raises(Untrusted, match="not canonical"):
        UnverifiedManifest(sim.release.sign(loose, MANIFEST_AAD)).verify(sim.trust, NOW)


def test_a_removed_key_no_longer_counts(sim: Simulator) -> None:
    without = replace(sim.trust, version=4, keys=sim.trust.keys[1:])
    with pytest.raises(UnknownKey, match="version 4 has no release key"):
        UnverifiedManifest(sim.manifest_envelope).verify(without, NOW)


def test_an_expired_key_no_longer_counts_where_there_is_a_clock(sim: Simulator) -> None:
    aged = replace(sim.trust, keys=tuple(replace(key, not_after=NOW - 1) for key in sim.trust.keys))
    with pytest.raises(UnknownKey, match="expired at"):
        UnverifiedManifest(sim.manifest_envelope).verify(aged, NOW)
    with pytest.raises(UnknownKey, match="expired at"):
        UnverifiedAssignment(sim.assignment_envelope).verify(aged, PATH, NOW)
    assert UnverifiedAssignment(sim.assignment_envelope).verify(aged, PATH, None) == sim.assignment


@pytest.mark.parametrize("data", [b"", b"{}", b"\x80", b"\xd2\x80", b"\xff" * 100])
def test_garbage_is_untrusted_and_the_refusal_says_what_to_do(sim: Simulator, data: bytes) -> None:
    for attempt in (
        lambda: UnverifiedAssignment(data).verify(sim.trust, PATH, NOW),
        lambda: UnverifiedManifest(data).verify(sim.trust, NOW),
        lambda: UnverifiedTrust(data).verify(sim.root_key, "acme"),
    ):
        with pytest.raises(Untrusted) as caught:
            attempt()
        assert caught.value.hint
