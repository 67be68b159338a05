"""Issuing to devices: who is given a certificate, and for which key."""

from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleetctl.config import load_context
from fleetctl.errors import Conflict
from fleetctl.model.certificate import Reason
from fleetctl.model.device import Device, LifeCycle
from fleetctl.pki.authority import common_names
from fleetctl.pki.csr import WeakKey, spki_of
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.local.issuing import KeyIndex


@pytest.fixture
def fleet() -> Iterator[LocalFleet]:
    create_context("prod", "acme", "mqtts://localhost:1", "alice")
    with LocalFleet(load_context("prod")) as opened:
        yield opened


def device(fleet: LocalFleet, name: str = "p-1") -> Device:
    fleet.devices.add(name, device_type="pump", location="oslo", labels={})
    return fleet.registry.device(name)


def key() -> ec.EllipticCurvePublicKey:
    return ec.generate_private_key(ec.SECP256R1()).public_key()


def test_a_certificate_is_in_the_registry_with_its_key(fleet: LocalFleet) -> None:
    public_key = key()
    row = fleet.certificates.issuer.issue(device(fleet), public_key)
    assert fleet.registry.certificates_by_key(spki_of(public_key)) == [row]
    assert (row.subject, row.device_id, row.authority, row.profile) == ("p-1", "p-1", "device-issuing", "device")


def test_the_chain_begins_with_the_leaf_and_ends_below_the_root(fleet: LocalFleet) -> None:
    issuer = fleet.certificates.issuer
    chain = x509.load_pem_x509_certificates(issuer.chain(issuer.issue(device(fleet), key())))
    assert [common_names(each) for each in chain] == [["p-1"], ["device-issuing"]]
    chain[0].verify_directly_issued_by(chain[1])


def test_a_row_of_a_transaction_that_fails_was_never_issued(fleet: LocalFleet) -> None:
    held = device(fleet)

    def fail() -> None:
        with fleet.registry.transaction():
            fleet.certificates.issuer.issue(held, key())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert fleet.registry.certificates("p-1") == []


def test_one_key_never_stands_for_two_devices(fleet: LocalFleet) -> None:
    public_key = key()
    row = fleet.certificates.issuer.issue(device(fleet), public_key)
    with pytest.raises(Conflict, match=f"certificate `{row.serial}` of `p-1` already"):
        fleet.certificates.issuer.issue(device(fleet, "p-2"), public_key, replaces=row.serial)
    assert fleet.registry.certificates("p-2") == []


def test_a_device_that_renews_may_keep_its_key_and_one_that_does_not_may_not(fleet: LocalFleet) -> None:
    public_key, held = key(), device(fleet)
    issuer = fleet.certificates.issuer
    row = issuer.issue(held, public_key)
    with pytest.raises(Conflict):
        issuer.issue(held, public_key)
    assert issuer.issue(held, public_key, replaces=row.serial).replaces == row.serial
    assert fleet.registry.device("p-1").state is LifeCycle.RENEWING


def test_a_compromised_key_is_not_certified_again_not_even_for_its_device(fleet: LocalFleet) -> None:
    public_key, held = key(), device(fleet)
    row = fleet.certificates.issuer.issue(held, public_key)
    fleet.registry.revoke_certificate(row.serial, Reason.KEY_COMPROMISE, "2026-01-01T00:00:00.000Z")
    with pytest.raises(Conflict, match="keyCompromise"):
        fleet.certificates.issuer.issue(held, public_key, replaces=row.serial)


def test_the_key_of_an_authority_or_an_operator_is_nobody_elses(fleet: LocalFleet) -> None:
    for row in fleet.registry.certificates():
        public_key = x509.load_pem_x509_certificate(row.pem.encode()).public_key()
        assert isinstance(public_key, ec.EllipticCurvePublicKey)
        with pytest.raises(Conflict, match="already"):
            fleet.certificates.issuer.issue(device(fleet), public_key)


@pytest.mark.parametrize("state", [LifeCycle.RETIRED, LifeCycle.SUSPENDED])
def test_a_device_that_is_retired_or_suspended_is_given_none(fleet: LocalFleet, state: LifeCycle) -> None:
    held = device(fleet)
    fleet.registry.move_device("p-1", state, event="test", at="2026-01-01T00:00:00.000Z")
    with pytest.raises(Conflict, match=state):
        fleet.certificates.issuer.issue(held, key())


def test_keys_of_other_kinds_are_certified_and_weak_ones_are_not(fleet: LocalFleet) -> None:
    issuer, held = fleet.certificates.issuer, device(fleet)
    for public_key in (
        Ed25519PrivateKey.generate().public_key(),
        rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key(),
    ):
        assert issuer.issue(held, public_key).spki == spki_of(public_key)
    with pytest.raises(WeakKey):
        issuer.issue(held, ec.generate_private_key(ec.SECP256K1()).public_key())


def test_keys_that_an_older_registry_did_not_keep_are_found_out_before_one_is_certified(fleet: LocalFleet) -> None:
    public_key = key()
    row = fleet.certificates.issuer.issue(device(fleet), public_key)
    fleet.registry.write("UPDATE certificates SET spki = NULL")
    other = device(fleet, "p-2")
    with LocalFleet(fleet.context) as again, pytest.raises(Conflict, match=row.serial):
        again.certificates.issuer.issue(other, public_key)
    fleet.registry.write("UPDATE certificates SET spki = NULL")
    assert KeyIndex(fleet.registry).fill() == len(fleet.registry.certificates())
    assert KeyIndex(fleet.registry).fill() == 0
