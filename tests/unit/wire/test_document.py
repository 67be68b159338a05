import contextlib
import math
import re

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetctl.errors import Malformed
from fleetctl.wire.document import (
    CBOR_DEPTH_LIMIT,
    DEPTH_LIMIT,
    PAYLOAD_LIMIT,
    Json,
    canonical_cbor,
    digest,
    dump_json,
    parse_cbor,
    parse_json,
    parse_rfc3339,
    rfc3339,
)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
integers = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | integers | floats | text
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4), max_leaves=12)
items = st.recursive(
    leaves | st.binary(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4) | st.dictionaries(st.integers(0, 2**64 - 1), inner)
    ),
    max_leaves=12,
)


@given(st.dictionaries(text, values, max_size=5))
def test_json_comes_back_as_it_went(document: dict[str, Json]) -> None:
    assert parse_json(dump_json(document)) == document


@given(items)
def test_cbor_comes_back_as_it_went(item: object) -> None:
    assert parse_cbor(canonical_cbor(item)) == item


@given(st.binary(max_size=300))
def test_random_bytes_are_malformed_or_mean_exactly_one_thing(payload: bytes) -> None:
    try:
        item = parse_cbor(payload)
    except Malformed:
        return
    assert canonical_cbor(item) == payload


@given(st.binary(max_size=300) | st.text(max_size=100).map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_random_bytes_are_a_json_object_or_malformed(payload: bytes) -> None:
    with contextlib.suppress(Malformed):
        assert isinstance(parse_json(payload), dict)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"1",
        b'"a"',
        b"{",
        b'{"a":1} x',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":1,"a":2}',
        b'{"b":{"a":1,"a":1}}',
        b"{'a':1}",
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":"\xff"}',
        '{"a":1}'.encode("utf-16"),
        b'{"a":"\\ud800"}',
        b'{"\\udfff":1}',
        b'{"a":9223372036854775808}',
        b'{"a":' + b"1" * 5000 + b"}",
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b'{"a":' + b"[" * 100000 + b"]" * 100000 + b"}",
        b'{"a":01}',
        b'{"a":"\x01"}',
    ],
)
def test_hostile_json_is_malformed(payload: bytes) -> None:
    with pytest.raises(Malformed):
        parse_json(payload)


def test_json_is_bounded_in_size_and_depth() -> None:
    assert parse_json(b'{"a":"' + b"x" * (PAYLOAD_LIMIT - 8) + b'"}')
    with pytest.raises(Malformed, match=r"131072 are allowed"):
        parse_json(b'{"a":"' + b"x" * (PAYLOAD_LIMIT - 7) + b'"}')
    deepest = b'{"a":' * DEPTH_LIMIT + b"1" + b"}" * DEPTH_LIMIT
    assert parse_json(deepest)
    with pytest.raises(Malformed, match="deeper"):
        parse_json(b'{"a":' + deepest + b"}")


@pytest.mark.parametrize("document", [{"a": math.nan}, {"a": [math.inf]}, {"a": "\ud800"}])
def test_what_json_cannot_carry_is_not_written(document: object) -> None:
    with pytest.raises(Malformed):
        dump_json(document)


def test_json_is_compact_and_keeps_its_letters() -> None:
    assert dump_json({"name": "Müller", "list": [1, 2.5, None, True]}) == '{"name":"Müller","list":[1,2.5,null,true]}'.encode()


HOSTILE_CBOR = {
    "empty": "",
    "ends early": "8301",
    "string longer than the payload": "5affffffff",
    "array of 2^64 items": "9bffffffffffffffff",
    "map of 2^64 pairs": "bbffffffffffffffff",
    "trailing byte": "0102",
    "head longer than needed": "1801",
    "length longer than needed": "580161",
    "float longer than needed": "fb3ff8000000000000",
    "keys out of order": "a202010102",
    "same key twice": "a201010102",
    "true and 1 as keys": "a20101f502",
    "true as a key": "a1f501",
    "bytes as a key": "a1416101",
    "array as a key": "a1810102",
    "null as a key": "a1f601",
    "negative key": "a12001",
    "keys of two types": "a20101616101",
    "indefinite array": "9f01ff",
    "indefinite bytes": "5f4101ff",
    "indefinite map": "bf0101ff",
    "break alone": "ff",
    "undefined": "f7",
    "simple value": "e0",
    "two-byte simple value": "f820",
    "reserved head": "1c",
    "NaN": "f97e00",
    "infinity": "f97c00",
    "text that is not UTF-8": "62c328",
    "surrogate in text": "63eda080",
    "bignum": "c249010000000000000000",
    "date": "c11a65a5b000",
    "decimal fraction of a huge exponent": "c4821b7fffffffffffffff01",
    "bigfloat of a huge exponent": "c5821b7fffffffffffffff01",
    "regular expression": "d8236328612b",
    "shared value": "d81c81d81d00",
    "set": "d9010281 01".replace(" ", ""),
    "COSE tag": "d28440a04040",
    "deep": "81" * (CBOR_DEPTH_LIMIT + 1) + "01",
    "very deep": "81" * 100000 + "01",
}


@pytest.mark.parametrize("payload", HOSTILE_CBOR.values(), ids=HOSTILE_CBOR)
def test_hostile_cbor_is_malformed(payload: str) -> None:
    with pytest.raises(Malformed):
        parse_cbor(bytes.fromhex(payload))


def test_cbor_is_bounded_in_size_and_depth() -> None:
    assert parse_cbor(bytes.fromhex("81" * CBOR_DEPTH_LIMIT + "01"))
    with pytest.raises(Malformed, match="3 are allowed"):
        parse_cbor(canonical_cbor([1, 2, 3]), limit=3)


@given(st.lists(st.integers(0, 2**64 - 1), unique=True) | st.lists(text, unique=True))
def test_maps_by_one_type_of_key_are_in_the_order_of_rfc_8949(keys: list[int] | list[str]) -> None:
    encoded = canonical_cbor(dict.fromkeys(keys, 0))
    want = sorted(cbor2.dumps(key) for key in keys)
    assert encoded.endswith(b"".join(key + b"\0" for key in want))


def test_a_digest_names_its_algorithm() -> None:
    assert digest(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@given(st.integers(-62135596800000, 253402300799999))
def test_times_come_back_to_the_millisecond(milliseconds: int) -> None:
    written = rfc3339(milliseconds / 1000)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", written)
    assert abs(parse_rfc3339(written) * 1000 - milliseconds) <= 1


def test_times_are_utc_with_milliseconds() -> None:
    assert rfc3339(1768473000) == "2026-01-15T10:30:00.000Z"
    assert parse_rfc3339("2026-01-15T11:30:00+01:00") == 1768473000


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "2026-01-15",
        "2026-01-15T10:30:00",
        "2026-13-15T10:30:00Z",
        "20260115T103000Z",
        "2026-01-15 10:30:00Z",
        "2026-01-15T10:30:60Z",
        "2026-01-15T10:30:00Z\n",
        "٢٠٢٦-01-15T10:30:00Z",
        "2026-01-15T10:30:00+24:00",
    ],
)
def test_what_is_no_time_is_malformed(wrong: str) -> None:
    with pytest.raises(Malformed):
        parse_rfc3339(wrong)


@pytest.mark.parametrize("seconds", [1e18, -1e18, math.inf, math.nan])
def test_a_moment_beyond_the_calendar_is_malformed(seconds: float) -> None:
    with pytest.raises(Malformed):
        rfc3339(seconds)
