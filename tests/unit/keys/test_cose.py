"""COSE signatures: two independent libraries accept ours, and every attack on them is refused."""

import hashlib
import subprocess
import warnings
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from fleetctl.errors import ConfigError, Untrusted
from fleetctl.keys.cose import Signer, UnknownKey, trust_key, verify, verify_by_role
from fleetctl.keys.store import KeyType, PrivateKey, generate_key, private_pem, public_pem
from fleetctl.wire.cose import EDDSA, ES256, join, protect, split, to_be_signed
from fleetctl.wire.trust import Role, TrustDocument, TrustKey, key_id

ALGORITHMS: tuple[KeyType, ...] = ("ed25519", "p256")
AAD = b"acme/oslo/pump/pump-1/ota/desired"

every_algorithm = pytest.mark.parametrize("alg", ALGORITHMS)


def signer(alg: KeyType = "ed25519") -> Signer:
    return Signer(generate_key(alg))


KEPT = {alg: signer(alg) for alg in ALGORITHMS}


@every_algorithm
@pytest.mark.parametrize("payload", [b"", b"hello", bytes(1000)])
def test_cwt_accepts_our_signatures(alg: KeyType, payload: bytes) -> None:
    import cwt

    ours = signer(alg)
    key = cwt.COSEKey.from_pem(public_pem(ours.public_key), kid=ours.kid)
    cose = cwt.COSE.new(verify_kid=True)
    data = ours.sign(payload, AAD)
    assert cose.decode(data, key, external_aad=AAD) == payload
    with pytest.raises(cwt.VerifyError):
        cose.decode(data, key, external_aad=b"elsewhere")


@every_algorithm
def test_we_accept_the_signatures_of_cwt(alg: KeyType) -> None:
    import cwt

    key = generate_key(alg)
    ours = Signer(key)
    theirs = cwt.COSEKey.from_pem(private_pem(key), kid=ours.kid)
    data = cwt.COSE.new().encode_and_sign(
        b"hello", theirs, protected={1: ours.alg, 4: ours.kid}, unprotected={}, external_aad=AAD
    )
    assert verify(data, AAD, ours.public_key) == b"hello"


@every_algorithm
def test_pycose_accepts_our_signatures(alg: KeyType) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pycose.keys import EC2Key, OKPKey
        from pycose.keys.curves import P256, Ed25519
        from pycose.messages import CoseMessage

    ours = signer(alg)
    entry = trust_key(ours.public_key, "rollout")
    key: Any = OKPKey(crv=Ed25519, x=entry.key) if entry.alg == EDDSA else EC2Key(crv=P256, x=entry.key[1:33], y=entry.key[33:])
    message: Any = CoseMessage.decode(ours.sign(b"hello", AAD))
    message.key = key
    message.external_aad = AAD
    assert message.verify_signature()
    assert message.payload == b"hello"
    message.external_aad = b"elsewhere"
    assert not message.verify_signature()


def test_the_kid_is_what_openssl_says_it_is() -> None:
    ours = signer()
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-pubout", "-outform", "DER"],
        input=public_pem(ours.public_key),
        capture_output=True,
        check=True,
    ).stdout
    assert ours.kid == hashlib.sha256(der).digest()[:8]


@every_algorithm
@given(payload=st.binary(max_size=100), aad=st.binary(max_size=40))
def test_what_was_signed_verifies(alg: KeyType, payload: bytes, aad: bytes) -> None:
    ours = KEPT[alg]
    data = ours.sign(payload, aad)
    assert verify(data, aad, ours.public_key) == payload
    assert verify(data, aad, trust_key(ours.public_key, "release")) == payload


@every_algorithm
@given(data=st.data())
def test_no_byte_of_an_envelope_can_change(alg: KeyType, data: st.DataObject) -> None:
    ours = KEPT[alg]
    envelope = bytearray(ours.sign(b"payload", AAD))
    index = data.draw(st.integers(0, len(envelope) - 1))
    envelope[index] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Untrusted):
        verify(bytes(envelope), AAD, ours.public_key)


@given(st.binary(max_size=300))
def test_random_bytes_are_untrusted(data: bytes) -> None:
    with pytest.raises(Untrusted):
        verify(data, AAD, KEPT["ed25519"].public_key)


def test_ed25519_makes_the_same_bytes_each_time() -> None:
    ours = signer()
    assert ours.sign(b"x", AAD) == ours.sign(b"x", AAD)


@every_algorithm
def test_a_message_moved_to_another_place_is_refused(alg: KeyType) -> None:
    ours = signer(alg)
    with pytest.raises(Untrusted, match="does not match its content and its place"):
        verify(ours.sign(b"x", AAD), AAD.replace(b"pump-1", b"pump-2"), ours.public_key)


def test_the_algorithm_of_the_message_does_not_count() -> None:
    key = Ed25519PrivateKey.generate()
    ours = Signer(key)
    protected = protect(ES256, ours.kid)
    forged = join(protected, b"x", key.sign(to_be_signed(protected, AAD, b"x")))
    with pytest.raises(Untrusted, match="claims algorithm -7"):
        verify(forged, AAD, ours.public_key)


def test_a_swapped_kid_is_refused() -> None:
    first, second = signer(), signer()
    trust = trust_of(release=[first, second])
    message = split(first.sign(b"x", AAD))
    swapped = join(protect(EDDSA, second.kid), message.payload, message.signature)
    with pytest.raises(Untrusted, match="does not match"):
        verify_by_role(swapped, AAD, trust, Role.RELEASE, 0)
    with pytest.raises(UnknownKey, match=f"signed by key `{second.kid.hex()}`, not by `{first.kid.hex()}`"):
        verify(swapped, AAD, first.public_key)


def test_es256_as_der_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    ours = Signer(key)
    protected = protect(ES256, ours.kid)
    der = key.sign(to_be_signed(protected, AAD, b"x"), ec.ECDSA(hashes.SHA256()))
    with pytest.raises(Untrusted, match="instead of 64"):
        verify(join(protected, b"x", der), AAD, ours.public_key)
    r, s = decode_dss_signature(der)
    raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    assert verify(join(protected, b"x", raw), AAD, ours.public_key) == b"x"


@pytest.mark.parametrize("signature", [bytes(64), b"\xff" * 64, bytes(63) + b"\1", b"\1" + bytes(63)])
@every_algorithm
def test_degenerate_signatures_are_refused(alg: KeyType, signature: bytes) -> None:
    ours = KEPT[alg]
    with pytest.raises(Untrusted):
        verify(join(protect(ours.alg, ours.kid), b"x", signature), AAD, ours.public_key)


def test_a_point_that_is_not_on_the_curve_verifies_nothing() -> None:
    raw = b"\x04" + b"\x01" * 64
    key = TrustKey("release", key_id(ES256, raw), ES256, raw)
    with pytest.raises(Untrusted):
        verify(join(protect(ES256, key.kid), b"x", b"\1" * 64), AAD, key)


def test_a_second_spelling_of_a_signed_message_is_refused() -> None:
    ours = signer()
    message = split(ours.sign(b"x", AAD))
    loose = cbor2.dumps(cbor2.CBORTag(18, [message.protected, {}, message.payload, message.signature]))
    assert verify(loose, AAD, ours.public_key) == b"x"
    longer = loose.replace(b"\xa0\x41x", b"\xa0\x58\x01x")
    assert cbor2.loads(longer).value[2] == b"x"
    with pytest.raises(Untrusted, match="not canonical"):
        verify(longer, AAD, ours.public_key)


def trust_of(version: int = 3, **roles: list[Signer]) -> TrustDocument:
    keys = tuple(trust_key(each.public_key, role) for role, signers in roles.items() for each in signers)
    return TrustDocument(version, "acme", keys)


def test_a_key_counts_only_for_its_role() -> None:
    release, rollout = signer(), signer("p256")
    trust = trust_of(release=[release], rollout=[rollout])
    assert verify_by_role(release.sign(b"x", AAD), AAD, trust, Role.RELEASE, 0) == b"x"
    assert verify_by_role(rollout.sign(b"x", AAD), AAD, trust, Role.ROLLOUT, 0) == b"x"
    with pytest.raises(UnknownKey) as caught:
        verify_by_role(rollout.sign(b"x", AAD), AAD, trust, Role.RELEASE, 0, "the manifest")
    assert caught.value.message == (
        f"the manifest is signed by key `{rollout.kid.hex()}`, which is no release key of trust document version 3"
    )
    assert release.kid.hex() in caught.value.hint


def test_a_trust_document_without_a_key_for_the_role_refuses() -> None:
    ours = signer()
    with pytest.raises(UnknownKey, match="version 3 has no command key"):
        verify_by_role(ours.sign(b"x", AAD), AAD, trust_of(release=[ours]), Role.COMMAND, 0)
    with pytest.raises(UnknownKey, match="has no release key"):
        verify_by_role(ours.sign(b"x", AAD), AAD, trust_of(), Role.RELEASE, 0)


def test_an_expired_key_no_longer_counts() -> None:
    ours = signer()
    trust = TrustDocument(1, "acme", (trust_key(ours.public_key, "release", not_after=1768473000),))
    data = ours.sign(b"x", AAD)
    assert verify_by_role(data, AAD, trust, "release", 1768473000) == b"x"
    assert verify_by_role(data, AAD, trust, "release", None) == b"x"
    with pytest.raises(UnknownKey, match="expired at 2026-01-15T10:30:00"):
        verify_by_role(data, AAD, trust, "release", 1768473001)


def test_a_message_beyond_its_limit_is_refused() -> None:
    ours = signer()
    data = ours.sign(bytes(1000), AAD)
    with pytest.raises(Untrusted, match="900 are allowed"):
        verify(data, AAD, ours.public_key, limit=900)


def test_a_key_for_certificates_signs_nothing_else() -> None:
    keys: list[PrivateKey] = [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 3072)]
    for key in keys:
        with pytest.raises(ConfigError, match="signs certificates only"):
            Signer(key)
