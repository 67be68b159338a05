"""Every kind of key that an authority may have, what each narrows down, and the names of claims."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from fleetctl.errors import ConfigError, UsageError
from fleetctl.keys.store import KeyType, generate_key
from fleetctl.model.certificate import DAY, Profile, Reason, claim_name, reason
from fleetctl.model.device import DevicePath
from fleetctl.pki import crl
from fleetctl.pki.authority import (
    Request,
    chain_of,
    claim_request,
    common_names,
    create_issuing,
    create_root,
    device_request,
    issue,
    validity_of,
)
from fleetctl.pki.extensions import check_authority_key, key_words

NOW = 1_800_000_000.0
PUMP = device_request(DevicePath("acme", "oslo", "pump", "p-1"))
KINDS: tuple[KeyType, ...] = ("p256", "p384", "ed25519", "rsa3072")


@pytest.mark.parametrize("kind", KINDS)
def test_an_authority_with_any_kind_of_key_signs_leaves_and_lists(kind: KeyType) -> None:
    authority = create_root("claim-ca", "acme", generate_key(kind), NOW, 0, clients_only=True)
    leaf = issue(authority, claim_request("acme", "line-1"), generate_key("p256").public_key(), NOW)
    leaf.verify_directly_issued_by(authority.certificate)
    made = x509.load_pem_x509_crl(crl.build(authority, [], 1, int(NOW)))
    assert made.is_signature_valid(authority.key.public_key())
    assert key_words(authority.key) == kind == key_words(authority.key.public_key())


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP521R1())])
def test_a_weak_or_unusual_key_makes_no_authority(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    with pytest.raises(ConfigError):
        check_authority_key(key)
    with pytest.raises(ConfigError):
        create_root("x", "acme", key, NOW, 0)


def test_an_authority_of_devices_says_that_it_is_for_clients_only() -> None:
    root = create_root("device-root", "acme", generate_key("p256"), NOW, 1)
    made = create_issuing(root, "device-issuing", "acme", generate_key("p256"), NOW)
    usage = made.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_a_chain_is_found_in_any_order_and_among_others() -> None:
    root = create_root("device-root", "acme", generate_key("p256"), NOW, 1)
    other = create_root("device-root", "acme", generate_key("p256"), NOW, 1)
    made = create_issuing(root, "device-issuing", "acme", generate_key("p256"), NOW)
    shuffled = (other.certificate, root.certificate, made.certificate)
    assert chain_of(made.certificate, shuffled) == (made.certificate, root.certificate)


@pytest.mark.parametrize("days", [1 / 24, 1, 30])
def test_a_leaf_is_good_for_as_long_as_is_asked(days: float) -> None:
    authority = create_root("claim-ca", "acme", generate_key("p256"), NOW, 0)
    span = validity_of(issue(authority, PUMP, generate_key("p256").public_key(), NOW, days=days))
    assert span.not_after == NOW + days * DAY


@pytest.mark.parametrize("days", [0, -1, 1e9])
def test_a_life_that_is_none_is_refused(days: float) -> None:
    authority = create_root("claim-ca", "acme", generate_key("p256"), NOW, 0)
    with pytest.raises(UsageError, match="cannot be good for"):
        issue(authority, PUMP, generate_key("p256").public_key(), NOW, days=days)


def test_a_claim_has_a_name_that_no_device_can_have() -> None:
    authority = create_root("claim-ca", "acme", generate_key("p256"), NOW, 0)
    leaf = issue(authority, claim_request("acme", "line-1"), generate_key("p256").public_key(), NOW)
    assert common_names(leaf) == ["claim:line-1"]
    assert claim_name("claim:line-1") == "claim:line-1"
    for name in ("", "a/b", "+", "x" * 59):
        with pytest.raises(UsageError):
            claim_name(name)
    with pytest.raises(UsageError, match="does not name a claim"):
        Request(Profile.CLAIM, "line-1", ("urn:x:y",))


def test_a_hold_is_on_the_list_but_is_no_reason_to_choose() -> None:
    authority = create_root("claim-ca", "acme", generate_key("p256"), NOW, 0)
    made = x509.load_pem_x509_crl(crl.build(authority, [crl.Revoked(7, NOW, Reason.CERTIFICATE_HOLD)], 1, int(NOW)))
    assert next(iter(made)).extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.certificate_hold
    with pytest.raises(UsageError, match="no reason to revoke for good"):
        reason("certificateHold")
