import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetctl.errors import Malformed
from fleetctl.wire.cose import EDDSA, join, protect, split, to_be_signed
from fleetctl.wire.document import canonical_cbor

PROTECTED = protect(EDDSA, b"12345678")


@given(st.binary(max_size=300), st.binary(min_size=64, max_size=64))
def test_an_envelope_comes_apart_as_it_was_joined(payload: bytes, signature: bytes) -> None:
    message = split(join(PROTECTED, payload, signature))
    assert (message.protected, message.payload, message.signature) == (PROTECTED, payload, signature)
    assert (message.alg, message.kid) == (EDDSA, b"12345678")


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda data: b"\xd2\x84" + data))
def test_random_bytes_are_no_envelope(data: bytes) -> None:
    try:
        message = split(data)
    except Malformed:
        return
    assert join(message.protected, message.payload, message.signature) == data


def test_what_is_signed_is_the_structure_of_rfc_9052() -> None:
    assert to_be_signed(b"\xa0", b"aad", b"x") == bytes.fromhex("846a5369676e61747572653141a04361616441") + b"x"


def envelope(*items: object) -> bytes:
    return b"\xd2" + canonical_cbor(list(items))


WRONG = {
    "no tag": canonical_cbor([PROTECTED, {}, b"", bytes(64)]),
    "tag 98, COSE_Sign": b"\xd8\x62" + canonical_cbor([PROTECTED, {}, b"", bytes(64)]),
    "tag 18 in two bytes": b"\xd8\x12" + canonical_cbor([PROTECTED, {}, b"", bytes(64)]),
    "three items": envelope(PROTECTED, {}, b""),
    "five items": envelope(PROTECTED, {}, b"", bytes(64), b""),
    "detached payload": envelope(PROTECTED, {}, None, bytes(64)),
    "unprotected kid": envelope(canonical_cbor({1: EDDSA}), {4: b"12345678"}, b"", bytes(64)),
    "unprotected extra": envelope(PROTECTED, {5: b"iv"}, b"", bytes(64)),
    "unprotected is an array": envelope(PROTECTED, [], b"", bytes(64)),
    "protected is a map": envelope({1: EDDSA, 4: b"12345678"}, {}, b"", bytes(64)),
    "empty protected": envelope(b"", {}, b"", bytes(64)),
    "no kid": envelope(canonical_cbor({1: EDDSA}), {}, b"", bytes(64)),
    "no alg": envelope(canonical_cbor({4: b"12345678"}), {}, b"", bytes(64)),
    "short kid": envelope(protect(EDDSA, b"1234567"), {}, b"", bytes(64)),
    "alg is text": envelope(canonical_cbor({1: "EdDSA", 4: b"12345678"}), {}, b"", bytes(64)),
    "alg is a boolean": envelope(canonical_cbor({1: True, 4: b"12345678"}), {}, b"", bytes(64)),
    "critical header": envelope(canonical_cbor({1: EDDSA, 2: [99], 4: b"12345678", 99: 1}), {}, b"", bytes(64)),
    "content type": envelope(canonical_cbor({1: EDDSA, 3: 60, 4: b"12345678"}), {}, b"", bytes(64)),
    "protected out of order": envelope(bytes.fromhex("a2044831323334353637380127"), {}, b"", bytes(64)),
    "protected with a trailing byte": envelope(PROTECTED + b"\0", {}, b"", bytes(64)),
    "payload of a long head": b"\xd2\x84" + canonical_cbor(PROTECTED) + b"\xa0\x58\x01x" + canonical_cbor(bytes(64)),
    "short signature": envelope(PROTECTED, {}, b"", bytes(63)),
    "DER signature": envelope(PROTECTED, {}, b"", bytes(70)),
    "trailing byte": join(PROTECTED, b"", bytes(64)) + b"\0",
    "two envelopes": join(PROTECTED, b"", bytes(64)) * 2,
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_every_other_spelling_of_an_envelope_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        split(data)
