"""The members of every document: their names are written out by hand, their limits tried from both sides."""

import json
from typing import Protocol

import pytest

from fleetctl.errors import Malformed
from fleetctl.wire import desired
from fleetctl.wire.assignment import Assignment
from fleetctl.wire.command import Command, Reply
from fleetctl.wire.cose import EDDSA
from fleetctl.wire.document import TWIN_LIMIT, canonical_cbor, dump_json, parse_cbor
from fleetctl.wire.manifest import Manifest
from fleetctl.wire.presence import Presence
from fleetctl.wire.status import UpdateStatus
from fleetctl.wire.telemetry import Telemetry
from fleetctl.wire.trust import TrustDocument, TrustKey, key_id
from fleetctl.wire.twin import Desired, Reported


class Document(Protocol):
    def encode(self) -> bytes: ...


DIGEST = "sha256:" + "ab" * 32
WHEN = "2026-01-15T10:30:00.000Z"
PRESENCE = Presence("online", "12-3", "2.0.5", DIGEST, "set", 900, WHEN, None)
STATUS = UpdateStatus("r-1", 5, 1, 7, "testing", None, 62, "1.4.1", "1.4.2", DIGEST, "B", 12, 11, WHEN, None)
ASSIGNMENT = Assignment("acme", "pump-1", "r-1", 5, "install", 1, bytes(32))
MANIFEST = Manifest("acme", "pump", "1.4.2", "app", 1000, bytes(32), "raw", 3, 7, "pump@1.4.2")


@pytest.mark.parametrize(
    ("document", "keys"),
    [
        (PRESENCE, "status session firmwareVersion digest clock heartbeat connectedAt timestamp"),
        (Telemetry("t-1", WHEN, "m-1", {}, {}), "deviceId timestamp messageId readings metadata"),
        (Desired(1, 7, DIGEST, {}, WHEN), "generation version digest desired timestamp"),
        (Reported(7, {}, None), "version reported timestamp"),
        (Command("c-1", "12-3"), "id session args expires"),
        (Reply("c-1", "accepted"), "id status result timestamp"),
        (
            STATUS,
            "rolloutId order attempt step phase code progress from to manifest slot boot acceptedBoot timestamp detail",
        ),
    ],
)
def test_the_keys_of_json_documents_are_those_of_the_contract(document: Document, keys: str) -> None:
    assert list(json.loads(document.encode())) == keys.split()


def test_the_numbers_of_signed_documents_are_those_of_the_contract() -> None:
    full = Assignment("acme", "pump-1", "r-1", 5, "cancel", 1, bytes(32), 10, 20, (60, 300), 30, True)
    assert parse_cbor(full.encode()) == {
        1: "acme",
        2: "pump-1",
        3: "r-1",
        4: 5,
        5: 2,
        6: 1,
        7: bytes(32),
        8: 10,
        9: 20,
        10: [60, 300],
        11: 30,
        12: True,
    }
    assert parse_cbor(MANIFEST.encode()) == {
        1: "acme",
        2: "pump",
        3: "1.4.2",
        4: "app",
        5: 1000,
        6: bytes(32),
        7: "raw",
        8: 3,
        9: 7,
        10: "pump@1.4.2",
    }
    key = TrustKey("rollout", key_id(EDDSA, bytes(32)), EDDSA, bytes(32), 99)
    assert parse_cbor(TrustDocument(3, "acme", (key,)).encode()) == {
        1: 3,
        2: "acme",
        3: [{1: 2, 2: key_id(EDDSA, bytes(32)), 3: -8, 4: bytes(32), 5: 99}],
    }


def changed(document: Document, **members: object) -> bytes:
    return dump_json({**json.loads(document.encode()), **members})


@pytest.mark.parametrize(
    "members",
    [
        {"status": "asleep"},
        {"status": True},
        {"session": "12"},
        {"session": "-1-3"},
        {"session": "01-3"},
        {"digest": "sha256:" + "AB" * 32},
        {"digest": "md5:00"},
        {"heartbeat": 0},
        {"heartbeat": -5},
        {"heartbeat": True},
        {"heartbeat": "900"},
        {"heartbeat": 1e12},
        {"clock": None},
        {"firmwareVersion": "1.0\x1b[2J"},
        {"firmwareVersion": "9" * 65},
        {"timestamp": "yesterday"},
        {"connectedAt": 5},
    ],
)
def test_a_status_with_a_wrong_member_is_malformed(members: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        Presence.decode(changed(PRESENCE, **members))


def test_a_status_knows_its_boot_and_its_count() -> None:
    assert (PRESENCE.boot, PRESENCE.count) == (12, 3)


@pytest.mark.parametrize(
    "members",
    [
        {"phase": "withdrawn"},
        {"phase": "flying"},
        {"code": "no space"},
        {"progress": 101},
        {"progress": 50.5},
        {"attempt": True},
        {"step": -1},
        {"boot": 2**53},
        {"rolloutId": "../../etc"},
        {"manifest": None},
        {"detail": "x" * 1025},
    ],
)
def test_an_update_status_with_a_wrong_member_is_malformed(members: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        UpdateStatus.decode(changed(STATUS, **members))


def test_unknown_json_members_are_ignored_and_missing_ones_named() -> None:
    assert Presence.decode(changed(PRESENCE, via="gw-1")) == PRESENCE
    with pytest.raises(Malformed, match="the status has no `digest`"):
        Presence.decode(b'{"status":"online","session":"1-1","firmwareVersion":"1"}')


def test_a_twin_document_is_bounded() -> None:
    fits = {"a": "x" * (TWIN_LIMIT - 8)}
    assert Reported.decode(Reported(1, fits).encode()).reported == fits
    with pytest.raises(Malformed, match="8193 bytes, 8192 are allowed"):
        Reported.decode(Reported(1, {"a": "x" * (TWIN_LIMIT - 7)}).encode())
    with pytest.raises(Malformed, match="the desired state"):
        Desired.decode(Desired(1, 1, DIGEST, {"a": "x" * TWIN_LIMIT}, WHEN).encode())


def renumbered(document: Document, members: dict[int, object]) -> bytes:
    held = parse_cbor(document.encode())
    assert isinstance(held, dict)
    return canonical_cbor({key: value for key, value in {**held, **members}.items() if value != "absent"})


@pytest.mark.parametrize(
    "members",
    [
        {1: "_fleet"},
        {2: "pump/1"},
        {4: 0},
        {4: -1},
        {4: True},
        {4: 5.0},
        {5: 3},
        {6: 0},
        {7: bytes(31)},
        {7: "a" * 32},
        {8: None},
        {8: -1},
        {10: [60]},
        {10: [60, 1440]},
        {10: [60, 60]},
        {10: [False, 60]},
        {11: 1.0},
        {12: 1},
        {12: "absent"},
        {0: 1},
        {13: 1},
        {99: 1},
    ],
)
def test_an_assignment_with_a_wrong_member_is_malformed(members: dict[int, object]) -> None:
    with pytest.raises(Malformed):
        Assignment.decode(renumbered(ASSIGNMENT, members))


@pytest.mark.parametrize(
    "members",
    [
        {1: ""},
        {1: "a\x1b[2J"},
        {2: "a b"},
        {5: 0},
        {6: bytes(20)},
        {8: 2**32},
        {10: "pump@9.9.9"},
        {3: "1.4.3"},
        {11: 1},
        {7: "absent"},
    ],
)
def test_a_manifest_with_a_wrong_member_is_malformed(members: dict[int, object]) -> None:
    with pytest.raises(Malformed):
        Manifest.decode(renumbered(MANIFEST, members))


def test_keys_from_100_on_are_extensions_that_may_be_ignored() -> None:
    assert Assignment.decode(renumbered(ASSIGNMENT, {100: {1: "later"}})) == ASSIGNMENT
    assert Manifest.decode(renumbered(MANIFEST, {1000: [1]})) == MANIFEST
    with pytest.raises(Malformed, match="critical key `14`"):
        Assignment.decode(renumbered(ASSIGNMENT, {14: 1}))


def test_a_trust_document_names_no_key_twice_and_every_key_by_its_kid() -> None:
    key = TrustKey("release", key_id(EDDSA, bytes(32)), EDDSA, bytes(32))
    with pytest.raises(Malformed, match="twice"):
        TrustDocument.decode(TrustDocument(1, "acme", (key, key)).encode())
    liar = TrustKey("release", b"12345678", EDDSA, bytes(32))
    with pytest.raises(Malformed, match="not the kid of its key"):
        TrustDocument.decode(TrustDocument(1, "acme", (liar,)).encode())
    with pytest.raises(Malformed, match="wrong `3`"):
        TrustDocument.decode(TrustDocument(1, "acme", (key,) * 65).encode())
    with pytest.raises(Malformed, match="wrong `1`"):
        TrustDocument.decode(TrustDocument(0, "acme", ()).encode())


def test_an_update_is_two_byte_strings() -> None:
    assert desired.unpack(desired.pack(b"a", b"m")) == (b"a", b"m")
    for wrong in ([b"a"], [b"a", b"m", b"x"], [b"a", "m"], {1: b"a", 2: b"m"}, b"a"):
        with pytest.raises(Malformed):
            desired.unpack(canonical_cbor(wrong))
