"""Every payload type: it comes back as it went, and hostile bytes only ever are `Malformed`."""

import contextlib
import json
import string
from collections.abc import Callable
from typing import Any, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetctl.errors import Malformed
from fleetctl.wire.assignment import Assignment
from fleetctl.wire.command import Command, Reply
from fleetctl.wire.cose import EDDSA, ES256
from fleetctl.wire.document import canonical_cbor, dump_json, parse_cbor, rfc3339
from fleetctl.wire.manifest import Manifest
from fleetctl.wire.presence import Presence
from fleetctl.wire.status import PHASES, UpdateStatus
from fleetctl.wire.telemetry import Quality, Reading, Telemetry
from fleetctl.wire.trust import Role, TrustDocument, TrustKey, key_id
from fleetctl.wire.twin import Desired, Reported


class Document(Protocol):
    def encode(self) -> bytes: ...


levels = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
versions = st.from_regex(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(-rc\.[0-9])?(\+[a-z]{1,4})?", fullmatch=True)
digests = st.binary(min_size=32, max_size=32).map(lambda raw: f"sha256:{raw.hex()}")
times = st.integers(0, 4102444800).map(rfc3339)
sessions = st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)).map(lambda pair: f"{pair[0]}-{pair[1]}")
counts = st.integers(0, 2**53 - 1)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(text, json_values, max_size=4)
names = st.text(string.ascii_letters, min_size=1, max_size=12)


presences = st.builds(
    Presence,
    st.sampled_from(["online", "offline"]),
    sessions,
    versions,
    digests,
    st.sampled_from(["none", "set"]),
    st.floats(0.001, 86400) | st.integers(1, 86400),
    st.none() | times,
    st.none() | times,
)
readings = st.builds(
    Reading,
    st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | text,
    st.none() | text,
    st.sampled_from(Quality),
)
telemetries = st.builds(Telemetry, levels, st.none() | times, levels, st.dictionaries(names, readings, max_size=5), objects)
desireds = st.builds(Desired, counts, counts, digests, objects, times)
reporteds = st.builds(Reported, counts, objects, st.none() | times)
commands = st.builds(Command, levels, sessions, objects, st.none() | times)
replies = st.builds(
    Reply, levels, st.sampled_from(["accepted", "succeeded", "failed", "rejected"]), json_values, st.none() | times
)
statuses = st.builds(
    UpdateStatus,
    rollout_id=levels,
    order=counts,
    attempt=counts,
    step=counts,
    phase=st.sampled_from(sorted(PHASES)),
    code=st.none() | st.sampled_from(["BOOT_FAILED", "NO_SPACE"]),
    progress=st.none() | st.integers(0, 100),
    from_version=versions,
    to_version=st.none() | versions,
    manifest=digests,
    slot=st.none() | levels,
    boot=counts,
    accepted_boot=st.none() | counts,
    timestamp=st.none() | times,
    detail=st.none() | text,
)
assignments = st.builds(
    Assignment,
    tenant=levels,
    device_id=levels,
    rollout_id=levels,
    order=st.integers(1, 2**53 - 1),
    action=st.sampled_from(["install", "cancel"]),
    attempt=st.integers(1, 1000),
    manifest=st.binary(min_size=32, max_size=32),
    not_before=st.none() | counts,
    not_after=st.none() | counts,
    window=st.none() | st.tuples(st.integers(0, 700), st.integers(701, 1439)),
    jitter=st.integers(0, 86400),
    allow_downgrade=st.booleans(),
)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    device_class, version = draw(levels), draw(versions)
    return Manifest(
        vendor=draw(st.text(string.printable[:95] + "é", min_size=1, max_size=64)),
        device_class=device_class,
        version=version,
        slot=draw(levels),
        size=draw(st.integers(1, 2**40)),
        sha256=draw(st.binary(min_size=32, max_size=32)),
        native_format=draw(levels),
        security_counter=draw(st.integers(0, 2**32 - 1)),
        sequence=draw(counts),
        name=f"{device_class}@{version}",
    )


@st.composite
def trust_keys(draw: st.DrawFn) -> TrustKey:
    alg, length = draw(st.sampled_from([(EDDSA, 32), (ES256, 65)]))
    key = draw(st.binary(min_size=length, max_size=length))
    return TrustKey(draw(st.sampled_from(Role)), key_id(alg, key), alg, key, draw(st.none() | counts))


trusts = st.builds(
    TrustDocument,
    st.integers(1, 2**53 - 1),
    levels,
    st.lists(trust_keys(), max_size=6, unique_by=lambda key: (key.role, key.kid)).map(tuple),
)

DECODERS: dict[str, Callable[[bytes], Document]] = {
    decoder.__name__: decoder.decode
    for decoder in (
        Presence,
        Telemetry,
        Desired,
        Reported,
        Command,
        Reply,
        UpdateStatus,
        Assignment,
        Manifest,
        TrustDocument,
    )
}
everything = st.one_of(presences, telemetries, desireds, reporteds, commands, replies, statuses, assignments, manifests(), trusts)


@given(everything)
def test_every_document_comes_back_as_it_went(document: Document) -> None:
    payload = document.encode()
    again = DECODERS[type(document).__name__](payload)
    assert again == document
    assert again.encode() == payload


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
@given(st.binary(max_size=200) | objects.map(dump_json) | st.dictionaries(st.integers(1, 13), text).map(canonical_cbor))
def test_hostile_bytes_are_only_ever_malformed(decode: Callable[[bytes], Document], payload: bytes) -> None:
    with contextlib.suppress(Malformed):
        decode(payload)


@given(everything, st.data())
def test_a_document_with_one_member_replaced_is_valid_or_malformed(document: Document, data: st.DataObject) -> None:
    payload = document.encode()
    if payload[:1] == b"{":
        members = json.loads(payload)
        members[data.draw(st.sampled_from(sorted(members)))] = data.draw(json_values)
        mutated = dump_json(members)
    else:
        numbered: Any = parse_cbor(payload)
        numbered[data.draw(st.sampled_from(sorted(numbered)))] = data.draw(json_values | st.binary(max_size=70))
        mutated = canonical_cbor(numbered)
    with contextlib.suppress(Malformed):
        again = DECODERS[type(document).__name__](mutated)
        assert DECODERS[type(document).__name__](again.encode()) == again
